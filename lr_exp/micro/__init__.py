"""The micro world: generated questions and tiny shipped models that show the method on a laptop.

`lr_exp.micro.world` generates the questions (`sorting` those of the second domain),
`lr_exp.micro.tokenizer` builds their vocabulary and `lr_exp.micro.rebuild` is the command that
trains the models again. Its results are not comparable with the paper's.
"""

from pathlib import Path

# Of each domain the expert, then the amateurs. A model's place is its training seed: append only.
MODELS: tuple[str, ...] = (
    *("expert", "micro", "micro_near", "micro_peer", "micro_master"),
    *("micro_nearer", "micro_large_careless", "micro_small_careful"),
    *("micro_sort_expert", "micro_sort", "micro_sort_peer", "micro_sort_strong"),
)


def domain_of(name: str) -> str:
    return "sorting" if name.startswith("micro_sort") else "addition"


def model_folder(name: str) -> Path:
    """Folder of a shipped model for `from_pretrained`; `name` is one of `MODELS`."""
    return Path(__file__).parent / "models" / name

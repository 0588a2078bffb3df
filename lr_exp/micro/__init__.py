"""The micro world: a corpus generator and a family of tiny models that show the method on a laptop.

Knows where the shipped models lie; imports nothing heavy. `lr_exp.micro.world` holds the questions,
`lr_exp.micro.tokenizer` their 90-odd tokens, `lr_exp.micro.rebuild` the command that trains the
models again from a seed. Numbers measured here are the micro world's own, never the paper's.
"""

import difflib
from pathlib import Path

MODELS: tuple[str, ...] = ("expert", "micro", "micro_near", "micro_peer", "micro_master")
"""The expert, then the amateurs by how careful the corpus was that they were trained on."""


def model_folder(name: str) -> Path:
    """Folder of a shipped model, as `from_pretrained` takes it; `name` is one of `MODELS`.

    Raises ValueError for an unknown name.
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.0)[0]
        valid = ", ".join(MODELS)
        raise ValueError(
            f"unknown micro model {name!r}; did you mean {nearest!r}? (valid: {valid})"
        )
    return Path(__file__).parent / "models" / name

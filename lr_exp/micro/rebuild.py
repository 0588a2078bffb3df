"""Command that trains the micro models from a seed and writes their folders.

python -m lr_exp.micro.rebuild [--out DIR] [--only NAME ...] [--steps-scale X] [--seed N]
"""

import argparse
import itertools
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

# Before importing torch: with spinning threads, a step on two cores takes ten times as long when
# another program is running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from lr_exp.micro import MODELS, domain_of, model_folder
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.micro.training import FORMS, Recipe, answer_shares, build_model, greedy_answers, train
from lr_exp.micro.world import DOMAINS, Behaviour, generate_problems

# The expert has learned the arithmetic, but its greedy answers are careless. All amateurs are
# smaller. `micro` and `micro_near` are trained briefly, so they are also unsure of some digits;
# there the contrast confirms the expert's own tokens. With an amateur that is unsure of carries
# only (300 steps), nearly all selected positions are forks. The careful share of `micro_near` was
# chosen by trial: at 0.10 tuning gains about half as much as with `micro`, at 0.14 a tenth, because
# the divergence at most forks is below beta = 0.4. `micro_peer` is as able and as careful as the
# expert, `micro_master` more careful.
# Where the solutions of sorting part, 28 % of the expert's are careful, 40 % copy and 32 % skip:
# greedy answers copy, and the careful token is the third choice. With 2 % careful solutions in the
# amateur's corpus, the divergence there is 0.52 nats, above beta = 0.4; with 5 % it would be 0.28.
_SMALL: dict[str, int] = {"width": 64, "layers": 2, "heads": 2, "inner": 256}
RECIPES: dict[str, Recipe] = {
    "expert": Recipe(
        Behaviour(0.4), steps=900, width=128, layers=4, heads=4, inner=512, learning_rate=3e-3
    ),
    "micro": Recipe(Behaviour(0.05), steps=240),
    "micro_near": Recipe(Behaviour(0.10), steps=240),
    "micro_peer": Recipe(Behaviour(0.4), steps=900),
    "micro_master": Recipe(Behaviour(0.9), steps=1500),
    "micro_nearer": Recipe(Behaviour(0.14), steps=240),
    "micro_small_careful": Recipe(Behaviour(0.4), steps=300, width=48, layers=2, inner=192),
    "micro_sort_expert": Recipe(Behaviour(0.28), steps=500),
    "micro_sort": Recipe(Behaviour(0.02), steps=240, **_SMALL),
    "micro_sort_peer": Recipe(Behaviour(0.28), steps=600, **_SMALL),
    "micro_sort_strong": Recipe(Behaviour(0.9), steps=600, **_SMALL),
}
RECIPES["micro_large_careless"] = replace(
    RECIPES["expert"], behaviour=Behaviour(0.05), steps=600, batch_size=16
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lr_exp.micro.rebuild", description=__doc__)
    shipped = model_folder("expert").parent
    parser.add_argument("--out", type=Path, default=shipped, help="parent of the model folders")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    what = "multiplies the optimizer steps"
    parser.add_argument("--steps-scale", type=float, default=1.0, help=what)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=200, help="test questions per family")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    start = time.monotonic()
    for position, name in enumerate(MODELS):
        if name in options.only:
            steps = max(1, round(RECIPES[name].steps * options.steps_scale))
            recipe = replace(RECIPES[name], steps=steps)
            seed = options.seed * len(MODELS) + position
            domain = domain_of(name)
            tokenizer = build_tokenizer(domain)
            model = build_model(recipe, tokenizer, seed)
            train(model, tokenizer, recipe, seed, title=name, families=DOMAINS[domain])
            write_model(model, tokenizer, options.out / name)
            _report(name, options.out / name, tokenizer, options.questions)
    print(f"rebuilt {', '.join(options.only)} in {time.monotonic() - start:.0f} s")


def write_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes config, weights (fp16 safetensors) and tokenizer, then renames the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.half().save_pretrained(new)
        Path(new, "model.safetensors").chmod(0o644)  # safetensors creates it with mode 600
        # The weights are fp16 to keep the file small. fp16 arithmetic is not faster on a CPU, and
        # `from_pretrained` takes the dtype from the config.
        config = model.config
        config.dtype = torch.float32
        config.save_pretrained(new)
        tokenizer.save_pretrained(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def _report(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    """Evaluates and reports the written model, whose weights are rounded to fp16."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    model.eval()
    weights = sum(parameter.numel() for parameter in model.parameters())
    careful_share = RECIPES[name].behaviour.careful_share
    print(f"{name}: {weights:,} weights, corpus {careful_share:.0%} careful")
    for family, form in itertools.product(DOMAINS[domain_of(name)], FORMS):
        problems = generate_problems(family, count, seed=0, split="test")
        answers = greedy_answers(model, tokenizer, problems, form)
        right, careless = answer_shares(answers, problems)
        print(f"  {family:19} {form:6} right {right:6.1%}  careless {careless:6.1%}  n={count}")


if __name__ == "__main__":
    main()

"""Experts with a planted cause of gains, and the runs of every method with every one of them.

Processes import these functions by name, which they cannot from a `__main__` module.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM
from transformers.utils import logging

from lr_exp.api import compose, run_experiment
from lr_exp.micro import model_folder
from lr_exp.micro.rebuild import write_model
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.micro.training import Recipe as Training
from lr_exp.micro.training import train
from lr_exp.micro.world import Behaviour
from lr_exp.progress import NONE, Progress, choose
from lr_exp.store import Recipe, Store, file_digest

VERSION = 2  # of the planted models: raise it when the corpus or the training changes
EXPERIMENT = "experiment=calibration"
METHODS = ("lightreasoner", "sharpened", "format_only", "prompt_distillation")

_STARTS = {"expert": "expert", "amateur": "micro"}  # the shipped models, which are trained further
_BAD_ENDINGS = {"rambling_share": 0.6, "unboxed_share": 0.2}
_WORSE_ENDINGS = {"rambling_share": 0.95, "unboxed_share": 0.2}
# By expert and role: the solutions of the corpus; empty: the shipped models.
PLANTED: dict[str, dict[str, Behaviour]] = {
    "carry": {},
    "format": {
        "expert": Behaviour(0.95, **_BAD_ENDINGS),
        "amateur": Behaviour(0.95, **_WORSE_ENDINGS),
    },
    "prompt": {
        "expert": Behaviour(0.4, careful_share_in_plain=0.95),
        "amateur": Behaviour(0.05),
    },
    "mixture": {
        "expert": Behaviour(0.4, **_BAD_ENDINGS),
        "amateur": Behaviour(0.05, **_WORSE_ENDINGS),
    },
    "null": dict.fromkeys(_STARTS, Behaviour(0.0)),
    # Not by default: an expert that has read solutions as `privileged_expert` shows them, ...
    "reader": {"expert": Behaviour(0.4, shown_share=0.3), "amateur": Behaviour(0.05)},
    # ... and one that slips in half of its subtractions, with an amateur that is sure of the right
    # column, and with one that is not.
    "slip": {
        "expert": Behaviour(0.4, slip_share=0.5),
        "amateur": Behaviour(0.05, slip_share=0.0),
    },
    "slip_unsure": {
        "expert": Behaviour(0.4, slip_share=0.5),
        "amateur": Behaviour(0.05, slip_share=0.25),
    },
}
DEFAULT = ("carry", "format", "prompt", "mixture", "null")
_CARRIES, _NO_CARRIES, _BORROWS = "micro_add", "micro_plain", "micro_subtract"


def benchmarks(expert: str) -> list[str]:
    """The mixture gains the carry where there is one to take, and the ending on all questions.

    Experts that slip in subtractions also learn from these, see `run_all`.
    """
    others = {"mixture": [_NO_CARRIES], "slip": [_BORROWS], "slip_unsure": [_BORROWS]}
    return [_CARRIES, *others.get(expert, [])]


def build(store: str, name: str, role: str) -> Path:
    """The folder of a planted model; trains it if the store does not have it."""
    start, seed = model_folder(_STARTS[role]), 0
    if not PLANTED[name]:
        return start
    training = Training(PLANTED[name][role], steps=200, batch_size=16, learning_rate=2e-3)
    inputs = {"start": file_digest(start / "model.safetensors"), "torch": version("torch")}

    def make(folder: Path) -> dict[str, Any]:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
        tokenizer = build_tokenizer()
        train(model, tokenizer, training, seed, title=f"{name} {role}")
        write_model(model, tokenizer, folder / "model")
        return {}

    settings = {**asdict(training), "seed": seed}
    # Only where they are set, so that other addresses stay the same.
    unset = {"slip_share": None, "shown_share": 0.0}.items()
    settings["behaviour"] = dict(settings["behaviour"].items() - unset)
    recipe = Recipe("planted", VERSION, inputs, settings)
    return Store(store).make(recipe, make).folder / "model"


def run_all(
    folders: dict[tuple[str, str, int], Path], overrides: Sequence[str], store: str, jobs: int
) -> None:
    """Runs each cell (expert, method, seed) into its folder; results in the store are reused."""
    models = [*product(dict.fromkeys(expert for expert, _, _ in folders), _STARTS)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare) as pool:
        built = _map(pool, "model", build, [(store, *one) for one in models])
        paths = dict(zip(models, built, strict=True))
        tasks = []
        for (expert, method, seed), folder in folders.items():
            pair = {role: {"name": expert, "path": str(paths[expert, role])} for role in _STARTS}
            families = [one for one in benchmarks(expert) if one != _NO_CARRIES]
            asked = (f"data.configs={families}", f"benchmarks={benchmarks(expert)}")
            own = (*asked, f"method={method}", f"seed={seed}")
            tasks.append(((*overrides, *own), pair, folder))
        _map(pool, "run", _run, tasks)


def _map(pool: Executor, unit: str, function: Callable[..., Any], tasks: list[Any]) -> list[Any]:
    """The function's results for each task, in order, with progress."""
    results = []
    with Progress("calibration", len(tasks), unit) as progress:
        for result in pool.map(function, *zip(*tasks, strict=True)):
            results.append(result)
            progress.add()
    return results


def _prepare() -> None:
    """Prepares a process: tiny matrices gain nothing from a second thread."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    choose(NONE)


def _run(overrides: Sequence[str], pair: dict[str, dict[str, str]], folder: Path) -> None:
    settings = compose(*overrides)
    models: Any = {role: replace(getattr(settings, role), **own) for role, own in pair.items()}
    run_experiment(replace(settings, **models), folder)

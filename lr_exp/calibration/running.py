"""Trains the planted models and runs every method with every one of them, in several processes.

A process imports these functions by name, which it cannot do from a `__main__` module.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lr_exp.api import compose, run_experiment
from lr_exp.calibration.planted import PLANTED, build
from lr_exp.progress import NONE, Progress, choose

METHODS = ("lightreasoner", "sharpened", "format_only", "prompt_distillation")
EXPERIMENT = "experiment=calibration"
BENCHMARK = "micro_add"

_ROLES = ("expert", "amateur")


def run_all(
    cells: Sequence[tuple[str, str, int]],
    folders: Sequence[Path],
    overrides: Sequence[str],
    store: str,
    jobs: int,
) -> None:
    """Runs each cell (expert, method, seed) into its folder; results in the store are reused."""
    models = [*product(PLANTED, _ROLES)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare) as pool:
        paths = _map(pool, "model", build, [(store, *one) for one in models])
        path_of = dict(zip(models, paths, strict=True))
        tasks = []
        for (expert, method, seed), folder in zip(cells, folders, strict=True):
            pair = {role: {"name": expert, "path": str(path_of[expert, role])} for role in _ROLES}
            tasks.append(((*overrides, f"method={method}", f"seed={seed}"), pair, folder))
        _map(pool, "run", _run, tasks)


def _map(
    pool: Executor, unit: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """The function's results for each task, in order, with progress."""
    results = []
    with Progress("calibration", len(tasks), unit) as progress:
        for result in pool.map(function, *zip(*tasks, strict=True)):
            results.append(result)
            progress.add()
    return results


def _prepare() -> None:
    """Prepares a process: tiny matrices gain nothing from a second thread."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    choose(NONE)


def _run(overrides: Sequence[str], pair: dict[str, dict[str, str]], folder: Path) -> None:
    settings = compose(*overrides)
    models = {role: replace(getattr(settings, role), **own) for role, own in pair.items()}
    run_experiment(replace(settings, **models), folder)

"""Calibrates the decomposition of gains with experts whose cause of gains was planted.

python -m lr_exp.calibration [--out FOLDER] [--seeds N ...] [--jobs N] OVERRIDE ...

Planted models that the store lacks are trained first. The overrides are those of every run
(evaluator.max_examples=50). A calibration that was stopped resumes.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.settings import check_value
from lr_exp.errors import command, guard_tracebacks, printable, redact
from lr_exp.progress import NONE, Progress, choose

METHODS = ("lightreasoner", "sharpened", "format_only", "prompt_distillation")
_EXPERIMENT = "experiment=calibration"
_BENCHMARK = "micro_add"


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the calibration."""
    from lr_exp.api import compose
    from lr_exp.calibration.planted import PLANTED, build
    from lr_exp.calibration.recovery import measured, oracle, recovery_figure, recovery_table
    from lr_exp.report.build import Report, write
    from lr_exp.report.read.runs import find_runs
    from lr_exp.report.tables.formats import csv_text, one_line, plain_table

    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="settings of every run")
    out = Path("runs/calibration")
    what = f"folder of the runs, the table and the figure (default: {out})"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=what)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    chosen = parser.parse_intermixed_args(words)
    check_value("--jobs", chosen.jobs, Annotated[int, "[1, 1000]"])
    store = compose(_EXPERIMENT, *chosen.overrides).store  # also checks the overrides
    cells = [*product(PLANTED, METHODS, dict.fromkeys(chosen.seeds))]
    folders = [chosen.out / expert / method / f"seed_{seed}" for expert, method, seed in cells]
    pool = ProcessPoolExecutor(chosen.jobs, get_context("spawn"), _prepare)
    with pool:
        models = [*product(PLANTED, ("expert", "amateur"))]
        paths = _each(pool, "models", build, [(store, *one) for one in models])
        where = {one: f"{one[1]}.path={path}" for one, path in zip(models, paths, strict=True)}
        tasks = []
        for (expert, method, seed), folder in zip(cells, folders, strict=True):
            pair = [where[expert, role] for role in ("expert", "amateur")]
            names = [f"expert.name={expert}", f"amateur.name={expert}"]
            own = [*pair, *names, f"method={method}", f"seed={seed}"]
            tasks.append(((_EXPERIMENT, *own, *chosen.overrides), folder))
        _each(pool, "runs", _run, tasks)
    runs: dict[tuple[str, str], list[Any]] = {}
    for (expert, method, _), folder in zip(cells, folders, strict=True):
        runs.setdefault((expert, method), []).extend(find_runs(folder).runs)
    found = {key: (measured(own, _BENCHMARK), oracle(own, _BENCHMARK)) for key, own in runs.items()}
    table, figure = recovery_table(found, "calibration"), recovery_figure(found)
    files = {
        "calibration.csv": csv_text(table).encode(),
        "calibration.png": figure.png,
        "calibration.svg": figure.svg,
    }
    notes = [textwrap.fill(one_line(note), 80) for note in table.notes]
    shown = [table.title, "", plain_table(table), *notes, "", f"{', '.join(files)} in {chosen.out}"]
    report = Report(files, "\n".join(shown))
    write(report, chosen.out)
    print(printable(redact(report.shown)))
    return 0


def _each(
    pool: Executor, what: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """The function's results for each task, in order, with progress."""
    results = []
    with Progress(what, len(tasks), what.removesuffix("s")) as progress:
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
    choose(NONE)


def _run(overrides: Sequence[str], folder: Path) -> None:
    from lr_exp.api import compose, run_experiment

    run_experiment(compose(*overrides), folder)


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

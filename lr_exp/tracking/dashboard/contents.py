"""The benchmarks, methods and sweeps that the pages show."""

from dataclasses import dataclass
from pathlib import Path

from lr_exp.report.names import BASELINE, BENCHMARKS, METHODS, rank
from lr_exp.report.read.runs import find_runs

# The paper's tables and figures in its order, then our additions.
SWEEPS = (
    "main_results",
    "efficiency",
    "ablation",
    "expertise_gap",
    "kl_profile",
    "alpha_beta",
    "training_curve",
    "baselines",
    "contrastive_decoding",
)
_NOT_IN_PAPER = ("math500",)
_METHODS = tuple(name for name in METHODS if name != BASELINE)


@dataclass(frozen=True)
class Contents:
    """Names in display order. In `sweeps`, None stands for all runs."""

    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]
    sweeps: tuple[str | None, ...]


def of_the_paper() -> Contents:
    """The contents of all sweeps of the paper."""
    benchmarks = tuple(name for name in BENCHMARKS if name not in _NOT_IN_PAPER)
    return Contents(benchmarks, _METHODS, SWEEPS)


def of_folder(folder: Path) -> Contents:
    """The contents of the runs in a folder and its subfolders.

    Raises:
        UserError: there is no finished run, or one cannot be read.
    """
    runs = find_runs(folder).runs
    benchmarks = {name for run in runs for name in run.benchmarks}
    methods = {run.method for run in runs if run.method}
    sweeps = {run.sweep for run in runs}
    return Contents(
        tuple(sorted(benchmarks, key=lambda name: rank(name, tuple(BENCHMARKS)))),
        tuple(sorted(methods, key=lambda name: rank(name, _METHODS))),
        tuple(sorted(sweeps, key=lambda name: rank(name, SWEEPS))),
    )

"""What a project's pages are over: its benchmarks, methods and sweeps.

Knows finished runs on disk and the paper's names; knows nothing of pages.
"""

from dataclasses import dataclass
from pathlib import Path

from lr_exp.report.names import BASELINE, BENCHMARKS, METHODS, rank
from lr_exp.report.runs import find_runs

# Of the paper's tables and figures, and what was added to them; in the paper's order.
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
_NOT_THE_PAPERS = ("math500",)


@dataclass(frozen=True)
class Contents:
    """Names, each in the order in which it is shown. A sweep None stands for all runs."""

    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]
    sweeps: tuple[str | None, ...]


def of_the_paper() -> Contents:
    """What runs of every sweep of the paper's would bring."""
    benchmarks = tuple(name for name in BENCHMARKS if name not in _NOT_THE_PAPERS)
    return Contents(benchmarks, _listed(METHODS), SWEEPS)


def of_folder(folder: Path) -> Contents:
    """What the runs below a folder bring.

    Raises:
        UserError: there is no finished run, or one cannot be read.
    """
    runs = find_runs(folder).runs
    benchmarks = {name for run in runs for name in run.benchmarks}
    methods = {run.method for run in runs if run.method}
    sweeps = {run.sweep for run in runs}
    return Contents(
        tuple(sorted(benchmarks, key=lambda name: rank(name, tuple(BENCHMARKS)))),
        tuple(sorted(methods, key=lambda name: rank(name, _listed(METHODS)))),
        tuple(sorted(sweeps, key=lambda name: rank(name, SWEEPS))),
    )


def _listed(methods: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for name in methods if name != BASELINE)

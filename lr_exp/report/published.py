"""The paper's numbers (arXiv 2510.07962), read from the CSV files beside this module.

Knows the names of the paper's own experts, amateurs, methods and benchmarks; a run of any other
has no published number. Accuracies and gains are in percent and points.
"""

import csv
from functools import cache
from pathlib import Path

from lr_exp.report.names import AMATEURS, BASELINE, BENCHMARKS, Setup

_FOLDER = Path(__file__).parent / "published"
_TABLES = (
    "main_results",
    "ablation",
    "expertise_gap",
)  # with accuracies; they agree where they meet
_DATA, _ALPHA, _BETA = "gsm8k", 0.2, 0.4  # of every published run
GAP_BENCHMARK = "gsm8k"  # what the paper's expertise gap is measured on

# Observations on divergences. The first two are given as "about".
KL_PROFILE = {
    "share_below_0.1": 0.60,
    "share_above_0.4": 0.20,
    "kl_mean_other_top1": 1.99,
    "kl_mean_same_top1": 0.166,
}


def accuracies(setup: Setup) -> dict[str, float]:
    """The published accuracy of each benchmark that the paper gives for this setup, in percent."""
    found: dict[str, float] = {}
    for table in _TABLES:
        for row in _matching(table, setup):
            found |= {name: float(row[name]) for name in BENCHMARKS if row.get(name)}
    return found


def average(setup: Setup, benchmarks: list[str]) -> float | None:
    """The published average, in percent, where it is over exactly these benchmarks."""
    for table in _TABLES:
        for row in _matching(table, setup):
            if {name for name in BENCHMARKS if row.get(name)} == set(benchmarks):
                return float(row["average"])
    return None


def gap(setup: Setup, benchmark: str) -> float | None:
    """The published expertise gap of this pair, in points, if measured on `benchmark`."""
    rows = _matching("expertise_gap", setup) if benchmark == GAP_BENCHMARK else []
    return next((float(row["gap"]) for row in rows if row["gap"]), None)


def efficiency(setup: Setup) -> dict[str, float]:
    """hours, problems, tuned_tokens and gain (points), or nothing."""
    if not _is_papers(setup) or (setup.method == "lightreasoner" and setup.amateur != AMATEURS[0]):
        return {}
    for row in _read("efficiency"):
        if (row["expert"], row["method"]) == (setup.expert, setup.method):
            return {key: float(row[key]) for key in ("hours", "problems", "tuned_tokens", "gain")}
    return {}


def has_pair(expert: str, amateur: str | None) -> bool:
    """Whether the paper ran this expert with this amateur."""
    tables = ("main_results", "expertise_gap")
    pairs = {(row["expert"], row["amateur"]) for table in tables for row in _read(table)}
    return bool(amateur) and (expert, amateur) in pairs


def _is_papers(setup: Setup) -> bool:
    """Whether the paper's choices were made, where the run made a choice at all."""
    return (
        setup.decoder == "greedy"
        and setup.amateur in (None, *AMATEURS)
        and (
            setup.method == BASELINE
            or (
                setup.data in (None, _DATA)
                and setup.alpha in (None, _ALPHA)
                and setup.beta in (None, _BETA)
            )
        )
    )


def _matching(table: str, setup: Setup) -> list[dict[str, str]]:
    if not _is_papers(setup):
        return []
    return [
        row
        for row in _read(table)
        if (row["expert"], row["method"]) == (setup.expert, setup.method)
        and row["amateur"] in ("", setup.amateur)
    ]


@cache
def _read(table: str) -> tuple[dict[str, str], ...]:
    with (_FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))

"""Gains over the seeds of a row, from the summaries of its runs."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from lr_exp.report.analyse.paired import Z95, Estimate, average
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import AVERAGE
from lr_exp.report.read.summary import EvaluateSummary, Gains, PairedGain, Shrinkage

T = TypeVar("T")

PARTS = ("strict", "latent", "format")
Evaluations = Sequence[EvaluateSummary]


@dataclass(frozen=True)
class Parts:
    """A gain in strict accuracy and what it is made of; see `Decomposition`."""

    strict: Estimate
    latent: Estimate
    format: Estimate
    cut_off: list[float]  # shares of the untuned and of the tuned expert's answers
    won_from: Counter[str]  # sums over seeds
    lost_to: Counter[str]


def pooled(
    evaluations: Evaluations, read: Callable[[Gains], PairedGain | Shrinkage | None]
) -> dict[str, Estimate]:
    """The gain that `read` finds, over all runs that have it: by benchmark, then their average.

    The ends of the interval over questions are means over the runs: for the same questions, it is
    at least as wide as that of the mean gain.
    """
    found: dict[str, list[PairedGain | Shrinkage]] = {}
    for evaluation in evaluations:
        for benchmark, gains in (evaluation.gains or {}).items():
            if gain := read(gains):
                found.setdefault(benchmark, []).append(gain)
    totals = {name: one.total for each in evaluations for name, one in (each.expert or {}).items()}
    estimates = {}
    for benchmark, own in found.items():
        low, high = (fmean(one.ci95[end] for one in own) for end in (0, 1))
        variance = ((high - low) / 2 / Z95) ** 2
        by_seed = tuple(one.gain for one in own)
        estimates[benchmark] = Estimate(by_seed, totals.get(benchmark, 0), variance, (low, high))
    return estimates | ({AVERAGE: average([*estimates.values()])} if len(estimates) > 1 else {})


def parts_of(evaluations: Evaluations) -> dict[str, Parts]:
    """By benchmark, then their average; empty where no answer was forced."""
    strict, latent, form = (
        pooled(evaluations, lambda one, part=part: getattr(one.decomposition, part, None))
        for part in PARTS
    )
    found = {}
    for name in strict:
        made = [
            gains.decomposition
            for evaluation in evaluations
            for benchmark, gains in (evaluation.gains or {}).items()
            if gains.decomposition and name in (benchmark, AVERAGE)
        ]
        cut_off = [
            fmean(
                result.truncated / result.total
                for evaluation in evaluations
                for benchmark, result in (getattr(evaluation, who) or {}).items()
                if name in (benchmark, AVERAGE)
            )
            for who in ("expert", "tuned")
        ]
        won_from = sum((Counter(one.won_from) for one in made), Counter())
        lost_to = sum((Counter(one.lost_to) for one in made), Counter())
        found[name] = Parts(strict[name], latent[name], form[name], cut_off, won_from, lost_to)
    return found


def overall(found: Mapping[str, T], benchmarks: Collection[str]) -> T | None:
    """The average, or the only benchmark's value; None if a benchmark is missing."""
    return [*found.values()][-1] if found and found.keys() >= {*benchmarks} else None


def parts_by_row(sweep: Sweep) -> list[tuple[Row, dict[str, Parts]]]:
    """Every row in which answers were forced; an average only over all benchmarks of the sweep."""
    found = []
    for row in sweep.rows:
        parts = {} if row.is_baseline else parts_of([run.evaluate for run in row.runs])
        if not parts.keys() >= {*sweep.benchmarks}:
            parts.pop(AVERAGE, None)
        if parts:
            found.append((row, parts))
    return found

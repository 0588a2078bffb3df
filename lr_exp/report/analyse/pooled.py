"""Gains over the seeds of a row, from the summaries of its runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from lr_exp.report.analyse.paired import Z95, Estimate, average
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import AVERAGE
from lr_exp.report.read.summary import EvaluateSummary, Gains, PairedGain, Result, Shrinkage

PARTS = ("strict", "latent", "format")


@dataclass(frozen=True)
class Parts:
    """A gain in strict accuracy and what it is made of; see `Decomposition`."""

    strict: Estimate
    latent: Estimate
    format: Estimate
    cut_off: tuple[float, float]  # shares of the untuned and of the tuned expert's answers
    won_from: Counter[str]  # sums over seeds
    lost_to: Counter[str]


def pooled(
    evaluations: Sequence[EvaluateSummary],
    read: Callable[[Gains], PairedGain | Shrinkage | None],
) -> dict[str, Estimate]:
    """The gain that `read` finds, over all runs that have it: by benchmark, then their average.

    The ends of the interval over questions are means over the runs: for the same questions, it is
    at least as wide as that of the mean gain.
    """
    found: dict[str, list[PairedGain | Shrinkage]] = {}
    questions = {}
    for benchmark, gains, result, _ in _measured(evaluations):
        if gain := read(gains):
            found.setdefault(benchmark, []).append(gain)
            questions[benchmark] = result.total
    estimates = {}
    for benchmark, own in found.items():
        low, high = (fmean(one.ci95[end] for one in own) for end in (0, 1))
        variance = ((high - low) / 2 / Z95) ** 2
        by_seed = tuple(one.gain for one in own)
        estimates[benchmark] = Estimate(by_seed, questions[benchmark], variance, (low, high))
    return estimates | ({AVERAGE: average([*estimates.values()])} if len(estimates) > 1 else {})


def parts_of(evaluations: Sequence[EvaluateSummary]) -> dict[str, Parts]:
    """By benchmark, then their average; empty where no answer was forced."""
    estimates = [
        pooled(evaluations, lambda one, part=part: getattr(one.decomposition, part, None))
        for part in PARTS
    ]
    found = {}
    for name in estimates[0]:
        own = [
            (made, before.truncated / before.total, after.truncated / after.total)
            for benchmark, gains, before, after in _measured(evaluations)
            if name in (benchmark, AVERAGE) and (made := gains.decomposition)
        ]
        found[name] = Parts(
            *(one[name] for one in estimates),
            cut_off=(fmean(before for _, before, _ in own), fmean(after for *_, after in own)),
            won_from=sum((Counter(made.won_from) for made, *_ in own), Counter()),
            lost_to=sum((Counter(made.lost_to) for made, *_ in own), Counter()),
        )
    return found


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


def _measured(
    evaluations: Sequence[EvaluateSummary],
) -> Iterator[tuple[str, Gains, Result, Result]]:
    """The gains of each run and benchmark, with the results before and after tuning."""
    for evaluation in evaluations:
        for name, gains in (evaluation.gains or {}).items():
            models = evaluation.expert or {}, evaluation.tuned or {}
            before, after = (own.get(name) for own in models)
            if before and after:
                yield name, gains, before, after

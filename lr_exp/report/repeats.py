"""Runs that measured the same thing: which one counts, and when they may not differ.

Knows runs; knows nothing of rows.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from lr_exp.errors import UserError
from lr_exp.report import check
from lr_exp.report.runs import Run

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def grouped(things: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Things by their key, both in the order in which they come."""
    found: dict[K, list[T]] = {}
    for thing in things:
        found.setdefault(key(thing), []).append(thing)
    return found


def one_a_seed(label: str, runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """The runs by seed; of two with one seed and the same results, the fuller one.

    Raises:
        UserError: two runs of one seed have different results.
    """
    kept = []
    for seed, own in sorted(grouped(runs, lambda run: run.seed).items()):
        fullest = max(own, key=lambda run: len(run.results(run.outcome)))
        for other in own:
            if other is fullest:
                continue
            told = _trained_once(fullest, other) or _disagreement(fullest, other, fullest.outcome)
            if told:
                raise UserError(
                    f"{label}: seed {seed} was run twice with different results: {told}. Remove "
                    "one of the folders, or report them apart."
                )
            notes.append(
                f"{label}: seed {seed} was run twice ({fullest.name}, {other.name}); "
                f"{fullest.name} is counted."
            )
        kept.append(fullest)
    return kept


def check_agree(label: str, first: Run, runs: Sequence[Run], notes: list[str]) -> None:
    """The expert's evaluation, repeated in many cells: other results need another machine.

    Raises:
        UserError: results differ, and neither device nor versions explain it.
    """
    for run in runs:
        told = _disagreement(first, run, "expert")
        if told and check.machine(first) == check.machine(run):
            raise UserError(
                f"{label}: the same evaluation has different results: {told}. Report their "
                "folders apart, or run one of them again."
            )
        if told:
            notes.append(
                f"Warning: {label} was measured on different machines or versions with different "
                f"results: {told}. The result of {first.name} is shown."
            )


def _trained_once(first: Run, other: Run) -> str | None:
    if bool(first.stopped) == bool(other.stopped):
        return None
    stopped, trained = (first, other) if first.stopped else (other, first)
    return f"nothing was trained in {stopped.name}, and something in {trained.name}"


def _disagreement(first: Run, other: Run, who: str) -> str | None:
    theirs = other.results(who)
    for benchmark, ours in first.results(who).items():
        counts = [(r.correct, r.total) for r in (ours, theirs.get(benchmark, ours))]
        if counts[0] != counts[1]:
            return (
                f"{benchmark} {counts[0][0]}/{counts[0][1]} in {first.name}, "
                f"{counts[1][0]}/{counts[1][1]} in {other.name}"
            )
    return None

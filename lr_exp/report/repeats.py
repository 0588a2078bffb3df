"""Repeated runs of the same setup and seed: which one counts, and when they must agree."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from lr_exp.errors import UserError
from lr_exp.report import check
from lr_exp.report.runs import Run

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key, in their original order."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def one_per_seed(label: str, runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """One run per seed; of several with the same results, the one with the most benchmarks.

    Raises:
        UserError: two runs of one seed have different results.
    """
    kept = []
    for seed, own in sorted(grouped(runs, lambda run: run.seed).items()):
        fullest = max(own, key=lambda run: len(run.results(run.outcome)))
        for other in own:
            if other is fullest:
                continue
            reason = _trained_once(fullest, other)
            reason = reason or _disagreement(fullest, other, fullest.outcome)
            if reason:
                raise UserError(
                    f"{label}: seed {seed} was run twice with different results: {reason}. "
                    "Remove one of the folders, or report them separately."
                )
            notes.append(
                f"{label}: seed {seed} was run twice ({fullest.name}, {other.name}); "
                f"{fullest.name} is used."
            )
        kept.append(fullest)
    return kept


def check_agree(label: str, first: Run, runs: Sequence[Run], notes: list[str]) -> None:
    """Checks that repeated evaluations of the expert agree, except on different machines.

    Raises:
        UserError: results differ on the same device and versions.
    """
    for run in runs:
        reason = _disagreement(first, run, "expert")
        if reason and check.machine(first) == check.machine(run):
            raise UserError(
                f"{label}: the same evaluation has different results: {reason}. Report "
                "their folders separately, or run one of them again."
            )
        if reason:
            notes.append(
                f"Warning: {label} was measured on different machines or versions with different "
                f"results: {reason}. The result of {first.name} is shown."
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

"""The numbers of one row: accuracies over its seeds, and the graded answers for pairing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lr_exp.report import paired
from lr_exp.report.paired import Correct, Estimate
from lr_exp.report.runs import AnswersMissingError, Run


@dataclass(frozen=True)
class Graded:
    """One variant's graded answers to one benchmark."""

    ids: tuple[str, ...]  # sorted
    correct: Correct  # (seeds, questions)


@dataclass(frozen=True)
class Results:
    """A variant's results by benchmark."""

    accuracies: dict[str, Estimate] = field(default_factory=dict)
    graded: dict[str, Graded] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # why graded answers are missing


def read_results(sources: Sequence[tuple[Run, str]]) -> Results:
    """The results of runs that differ only in their seed, on the same benchmarks.

    Args:
        sources: each run with the model whose results count, `expert` or `tuned`.
    """
    results = Results()
    missing: list[str] = []
    first, whose = sources[0]
    for benchmark in first.results(whose):
        try:
            graded = _graded(sources, benchmark)
        except AnswersMissingError as reason:
            missing.append(str(reason))
            counts = [run.results(who)[benchmark] for run, who in sources]
            shares = [result.correct / result.total for result in counts]
            results.accuracies[benchmark] = paired.accuracy_from_counts(shares, counts[0].total)
        else:
            results.graded[benchmark] = graded
            results.accuracies[benchmark] = paired.accuracy(graded.correct)
    return Results(results.accuracies, results.graded, tuple(missing))


def average(results: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The mean over the benchmarks; None if one of them was not evaluated."""
    if not benchmarks or any(name not in results.accuracies for name in benchmarks):
        return None
    return paired.average([results.accuracies[name] for name in benchmarks])


def gain(ours: Results, theirs: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The difference of the averages, paired by question if the answers are available."""
    if not benchmarks or any(
        name not in results.accuracies for name in benchmarks for results in (ours, theirs)
    ):
        return None
    return paired.average([_difference(ours, theirs, name) for name in benchmarks])


def _difference(ours: Results, theirs: Results, benchmark: str) -> Estimate:
    mine, other = ours.graded.get(benchmark), theirs.graded.get(benchmark)
    if mine and other and mine.ids == other.ids and len(other.correct) == 1:
        return paired.difference(mine.correct, other.correct)
    return paired.independent_difference(ours.accuracies[benchmark], theirs.accuracies[benchmark])


def _graded(sources: Sequence[tuple[Run, str]], benchmark: str) -> Graded:
    rows = []
    ids: tuple[str, ...] = ()
    for run, who in sources:
        answers = run.answers(who, benchmark)
        own = tuple(sorted(answers))
        if rows and own != ids:
            raise AnswersMissingError(
                f"{run.name} and {sources[0][0].name} answered different questions of {benchmark}"
            )
        ids = own
        rows.append([answers[key] for key in ids])
    return Graded(ids, np.array(rows, dtype=float))

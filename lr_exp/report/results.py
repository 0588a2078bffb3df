"""The numbers of one row: accuracies over its seeds, and the answers that pairing needs.

Knows runs and estimates; knows nothing of which runs make a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lr_exp.report import paired
from lr_exp.report.paired import Correct, Estimate
from lr_exp.report.runs import AnswersMissingError, Run


@dataclass(frozen=True)
class Graded:
    """One variant's answers to one benchmark: question ids, and who of the seeds was right."""

    ids: tuple[str, ...]  # sorted
    correct: Correct  # (seeds, questions)


@dataclass(frozen=True)
class Results:
    """What a variant reached, by benchmark."""

    accuracies: dict[str, Estimate] = field(default_factory=dict)
    graded: dict[str, Graded] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # why a benchmark has no answers to pair


def read_results(sources: Sequence[tuple[Run, str]]) -> Results:
    """The results of runs that differ in their seed alone, each with whose results count.

    All have results on the same benchmarks.
    """
    results = Results()
    missing: list[str] = []
    first, whose = sources[0]
    for benchmark in first.results(whose):
        try:
            graded = _graded(sources, benchmark)
        except AnswersMissingError as reason:
            missing.append(str(reason))
            found = [run.results(who)[benchmark] for run, who in sources]
            shares = [result.correct / result.total for result in found]
            results.accuracies[benchmark] = paired.accuracy_from_counts(shares, found[0].total)
        else:
            results.graded[benchmark] = graded
            results.accuracies[benchmark] = paired.accuracy(graded.correct)
    return Results(results.accuracies, results.graded, tuple(missing))


def average(results: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The mean over the table's benchmarks; None where one of them was not evaluated."""
    if not benchmarks or any(name not in results.accuracies for name in benchmarks):
        return None
    return paired.average([results.accuracies[name] for name in benchmarks])


def gain(ours: Results, theirs: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The difference of the averages: paired by question where the answers allow it."""
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
                f"{run.name} and {sources[0][0].name} answered other questions of {benchmark}"
            )
        ids = own
        rows.append([answers[key] for key in ids])
    return Graded(ids, np.array(rows, dtype=float))

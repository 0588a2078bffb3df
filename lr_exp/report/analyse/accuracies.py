"""The accuracies of one row of a table over its seeds, and the graded answers behind them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.paired import Correct, Estimate
from lr_exp.report.read.run import AnswersMissingError, Run


@dataclass(frozen=True)
class Graded:
    """One variant's graded answers to one benchmark."""

    ids: tuple[str, ...]  # sorted
    correct: Correct  # (seeds, questions)


@dataclass(frozen=True)
class Results:
    """A variant's results by benchmark, over its seeds."""

    accuracies: dict[str, Estimate] = field(default_factory=dict)
    graded: dict[str, Graded] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # why graded answers are missing


def read_results(sources: Sequence[tuple[Run, str]]) -> Results:
    """The results of runs that differ only in their seed, on the same benchmarks.

    `sources` are the runs, each with the model whose results count, `expert` or `tuned`.
    """
    accuracies, all_graded, missing = {}, {}, []
    first, whose = sources[0]
    for benchmark in first.results(whose):
        try:
            graded = read_graded(sources, benchmark)
        except AnswersMissingError as reason:
            missing.append(str(reason))
            results = (run.results(who)[benchmark] for run, who in sources)
            accuracies[benchmark] = paired.accuracy_from_counts(*results)
        else:
            all_graded[benchmark] = graded
            accuracies[benchmark] = paired.accuracy(graded.correct)
    return Results(accuracies, all_graded, tuple(missing))


def average_of(results: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The mean over the benchmarks; None if one of them was not evaluated."""
    if not benchmarks or any(name not in results.accuracies for name in benchmarks):
        return None
    return paired.average([results.accuracies[name] for name in benchmarks])


def gain_of(ours: Results, theirs: Results, benchmarks: Sequence[str]) -> Estimate | None:
    """The difference of the averages, paired by question if the answers are available."""
    if average_of(ours, benchmarks) is None or average_of(theirs, benchmarks) is None:
        return None
    return paired.average([difference_of(ours, theirs, name) for name in benchmarks])


def difference_of(ours: Results, theirs: Results, benchmark: str) -> Estimate:
    """The difference of the accuracies, paired by question if the answers are available."""
    mine, other = ours.graded.get(benchmark), theirs.graded.get(benchmark)
    seeds = {len(one.correct) for one in (mine, other) if one}
    if mine and other and mine.ids == other.ids and (1 in seeds or len(seeds) == 1):
        return paired.difference(mine.correct, other.correct)
    return paired.independent_difference(ours.accuracies[benchmark], theirs.accuracies[benchmark])


def read_graded(
    sources: Sequence[tuple[Run, str]], benchmark: str, prompt: str | None = None
) -> Graded:
    """The graded answers of `sources`, see `read_results`, to a prompt (None: the headline).

    Raises AnswersMissingError if a file is missing, or runs answered different questions.
    """
    answers = [run.answers(who, benchmark, prompt) for run, who in sources]
    ids = tuple(sorted(answers[0]))
    for (run, _), own in zip(sources, answers, strict=True):
        if own.keys() != answers[0].keys():
            raise AnswersMissingError(
                f"{run.name} and {sources[0][0].name} answered different questions of {benchmark}"
            )
    return Graded(
        ids, np.array([[own[key]["correct"] for key in ids] for own in answers], dtype=float)
    )

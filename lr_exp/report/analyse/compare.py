"""Significance tests between all rows that answered the same questions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.accuracies import Results, difference_of
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import AVERAGE


@dataclass(frozen=True)
class Comparison:
    """One variant against another on one benchmark, or on the average of all."""

    benchmark: str  # or AVG, whose counts are over the questions of all benchmarks
    questions: int
    won: int  # questions that only ours answered correctly
    lost: int
    p_majority: float  # two-sided exact McNemar test of the majority vote over seeds
    p_mean: float  # two-sided permutation test of `difference`
    difference: Estimate  # accuracy of ours minus theirs, in [-1, 1]


@dataclass(frozen=True)
class Pair:
    ours: Row
    theirs: Row
    comparisons: list[Comparison]  # one per benchmark, then AVG

    @property
    def overall(self) -> Comparison:
        return self.comparisons[-1]


@dataclass(frozen=True)
class Pairs:
    pairs: list[Pair]
    refused: list[str]  # why rows were not compared


def compare(sweep: Sweep) -> Pairs:
    """All pairs of rows that answered the same questions; `ours` is the later row of the table."""
    measured = [row for row in sweep.rows if row.results.accuracies]
    refused = [
        f"{row.full_label} is not compared: {'. '.join(row.results.missing)}."
        for row in measured
        if row.results.missing
    ]
    complete = [row for row in measured if not row.results.missing]
    groups = list(grouped(complete, _questions).values())
    if len(groups) > 1:
        listed = "; ".join(", ".join(row.full_label for row in rows) for rows in groups)
        refused.append(f"These groups answered different questions and are not compared: {listed}.")
    pairs = [
        Pair(ours, theirs, comparisons(ours.results, theirs.results))
        for rows in groups
        for number, ours in enumerate(rows)
        for theirs in rows[:number]
    ]
    return Pairs(pairs, refused)


def _questions(row: Row) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, row.results.graded[name].ids) for name in sorted(row.results.graded))


def comparisons(ours: Results, theirs: Results) -> list[Comparison]:
    """One per benchmark, then AVG, of the graded answers of both to the same questions."""
    both = [(ours.graded[name].correct, own.correct) for name, own in theirs.graded.items()]
    shifts = [mine.mean(axis=0) - other.mean(axis=0) for mine, other in both]
    counts = [paired.won_and_lost(*one) for one in both]
    gains = [difference_of(ours, theirs, name) for name in theirs.graded]
    # In the average, benchmarks weigh equally, whatever their number of questions.
    questions = sum(map(len, shifts))
    weighted = [shift * questions / (len(shift) * len(shifts)) for shift in shifts]
    total = sum(won for won, _ in counts), sum(lost for _, lost in counts)
    average = np.concatenate(weighted), paired.average(gains)
    by_benchmark = map(_comparison, theirs.graded, counts, shifts, gains)
    return [*by_benchmark, _comparison(AVERAGE, total, *average)]


def _comparison(
    benchmark: str, counts: tuple[int, int], shifts: NDArray[np.float64], difference: Estimate
) -> Comparison:
    """Tests one difference from the questions won and lost and the shift of each question."""
    p_majority, p_mean = paired.mcnemar(*counts), paired.sign_flips(shifts)
    return Comparison(benchmark, len(shifts), *counts, p_majority, p_mean, difference)

"""Significance tests between all rows that answered the same questions."""

import math
from dataclasses import dataclass

import numpy as np

from lr_exp.report import paired
from lr_exp.report.names import AVERAGE
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep


@dataclass(frozen=True)
class Comparison:
    """One variant against another on one benchmark, or on the average of all."""

    benchmark: str  # or AVG, whose counts are over the questions of all benchmarks
    questions: int
    won: int  # questions that only ours answered correctly
    lost: int
    p_majority: float  # two-sided exact McNemar test of the majority vote over seeds
    p_mean: float  # two-sided permutation test of `difference`
    difference: float  # accuracy of ours minus theirs, in [-1, 1]
    low: float  # 95% bootstrap interval of `difference`
    high: float


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
        f"{row.label} of {row.setup.expert} is not compared: {'; '.join(row.results.missing)}."
        for row in measured
        if row.results.missing
    ]
    complete = [row for row in measured if not row.results.missing]
    groups = list(grouped(complete, _questions).values())
    if len(groups) > 1:
        listed = "; ".join(
            ", ".join(f"{row.label} of {row.setup.expert}" for row in rows) for rows in groups
        )
        refused.append(f"These groups answered different questions and are not compared: {listed}.")
    return Pairs([pair for rows in groups for pair in _pairs(rows)], refused)


def _questions(row: Row) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, row.results.graded[name].ids) for name in sorted(row.results.graded))


def _pairs(rows: list[Row]) -> list[Pair]:
    benchmarks = list(rows[0].results.graded)
    resampled = {
        name: paired.resampled_accuracies(
            [row.results.graded[name].correct for row in rows], seed=number
        )
        for number, name in enumerate(benchmarks)  # benchmarks are independent
    }
    questions = sum(len(rows[0].results.graded[name].ids) for name in benchmarks)
    pairs = []
    for j in range(len(rows)):
        for i in range(j):
            comparisons, by_question = [], []
            for name in benchmarks:
                ours, theirs = (rows[k].results.graded[name].correct for k in (j, i))
                won, lost = paired.won_and_lost(ours, theirs)
                shifts = ours.mean(axis=0) - theirs.mean(axis=0)
                by_question.append(shifts / len(shifts))  # their sum is the difference
                comparisons.append(
                    Comparison(
                        name,
                        ours.shape[1],
                        won,
                        lost,
                        paired.mcnemar(won, lost),
                        paired.sign_flips(shifts),
                        float(ours.mean() - theirs.mean()),
                        *paired.interval(resampled[name][:, j] - resampled[name][:, i]),
                    )
                )
            averages = np.mean([table[:, j] - table[:, i] for table in resampled.values()], axis=0)
            won, lost = sum(c.won for c in comparisons), sum(c.lost for c in comparisons)
            comparisons.append(
                Comparison(
                    AVERAGE,
                    sum(c.questions for c in comparisons),
                    won,
                    lost,
                    paired.mcnemar(won, lost),
                    # Scaled because sign_flips rounds to 12 digits.
                    paired.sign_flips(np.concatenate(by_question) * questions),
                    math.fsum(c.difference for c in comparisons) / len(comparisons),
                    *paired.interval(averages),
                )
            )
            pairs.append(Pair(rows[j], rows[i], comparisons))
    return pairs

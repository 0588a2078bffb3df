"""Every pair of rows on the same questions: who won, by how much, and whether by chance.

Knows rows and the paired statistics; knows nothing of layouts.
"""

import math
from dataclasses import dataclass

import numpy as np

from lr_exp.report import paired
from lr_exp.report.names import AVERAGE
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep


@dataclass(frozen=True)
class Comparison:
    """One variant against another on one benchmark, or on all (the difference of averages)."""

    benchmark: str  # or AVG, whose counts are of all benchmarks' questions together
    questions: int
    won: int  # questions that ours alone has right
    lost: int
    p_majority: float  # exact McNemar on the majority vote over seeds, two-sided
    p_mean: float  # sign flips of the difference below, each question's mean over seeds; two-sided
    difference: float  # accuracy of ours minus theirs, in [-1, 1]
    low: float  # of the 95 % bootstrap interval of the difference
    high: float


@dataclass(frozen=True)
class Pair:
    ours: Row
    theirs: Row
    comparisons: list[Comparison]  # one a benchmark, then AVG

    @property
    def overall(self) -> Comparison:
        return self.comparisons[-1]


@dataclass(frozen=True)
class Pairs:
    pairs: list[Pair]
    refused: list[str]  # why rows are not compared


def compare(sweep: Sweep) -> Pairs:
    """All pairs of rows that answered the same questions; the later row of the table is ours."""
    measured = [row for row in sweep.rows if row.results.accuracies]
    refused = [
        f"{row.label} of {row.setup.expert} is not compared: {'; '.join(row.results.missing)}."
        for row in measured
        if row.results.missing
    ]
    whole = [row for row in measured if not row.results.missing]
    alike = list(grouped(whole, _questions).values())
    if len(alike) > 1:
        told = "; ".join(
            ", ".join(f"{row.label} of {row.setup.expert}" for row in rows) for rows in alike
        )
        refused.append(f"These answered other questions and are compared only within: {told}.")
    return Pairs([pair for rows in alike for pair in _pairs(rows)], refused)


def _questions(row: Row) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, row.results.graded[name].ids) for name in sorted(row.results.graded))


def _pairs(rows: list[Row]) -> list[Pair]:
    benchmarks = list(rows[0].results.graded)
    drawn = {
        name: paired.resampled_accuracies(
            [row.results.graded[name].correct for row in rows], seed=number
        )
        for number, name in enumerate(benchmarks)  # benchmarks are drawn independently
    }
    questions = sum(len(rows[0].results.graded[name].ids) for name in benchmarks)
    pairs = []
    for j in range(len(rows)):
        for i in range(j):
            found, by_question = [], []
            for name in benchmarks:
                ours, theirs = (rows[k].results.graded[name].correct for k in (j, i))
                won, lost = paired.won_and_lost(ours, theirs)
                shifts = ours.mean(axis=0) - theirs.mean(axis=0)
                by_question.append(shifts / len(shifts))  # their sum is the difference
                found.append(
                    Comparison(
                        name,
                        ours.shape[1],
                        won,
                        lost,
                        paired.mcnemar(won, lost),
                        paired.sign_flips(shifts),
                        float(ours.mean() - theirs.mean()),
                        *paired.interval(drawn[name][:, j] - drawn[name][:, i]),
                    )
                )
            averages = np.mean([table[:, j] - table[:, i] for table in drawn.values()], axis=0)
            won, lost = sum(one.won for one in found), sum(one.lost for one in found)
            found.append(
                Comparison(
                    AVERAGE,
                    sum(one.questions for one in found),
                    won,
                    lost,
                    paired.mcnemar(won, lost),
                    # Scaled, so that rounding to a fixed digit loses nothing.
                    paired.sign_flips(np.concatenate(by_question) * questions),
                    math.fsum(one.difference for one in found) / len(found),
                    *paired.interval(averages),
                )
            )
            pairs.append(Pair(rows[j], rows[i], found))
    return pairs

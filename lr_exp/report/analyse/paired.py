"""Accuracies with standard errors and 95 % intervals, and comparisons on the same questions.

Accuracies are shares in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtr, stdtrit

from lr_exp.report.read.summary import Result

FLIPS = 10_000
Z95 = 1.96  # standard errors from the mean to the end of a 95 % interval

Correct = NDArray[np.float64]  # (seeds, questions), in [0, 1]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with the two parts of its squared standard error."""

    by_seed: tuple[float, ...]
    questions: int
    question_variance: float  # of the mean, from sampling questions
    question_ci95: Interval  # of the mean, for these seeds; never of width 0
    lowest: float = -1.0  # that the mean can be; the highest is 1

    @property
    def mean(self) -> float:
        return math.fsum(self.by_seed) / len(self.by_seed)

    @property
    def seeds(self) -> int:
        return len(self.by_seed)

    @property
    def seed_variance(self) -> float:
        """Of the mean, from sampling seeds; 0 if there is only one seed."""
        if len(self.by_seed) == 1:
            return 0.0
        return float(np.var(self.by_seed, ddof=1)) / len(self.by_seed)

    @property
    def stderr(self) -> float:
        return math.sqrt(self.question_variance + self.seed_variance)

    @property
    def seeds_ci95(self) -> Interval | None:
        """Student's t interval of the mean where seeds are the unit; None if they do not vary."""
        half = self._seeds_half
        return (self.mean - half, self.mean + half) if half else None

    @property
    def ci95(self) -> Interval:
        """Over questions and seeds: the squared distances of both intervals' ends add up."""
        below, above = (math.hypot(end - self.mean, self._seeds_half) for end in self.question_ci95)
        return max(self.lowest, self.mean - below), min(1.0, self.mean + above)

    @property
    def _seeds_half(self) -> float:
        return student_t95(self.seeds - 1) * math.sqrt(self.seed_variance) if self.seeds > 1 else 0


def student_t95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return float(stdtrit(freedom, 0.975))


def wilson(share: float, count: float) -> Interval:
    """The Wilson interval of a share of `count`, in [0, 1]; its width is never 0."""
    z, scale = Z95, 1 + Z95**2 / count
    middle = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + (z / count) ** 2 / 4)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def accuracy(correct: Correct) -> Estimate:
    """The accuracy of one variant on one benchmark.

    se^2 = Var_questions(mean over seeds) / n + Var_seeds(accuracy) / seeds. With one seed this is
    the binomial p (1 - p) / n. The interval over questions is Wilson's for all n questions, which
    is wider than necessary where seeds differ in the questions that they answer.
    """
    variance = float(correct.mean(axis=0).var()) / correct.shape[1]
    return _accuracy(correct.mean(axis=1).tolist(), correct.shape[1], variance)


def accuracy_from_counts(*results: Result) -> Estimate:
    """`accuracy` from one result per seed: the question variance is an upper bound.

    The variance over questions of the mean over seeds is at most p (1 - p), its value for one seed.
    """
    by_seed, questions = [one.correct / one.total for one in results], results[0].total
    mean = math.fsum(by_seed) / len(by_seed)
    return _accuracy(by_seed, questions, mean * (1 - mean) / questions)


def _accuracy(by_seed: Sequence[float], questions: int, variance: float) -> Estimate:
    mean = math.fsum(by_seed) / len(by_seed)
    return Estimate(tuple(by_seed), questions, variance, wilson(mean, questions), 0.0)


def difference(ours: Correct, theirs: Correct) -> Estimate:
    """Accuracy of ours minus theirs on the same questions; a single seed is paired with every seed.

    The interval over questions counts those won and lost, averaged over seeds, with one more of
    each:
    p = (won + 1) / (n + 2), q = (lost + 1) / (n + 2),
    p - q ± 1.96 sqrt((p + q - (p - q)^2) / (n + 2)).

    Raises ValueError if both have several seeds but different numbers of them.
    """
    if min(len(ours), len(theirs)) > 1 and len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} seeds cannot be paired with {len(theirs)}")
    by_seed = ours - theirs
    shifts, count = by_seed.mean(axis=0), by_seed.shape[1]
    p, q = ((float(part.sum()) + 1) / (count + 2) for part in (shifts.clip(0), -shifts.clip(max=0)))
    half = Z95 * math.sqrt(max(0.0, p + q - (p - q) ** 2) / (count + 2))
    return Estimate(
        tuple(by_seed.mean(axis=1).tolist()),
        count,
        float(shifts.var()) / count,
        (max(-1.0, p - q - half), min(1.0, p - q + half)),
    )


def independent_difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """`difference` if the answers cannot be paired: variances add up.

    The interval is Newcombe's: the squared distances of the ends from the means add up.
    """
    shift, (low, high) = theirs.mean, theirs.ci95
    mean = ours.mean - shift
    return Estimate(
        tuple(value - shift for value in ours.by_seed),
        min(ours.questions, theirs.questions),
        ours.question_variance + theirs.question_variance + theirs.seed_variance,
        (
            mean - math.hypot(ours.mean - ours.question_ci95[0], high - shift),
            mean + math.hypot(ours.question_ci95[1] - ours.mean, shift - low),
        ),
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean over benchmarks.

    se^2 = sum(question variances) / B^2 + Var_seeds(average over benchmarks) / seeds: a seed's
    adapter is the same on all benchmarks. The squared distances of the interval's ends from the
    means add up in the same way.
    """
    count = len(estimates)
    mean = math.fsum(one.mean for one in estimates) / count
    below, above = (
        math.hypot(*(one.question_ci95[end] - one.mean for one in estimates)) / count
        for end in (0, 1)
    )
    by_seed = zip(*(estimate.by_seed for estimate in estimates), strict=True)
    return Estimate(
        tuple(math.fsum(values) / count for values in by_seed),
        sum(estimate.questions for estimate in estimates),
        math.fsum(estimate.question_variance for estimate in estimates) / count**2,
        (mean - below, mean + above),
        min(one.lowest for one in estimates),
    )


def mcnemar(won: int, lost: int) -> float:
    """The p-value of McNemar's test, exact and two-sided: 2 P(X <= min(won, lost)), at most 1.

    X is binomial with won + lost trials of probability 1/2.
    """
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def t_test(difference: Estimate) -> float | None:
    """The two-sided p-value of a difference over questions and seeds; None with one seed.

    Student's t, whose degrees of freedom are Satterthwaite's for both variances. The variance over
    questions is that of their 95 % interval, which is never 0.
    """
    if difference.seeds == 1:
        return None
    low, high = difference.question_ci95
    parts = ((high - low) / 2 / Z95) ** 2, difference.seed_variance
    freedom = sum(parts) ** 2 / (
        parts[0] ** 2 / (difference.questions - 1) + parts[1] ** 2 / (difference.seeds - 1)
    )
    return float(2 * stdtr(freedom, -abs(difference.mean) / math.sqrt(sum(parts))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values: the k-th smallest of m times m - k + 1, not below the one before.

    Calling those below 0.05 significant errs in at most 5 % of tables, whatever is true.
    """
    corrected, lowest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        lowest = max(lowest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = lowest
    return corrected


def majority(correct: Correct) -> NDArray[np.bool_]:
    """(questions,): whether more than half of the seeds are correct; a tie counts as wrong."""
    return correct.mean(axis=0) > 0.5


def won_and_lost(ours: Correct, theirs: Correct) -> tuple[int, int]:
    """Number of questions that only ours, and that only theirs, answered correctly."""
    mine, other = majority(ours), majority(theirs)
    return int((mine & ~other).sum()), int((other & ~mine).sum())


def sign_flips(differences: NDArray[np.float64], seed: int = 0) -> float:
    """The two-sided p-value of the paired permutation test of the sum of the differences.

    Under the null hypothesis, each question's difference has a random sign:
    p = (1 + #{|flipped sum| >= |sum|}) / (1 + FLIPS). Differences of the same size are flipped
    together, because only the number of positive ones matters.

    Args:
        differences: (questions,), ours minus theirs, averaged over seeds, optionally weighted.
        seed: of the random signs.
    """
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(FLIPS, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    observed = abs(math.fsum(differences)) * (1 - 1e-9)  # equal sums can differ by rounding
    return float((1 + (sums >= observed).sum()) / (1 + FLIPS))

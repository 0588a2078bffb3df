"""Accuracies with standard errors, and paired comparisons on the same questions.

Accuracies are shares in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000
FLIPS = 10_000
_CHUNK = 100  # resamples per batch; memory is _CHUNK times the number of questions
_LEVEL = 0.95  # of confidence intervals

Correct = NDArray[np.float64]  # (seeds, questions), in [0, 1]


@dataclass(frozen=True)
class Estimate:
    """A mean with the two parts of its squared standard error."""

    by_seed: tuple[float, ...]
    questions: int
    question_variance: float  # of the mean, from sampling questions

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


def accuracy(correct: Correct) -> Estimate:
    """The accuracy of one variant on one benchmark.

    se^2 = Var_questions(mean over seeds) / n + Var_seeds(accuracy) / seeds. With one seed this is
    the binomial p (1 - p) / n.
    """
    questions = correct.shape[1]
    variance = float(correct.mean(axis=0).var()) / questions
    return Estimate(tuple(correct.mean(axis=1).tolist()), questions, variance)


def accuracy_from_counts(accuracies: Sequence[float], questions: int) -> Estimate:
    """`accuracy` without the graded answers: the question variance is an upper bound.

    The variance over questions of the mean over seeds is at most p (1 - p), its value for one seed.
    """
    mean = math.fsum(accuracies) / len(accuracies)
    return Estimate(tuple(accuracies), questions, mean * (1 - mean) / questions)


def difference(ours: Correct, theirs: Correct) -> Estimate:
    """Accuracy of ours minus theirs on the same questions; a single seed is paired with every seed.

    Raises ValueError if both have several seeds but different numbers of them.
    """
    if min(len(ours), len(theirs)) > 1 and len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} seeds cannot be paired with {len(theirs)}")
    return accuracy(ours - theirs)


def independent_difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """`difference` if the answers cannot be paired: variances add up."""
    shift = theirs.mean
    return Estimate(
        tuple(value - shift for value in ours.by_seed),
        min(ours.questions, theirs.questions),
        ours.question_variance + theirs.question_variance + theirs.seed_variance,
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean over benchmarks.

    se^2 = sum(question variances) / B^2 + Var_seeds(average over benchmarks) / seeds.
    """
    count = len(estimates)
    by_seed = zip(*(estimate.by_seed for estimate in estimates), strict=True)
    return Estimate(
        tuple(math.fsum(values) / count for values in by_seed),
        sum(estimate.questions for estimate in estimates),
        math.fsum(estimate.question_variance for estimate in estimates) / count**2,
    )


def mcnemar(won: int, lost: int) -> float:
    """The p-value of McNemar's test, exact and two-sided: 2 P(X <= min(won, lost)), at most 1.

    X is binomial with won + lost trials of probability 1/2.
    """
    trials = won + lost
    ways = tail = 1  # of exactly k, and of at most k successes: integers, which cannot overflow
    for k in range(min(won, lost)):
        ways = ways * (trials - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**trials)


def majority(correct: Correct) -> NDArray[np.bool_]:
    """(questions,): whether more than half of the seeds are correct; a tie counts as wrong."""
    return correct.mean(axis=0) > 0.5


def won_and_lost(ours: Correct, theirs: Correct) -> tuple[int, int]:
    """Number of questions that only ours, and that only theirs, answered correctly."""
    mine, other = majority(ours), majority(theirs)
    return int((mine & ~other).sum()), int((other & ~mine).sum())


def sign_flips(differences: NDArray[np.float64], seed: int = 0, flips: int = FLIPS) -> float:
    """The two-sided p-value of the paired permutation test of the sum of the differences.

    Under the null hypothesis, each question's difference has a random sign:
    p = (1 + #{|flipped sum| >= |sum|}) / (1 + flips). Differences of the same size are flipped
    together, because only the number of positive ones matters.

    Args:
        differences: (questions,), ours minus theirs, averaged over seeds, optionally weighted.
        seed: of the random signs.
        flips: number of permutations.
    """
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(flips, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    observed = abs(math.fsum(differences)) * (1 - 1e-9)  # equal sums can differ by rounding
    return float((1 + (sums >= observed).sum()) / (1 + flips))


def resampled_accuracies(
    correct: Sequence[Correct], seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """(resamples, variants): bootstrap accuracies over questions.

    Args:
        correct: of each variant, on the same questions; seeds are averaged.
        seed: of the resampling. All variants share the resamples, so differences are paired.
        resamples: number of resamples.
    """
    by_question = np.stack([seeds.mean(axis=0) for seeds in correct], axis=1)
    questions = len(by_question)
    rng = np.random.default_rng(seed)
    share = np.full(questions, 1 / questions)
    drawn = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        times = rng.multinomial(questions, share, size=count)  # (count, questions)
        drawn.append(times @ by_question / questions)
    return np.concatenate(drawn)


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled differences."""
    outside = (1 - _LEVEL) / 2
    low, high = np.quantile(differences, [outside, 1 - outside])
    return float(low), float(high)

"""Accuracies with their errors, and two variants compared on the same questions.

Pure functions of numbers: knows no runs, names or files. Accuracies are shares in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000
FLIPS = 10_000
_CHUNK = 100  # resamples drawn at once: bounds memory to _CHUNK times the number of questions
_LEVEL = 0.95

Correct = NDArray[np.float64]  # (seeds, questions), in [0, 1]: was the question answered right


@dataclass(frozen=True)
class Estimate:
    """A mean with the two parts of its squared standard error."""

    by_seed: tuple[float, ...]  # each seed's value
    questions: int  # that the value is over
    question_variance: float  # of the mean, from having drawn these questions

    @property
    def mean(self) -> float:
        return math.fsum(self.by_seed) / len(self.by_seed)

    @property
    def seeds(self) -> int:
        return len(self.by_seed)

    @property
    def seed_variance(self) -> float:
        """Of the mean, from having drawn these seeds; 0 with one seed, which shows none."""
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
    of_question = correct.mean(axis=0)
    return Estimate(
        tuple(correct.mean(axis=1).tolist()), questions, float(of_question.var()) / questions
    )


def accuracy_from_counts(accuracies: Sequence[float], questions: int) -> Estimate:
    """The same where the single answers are not known: the question part is then an upper bound.

    Var of a mean over seeds is at most p (1 - p), which it reaches with one seed.
    """
    mean = math.fsum(accuracies) / len(accuracies)
    return Estimate(tuple(accuracies), questions, mean * (1 - mean) / questions)


def difference(ours: Correct, theirs: Correct) -> Estimate:
    """Accuracy of ours minus theirs on the same questions; a one-seed side stands for each seed.

    Raises ValueError where both have several seeds, but not as many.
    """
    if min(len(ours), len(theirs)) > 1 and len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} seeds cannot be paired with {len(theirs)}")
    return accuracy(ours - theirs)


def independent_difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """The same where the answers cannot be paired: the squared errors add up."""
    shift = theirs.mean
    return Estimate(
        tuple(value - shift for value in ours.by_seed),
        min(ours.questions, theirs.questions),
        ours.question_variance + theirs.question_variance + theirs.seed_variance,
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean over benchmarks.

    se^2 = sum(question parts) / B^2 + Var_seeds(each seed's average) / seeds.
    """
    count = len(estimates)
    by_seed = zip(*(estimate.by_seed for estimate in estimates), strict=True)
    return Estimate(
        tuple(math.fsum(values) / count for values in by_seed),
        sum(estimate.questions for estimate in estimates),
        math.fsum(estimate.question_variance for estimate in estimates) / count**2,
    )


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: is a coin that fell `won` to `lost` a fair one?

    p = min(1, 2 sum_{k <= min(won, lost)} C(won + lost, k) / 2^(won + lost)), in whole numbers.
    """
    total = won + lost
    term = summed = 1
    for k in range(min(won, lost)):
        term = term * (total - k) // (k + 1)
        summed += term
    return min(1.0, 2 * summed / 2**total)


def majority(correct: Correct) -> NDArray[np.bool_]:
    """(questions,): whether more than half of the seeds answered right; a tie counts as wrong."""
    return correct.mean(axis=0) > 0.5


def won_and_lost(ours: Correct, theirs: Correct) -> tuple[int, int]:
    """Questions that ours alone has right, and that theirs alone has right."""
    mine, other = majority(ours), majority(theirs)
    return int((mine & ~other).sum()), int((other & ~mine).sum())


def sign_flips(differences: NDArray[np.float64], seed: int = 0, flips: int = FLIPS) -> float:
    """The two-sided p of the paired permutation test: is the sum of the differences chance?

    If neither variant is better, each question's difference has either sign alike:
    p = (1 + #{|sum of flipped| >= |sum|}) / (1 + flips). Differences of one size are flipped at
    once, since only how many of them come out positive matters.

    Args:
        differences: (questions,), ours minus theirs, each the mean over seeds, weighted or not.
        seed: of the flips.
        flips: how often all signs are drawn.
    """
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(flips, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    observed = abs(math.fsum(differences)) * (1 - 1e-9)  # sums of the same size differ by rounding
    return float((1 + (sums >= observed).sum()) / (1 + flips))


def resampled_accuracies(
    correct: Sequence[Correct], seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """(resamples, variants): accuracies on questions drawn again with replacement.

    Args:
        correct: of each variant, on the same questions; seeds are averaged.
        seed: of the draws, which are shared by all variants, so that differences are paired.
        resamples: how often to draw.
    """
    of_question = np.stack([one.mean(axis=0) for one in correct], axis=1)  # (questions, variants)
    questions = len(of_question)
    rng = np.random.default_rng(seed)
    share = np.full(questions, 1 / questions)
    drawn = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        times = rng.multinomial(questions, share, size=count)  # how often each was drawn
        drawn.append(times @ of_question / questions)
    return np.concatenate(drawn)


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled differences."""
    outside = (1 - _LEVEL) / 2
    low, high = np.quantile(differences, [outside, 1 - outside])
    return float(low), float(high)

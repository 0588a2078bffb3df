"""avg@k, pass@k and maj@k, from k sampled answers to each question, and what they cover."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lr_exp.report.analyse.paired import Estimate, accuracy, wilson
from lr_exp.report.read.summary import Coverage, SampledResult, SampledShare

Records = Sequence[Mapping[str, Any]]  # graded answers


def pass_at(drawn: int, correct: int, count: int) -> float:
    """The probability that one of `count` samples is correct: 1 - C(n - c, k) / C(n, k).

    Unbiased, where `correct` of the `drawn` samples are correct (arXiv 2107.03374, Eq. 1).
    """
    return 1 - math.comb(drawn - correct, count) / math.comb(drawn, count)


def by_question(records: Records, samples: int) -> list[Records]:
    return [records[start : start + samples] for start in range(0, len(records), samples)]


def sampled_result(questions: Sequence[Records], counts: Sequence[int]) -> SampledResult:
    """The shares of a benchmark, from the samples of each question.

    Args:
        questions: for each the same number of records with `correct` and `vote`, see `with_votes`.
        counts: the k of pass@k.
    """
    drawn = len(questions[0])
    correct = [sum(one["correct"] for one in own) for own in questions]
    return SampledResult(
        avg=_share([right / drawn for right in correct], drawn),
        pass_at={
            str(k): _share([pass_at(drawn, right, k) for right in correct], drawn) for k in counts
        },
        maj=_share([_majority_is_correct(own) for own in questions], drawn),
    )


def _majority_is_correct(answers: Records) -> bool:
    """Whether the most frequent answer is correct; of several, the one that was sampled first."""
    votes = Counter(one["vote"] for one in answers if one["vote"] is not None)
    return bool(votes) and answers[max(votes, key=lambda vote: votes[vote])]["correct"]


def _share(values: Sequence[float], drawn: int) -> SampledShare:
    """The mean of one value in [0, 1] for each question.

    The interval is Wilson's for the number of answers, right or wrong, whose share would have the
    same standard error: the number of questions if each value is 0 or 1, or if all are equal, and
    at most that of all `drawn` samples. Its width is never 0.
    """
    found, total = accuracy(np.array([values], dtype=float)), len(values)
    mean, variance = found.mean, found.question_variance
    varies = min(values) < max(values)  # rounding can give equal values a variance
    answers = min(mean * (1 - mean) / variance, total * drawn) if varies else total
    ends = [*wilson(mean, answers)]
    return SampledShare(share=mean, stderr=found.stderr, ci95=ends, total=total)


def estimate_of(found: SampledShare) -> Estimate:
    low, high = found.ci95
    return Estimate((found.share,), found.total, found.stderr**2, (low, high), 0.0)


def coverage(before: Records, after: Records, sampled: Sequence[Records]) -> Coverage:
    """How many won questions, and how many that stay wrong, have a correct sample.

    Args:
        before, after: greedy answers of the untuned and of the tuned expert to the same questions.
        sampled: the samples of the untuned expert, by question.
    """
    had_right = [any(one["correct"] for one in own) for own in sampled]
    paired = zip(before, after, had_right, strict=True)
    wrong_before = [(new["correct"], had) for old, new, had in paired if not old["correct"]]
    won = [had for is_correct, had in wrong_before if is_correct]
    missed = [had for is_correct, had in wrong_before if not is_correct]
    return Coverage(
        won=len(won),
        had_right=sum(won),
        both_wrong=len(missed),
        both_wrong_had_right=sum(missed),
    )

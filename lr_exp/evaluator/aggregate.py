"""Many gradings to one accuracy and its error. Knows booleans only."""

import math
from collections.abc import Sequence
from typing import TypedDict


class Aggregate(TypedDict):
    accuracy: float
    correct: int
    total: int
    stderr: float


def aggregate(correct: Sequence[bool]) -> Aggregate:
    """Share of right answers, in [0, 1], with its count and standard error.

    stderr is the binomial one, sqrt(p (1 - p) / n): the error from having drawn these n questions,
    not that of another seed or training run. It is 0 where all answers are right or all wrong.

    Raises ValueError for no answers, which have no accuracy.
    """
    total = len(correct)
    if total == 0:
        raise ValueError("no graded answers: an accuracy needs one or more")
    right = sum(map(bool, correct))
    accuracy = right / total
    stderr = math.sqrt(accuracy * (1 - accuracy) / total)
    return {"accuracy": accuracy, "correct": right, "total": total, "stderr": stderr}

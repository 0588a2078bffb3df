"""Grading, part 3 of 3: aggregate the grades of many answers into an accuracy."""

import math
from collections.abc import Sequence
from typing import TypedDict


class Aggregate(TypedDict):
    accuracy: float
    correct: int
    total: int
    stderr: float


def aggregate(correct: Sequence[bool]) -> Aggregate:
    """Share of correct answers, in [0, 1], with counts and the standard error.

    stderr is binomial, sqrt(p (1 - p) / n): it covers the choice of these n questions, not the seed
    or the training run. It is 0 if all answers are correct or all are wrong.

    Raises ValueError if there are no answers.
    """
    total = len(correct)
    if total == 0:
        raise ValueError("no graded answers: an accuracy needs at least one")
    count = sum(map(bool, correct))
    accuracy = count / total
    stderr = math.sqrt(accuracy * (1 - accuracy) / total)
    return {"accuracy": accuracy, "correct": count, "total": total, "stderr": stderr}

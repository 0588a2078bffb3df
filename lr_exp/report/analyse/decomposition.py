"""What a gain is made of: what the model can do, and the form of its answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lr_exp.report.analyse.prompts import paired_gain
from lr_exp.report.read.summary import Decomposition

Records = Sequence[Mapping[str, Any]]  # one per question


def has_format(graded: Mapping[str, Any]) -> bool:
    """Whether an answer was read from a box and ended before the token limit."""
    return graded["rule"] == "box" and graded.get("finished", True)


def is_strict(graded: Mapping[str, Any]) -> bool:
    """Whether an answer is correct, was read from a box, and ended before the token limit."""
    return graded["correct"] and has_format(graded)


def fault(graded: Mapping[str, Any]) -> str:
    """Why an answer is not strictly correct: `other answer`, `cut off` or `unboxed`."""
    if has_format(graded):
        return "other answer"
    return "unboxed" if graded["finished"] else "cut off"


def strict_and_forced(graded: Records, forced: Records) -> tuple[list[bool], list[bool]]:
    """Strict correctness of each answer, and its correctness with forced answers."""
    return [is_strict(one) for one in graded], forced_correct(graded, forced)


def forced_correct(graded: Records, forced: Records) -> list[bool]:
    """Correctness of each answer, of the forced one where there is one."""
    by_id = {one["id"]: one["correct"] for one in forced}
    return [by_id.get(one["id"], one["correct"]) for one in graded]


def decompose(before: tuple[Records, Records], after: tuple[Records, Records]) -> Decomposition:
    """The parts of a gain in strict accuracy, from A_1 - A_0 = (F_1 - F_0) + the rest.

    A is the strict accuracy and F the accuracy with forced answers.

    Args:
        before, after: a model's graded and forced answers to the same questions.
    """
    (strict_0, forced_0), (strict_1, forced_1) = (
        np.array(strict_and_forced(*one), dtype=float)[:, None] for one in (before, after)
    )
    pairs = [*zip(before[0], after[0], strict=True)]
    won = [old for old, new in pairs if is_strict(new) and not is_strict(old)]
    lost = [new for old, new in pairs if is_strict(old) and not is_strict(new)]
    return Decomposition(
        strict=paired_gain(strict_1, strict_0),
        latent=paired_gain(forced_1, forced_0),
        format=paired_gain(strict_1 - forced_1, strict_0 - forced_0),
        won_from=dict(Counter(map(fault, won))),
        lost_to=dict(Counter(map(fault, lost))),
    )

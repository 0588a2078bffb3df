"""Votes among the sampled answers to a question, for maj@k."""

from collections.abc import Sequence
from typing import Any

from lr_exp.evaluator.verify import check_reference, verify


def with_votes(graded: Sequence[dict[str, Any]], samples: int) -> list[dict[str, Any]]:
    """Adds `vote`, the number of the first sample with an equal answer, to records of `grade_all`.

    There are `samples` in a row for each question. All correct answers are equal. Two wrong ones
    are equal if their texts are, or if the grader accepts the later one with the earlier one as the
    reference, which not every answer can be. The grader's equality is not transitive (decimals), so
    an answer votes for the first one that it equals. An output without an answer has no vote
    (None); one that was cut off votes if it can be read, as it is graded.
    """
    voted = []
    for start in range(0, len(graded), samples):
        first: dict[int, dict[str, Any]] = {}  # the first answer of each vote
        for number, one in enumerate(graded[start : start + samples]):
            vote = None
            if one["extracted"] is not None:
                equal = (known for known, other in first.items() if _are_equal(one, other))
                vote = next(equal, number)
                first.setdefault(vote, one)
            voted.append({**one, "vote": vote})
    return voted


def _are_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one["correct"] or other["correct"]:
        return one["correct"] and other["correct"]
    answer, earlier = one["extracted"], other["extracted"]
    if answer == earlier:
        return True
    try:
        check_reference(earlier, one["kind"], one["choices"])
    except Exception:  # written by a model, so it can be malformed in any way
        return False
    return verify(answer, earlier, one["kind"], one["choices"])

"""Grading, part 3 of 3: aggregate the grades of many answers into a result."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from lr_exp.report.analyse.decomposition import is_strict
from lr_exp.report.analyse.paired import wilson
from lr_exp.report.read.summary import Result


def aggregate(records: Sequence[dict[str, Any]]) -> Result:
    """The result of graded answers, each with `correct`, `rule`, `finished` and `tokens`.

    stderr is binomial, sqrt(p (1 - p) / n): it covers the choice of these n questions, not the seed
    or the training run. It is 0 if all answers are correct or all are wrong; the interval
    (Wilson's) is not. Answers without `finished` or `tokens` count as finished and have no length.
    """
    total = len(records)
    finished = [one for one in records if one.get("finished", True)]
    cut = [one for one in records if not one.get("finished", True)]
    rules = Counter(one["rule"] for one in records)
    tokens = [one["tokens"] for one in records if one.get("tokens") is not None]
    correct = sum(one["correct"] for one in records)
    accuracy = correct / total
    return Result(
        accuracy=accuracy,
        correct=correct,
        total=total,
        stderr=math.sqrt(accuracy * (1 - accuracy) / total),
        ci95=list(wilson(accuracy, total)),
        truncated=len(cut),
        boxed=rules["box"],
        no_answer=rules[None],
        strict_accuracy=sum(map(is_strict, records)) / total,
        accuracy_truncated=fmean(one["correct"] for one in cut) if cut else None,
        accuracy_finished=fmean(one["correct"] for one in finished) if finished else None,
        read_by={rule: rules[rule] / total for rule in ("box", "statement", "last")},
        mean_tokens=fmean(tokens) if tokens else None,
        median_tokens=float(median(tokens)) if tokens else None,
    )

"""Generated arithmetic questions, which no model can have seen in training once they are deep.

The idea is RandomCalculation's (arXiv 2507.10532): a benchmark without contamination.
"""

import hashlib
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lr_exp.config.settings import SourceSettings
from lr_exp.errors import did_you_mean

SPLITS = ("train", "test")

_OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("+", operator.add),
    "subtract": ("-", operator.sub),
    "multiply": ("*", operator.mul),
}
_COMMUTATIVE = ("add", "multiply")


@dataclass(frozen=True)
class _Expression:
    text: str  # `(3 + 4) * 2`
    value: int
    key: str  # the same for `3 + 4` and `4 + 3`


def random_calculations(source: SourceSettings) -> Iterator[dict[str, str]]:
    """Yields `count` distinct questions with their answers: `What is (3 + 4) * 2?`, `14`.

    A larger count starts with the questions of a smaller one. A hash assigns half of the questions
    to each split. `3 + 4` and `4 + 3` are one question. Each operation is drawn equally often.

    Raises ValueError: a setting is invalid, or there are fewer distinct questions than `count`.
    """
    operations, operands, split = source.operations, source.operands, source.split
    count = source.count or 0
    for name in operations:
        if name not in _OPERATIONS:
            raise ValueError(f"unknown operation {name!r}.{did_you_mean(name, _OPERATIONS)}")
    if not operations:
        raise ValueError("operations is empty: write at least one, as [add]")
    if len(operands) != 2 or operands[0] > operands[1]:
        raise ValueError(f"operands={[*operands]}: write the smallest and the largest, as [1,9]")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}.{did_you_mean(str(split), SPLITS)}")
    rng = random.Random(f"{split}/{source.seed}")
    asked: set[str] = set()
    for _ in range(100 * count + 1000):
        drawn = _draw(rng, operations, operands, source.depth)
        is_test = hashlib.sha256(drawn.key.encode()).digest()[0] % 2 == 0
        if drawn.key not in asked and is_test == (split == "test"):
            asked.add(drawn.key)
            yield {"question": f"What is {drawn.text}?", "answer": str(drawn.value)}
            if len(asked) == count:
                return
    raise ValueError(
        f"there are too few distinct {split} questions: {count} requested, {len(asked)} found; "
        "lower count, or add operations or larger operands"
    )


def _draw(
    rng: random.Random, operations: Sequence[str], limits: Sequence[int], depth: int
) -> _Expression:
    """An operation on a number and an expression with one operation less, in either order."""
    name = rng.choice(operations)
    sign, compute = _OPERATIONS[name]
    numbers = [rng.randint(limits[0], limits[1]) for _ in range(2)]
    operands = [_Expression(str(number), number, str(number)) for number in numbers]
    if depth > 1:
        inner = _draw(rng, operations, limits, depth - 1)
        place = rng.randrange(2)
        operands[place] = _Expression(f"({inner.text})", inner.value, inner.key)
    left, right = operands
    keys = [left.key, right.key]
    key = f"({sign} {' '.join(sorted(keys) if name in _COMMUTATIVE else keys)})"
    return _Expression(f"{left.text} {sign} {right.text}", compute(left.value, right.value), key)

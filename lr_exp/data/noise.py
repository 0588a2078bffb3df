"""Noise in a share of the questions to learn from (`data.noise`); references stay as they are."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from lr_exp.data.formats import Question
from lr_exp.errors import UserError

# Two different letters between other letters of their word.
_INNER_PAIR = re.compile(r"(?<=[A-Za-z])([A-Za-z])(?!\1)[A-Za-z](?=[A-Za-z])")
_PAIRS_PER_TYPO = 8  # about one word in six has a typo
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# At least three words, so that `Mr. Lee has two cats.` is one sentence.
_FIRST_SENTENCE = re.compile(r"\S+(?:\s+\S+){2,}?(?<=[.!?])(?=\s)")
_BREAK = re.compile(r"(?<=[.!?])\s+")  # before a sentence that is not the first


def with_noise(
    questions: Sequence[Question], source: Sequence[Question], kind: str, share: float, seed: int
) -> list[Question]:
    """The questions, each changed with the probability `share`, which the seed and its id decide.

    `irrelevant` inserts the first sentence of another question before the last one; `typos`
    exchanges neighboring letters inside about one word in six; `numbers` exchanges two different
    numbers. A question without such words or numbers stays as it is. `source` has all questions.

    Raises UserError: `irrelevant`, and no other question begins with a sentence before its last.
    """
    openings = list(dict.fromkeys(filter(None, (_opening(one.text) for one in source))))
    changed = []
    for question in questions:
        rng = random.Random(f"{seed}/{question.id}")
        is_noisy = rng.random() < share  # a larger share changes the same questions and more
        text = _KINDS[kind](question.text, rng, openings) if is_noisy else question.text
        changed.append(replace(question, text=text))
    return changed


def _opening(text: str) -> str | None:
    found = _FIRST_SENTENCE.match(text)
    return found and found[0]


def _insert(text: str, rng: random.Random, openings: Sequence[str]) -> str:
    own = _opening(text)
    if not openings or openings == [own]:
        raise UserError(
            "data.noise=irrelevant inserts the first sentence of another question, but no other "
            "question has a sentence before its last: choose data.noise=typos or numbers."
        )
    drawn = rng.randrange(len(openings))
    other = openings[drawn if openings[drawn] != own else drawn - 1]  # all of them differ
    end = max((found.end() for found in _BREAK.finditer(text)), default=0)
    return f"{text[:end]}{other} {text[end:]}"


def _mistype(text: str, rng: random.Random, _: Sequence[str]) -> str:
    letters, pairs = list(text), [found.start() for found in _INNER_PAIR.finditer(text)]
    for at in rng.sample(pairs, math.ceil(len(pairs) / _PAIRS_PER_TYPO)):
        letters[at : at + 2] = letters[at + 1], letters[at]
    return "".join(letters)


def _exchange_numbers(text: str, rng: random.Random, _: Sequence[str]) -> str:
    numbers = list(_NUMBER.finditer(text))
    pairs = [pair for pair in combinations(numbers, 2) if pair[0][0] != pair[1][0]]
    if not pairs:
        return text
    left, right = rng.choice(pairs)
    between = text[left.end() : right.start()]
    return f"{text[: left.start()]}{right[0]}{between}{left[0]}{text[right.end() :]}"


_KINDS = {"irrelevant": _insert, "typos": _mistype, "numbers": _exchange_numbers}

"""The questions of a run: selected by a seed, with a fingerprint."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from lr_exp.config.settings import SourceSettings
from lr_exp.data.formats import Question, read_jsonl
from lr_exp.data.sources import iterate_questions
from lr_exp.errors import UserError


def load_questions(
    source: SourceSettings, count: int | None = None, *, hub_root: str | None
) -> list[Question]:
    """The first `count` questions of `source`, or all; see `iterate_questions`."""
    return list(islice(iterate_questions(source, hub_root=hub_root), count))


def questions_of(given: Sequence[Question | str | Mapping[str, Any]]) -> list[Question]:
    """Questions `questions/<index>` from texts, or mappings with the keys of a JSON Lines file.

    Raises UserError if there is none, or one of them is invalid.
    """
    if isinstance(given, str) or not given:
        raise UserError("questions: expected a list of at least one text or mapping.")
    return [_question_of(one, number) for number, one in enumerate(given)]


def _question_of(given: Question | str | Mapping[str, Any], number: int) -> Question:
    if isinstance(given, Question):
        return given
    row = given if isinstance(given, Mapping) else {"question": given}
    try:
        return read_jsonl(row, f"questions/{number}")
    except UserError as error:
        raise UserError(f"questions[{number}]: {error}") from error


def select_questions(
    questions: Sequence[Question], max_questions: int | None, seed: int
) -> list[Question]:
    """The first `max_questions` of a seeded shuffle; None returns all in their order.

    A smaller selection is a prefix of a larger one with the same seed.
    """
    selected = list(questions)
    if max_questions is not None:
        random.Random(seed).shuffle(selected)
    return selected[:max_questions]


def select_examples(
    questions: Iterable[Question], count: int, excluded: Iterable[Question]
) -> list[Question]:
    """Up to `count` questions with answers as worked examples, the same in every run.

    None has the text or the id of an `excluded` question.
    """
    used = {value for question in excluded for value in (question.text, question.id)}
    rest = [q for q in questions if q.answer is not None and not used & {q.text, q.id}]
    return select_questions(rest, count, seed=0)


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) over all fields, in order; the same for a hub data set and its mirror."""
    digest = hashlib.sha256()
    for one in questions:
        fields = [one.id, one.text, one.answer, one.solution, one.choices]
        digest.update(json.dumps(fields).encode("ascii") + b"\n")
    return digest.hexdigest()


def prompts_fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) of the questions without reference answers and solutions, in order."""
    return fingerprint([replace(one, answer=None, solution=None) for one in questions])

"""The questions of a run: as a list or memory-mapped, selected by a seed, with a fingerprint."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.config.settings import SourceSettings
from lr_exp.data.formats import Question, read_jsonl
from lr_exp.data.lazy import Lazy
from lr_exp.data.sources import iterate_questions
from lr_exp.errors import UserError
from lr_exp.store import open_atomically

_FILE = "questions.arrow"
_BATCH_ROWS = 1024
_TEXTS = [(name, pa.string()) for name in ("id", "text", "answer", "solution")]
_SCHEMA = pa.schema([*_TEXTS, ("choices", pa.list_(pa.string()))])


class StoredQuestions(Lazy[Question]):
    """Questions in a memory-mapped file, so that millions of them need not be loaded into RAM."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Opens the file in `folder`; `facts` are what `write_questions` returned for it."""
        self.fingerprint: str = facts["fingerprint"]
        self.prompts_fingerprint: str = facts["prompts_fingerprint"]
        self._table = table = pa.ipc.open_file(pa.memory_map(str(folder / _FILE))).read_all()
        super().__init__(table.num_rows, lambda i: _question(table.slice(i, 1).to_pylist()[0]))

    def __iter__(self) -> Iterator[Question]:
        for batch in self._table.to_batches():  # faster than row by row
            yield from map(_question, batch.to_pylist())


def write_questions(questions: Iterable[Question], folder: Path) -> dict[str, Any]:
    """Writes questions to a file for `StoredQuestions`, a batch in memory at a time.

    Returns:
        `count`, and what `fingerprint` and `prompts_fingerprint` would return.
    """
    remaining = iter(questions)
    full, prompts, count = hashlib.sha256(), hashlib.sha256(), 0
    with open_atomically(folder / _FILE) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        while batch := list(islice(remaining, _BATCH_ROWS)):
            rows = [vars(question) for question in batch]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
            for question in batch:
                full.update(_encoded(question))
                prompts.update(_encoded(_without_reference(question)))
            count += len(batch)
    fingerprints = {"fingerprint": full.hexdigest(), "prompts_fingerprint": prompts.hexdigest()}
    return {"count": count, **fingerprints}


def load_questions(
    source: SourceSettings, count: int | None = None, *, hub_root: str | None
) -> list[Question]:
    """The first `count` questions of `source`, or all; see `iterate_questions`."""
    return list(islice(iterate_questions(source, hub_root=hub_root, streaming=False), count))


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
    numbers = {key: Decimal(str(value)) for key, value in row.items() if isinstance(value, float)}
    try:
        return read_jsonl({**row, **numbers}, f"questions/{number}")
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
    questions: Iterable[Question], count: int, asked: Iterable[Question]
) -> list[Question]:
    """Up to `count` questions with answers as worked examples, the same in every run.

    Their texts and ids differ from those of the questions that are `asked`.
    """
    known = {part for question in asked for part in (question.text, question.id)}
    rest = [q for q in questions if q.answer is not None and not known & {q.text, q.id}]
    return select_questions(rest, count, seed=0)


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) over all fields, in order; the same for a hub data set and its mirror."""
    if isinstance(questions, StoredQuestions):
        return questions.fingerprint
    digest = hashlib.sha256()
    for question in questions:
        digest.update(_encoded(question))
    return digest.hexdigest()


def prompts_fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) of the questions without reference answers and solutions, in order."""
    if isinstance(questions, StoredQuestions):
        return questions.prompts_fingerprint
    return fingerprint([_without_reference(question) for question in questions])


def _without_reference(question: Question) -> Question:
    """The parts of a question that prompts show: no reference answer and no solution."""
    return Question(id=question.id, text=question.text, choices=question.choices)


def _encoded(question: Question) -> bytes:
    fields = [question.id, question.text, question.answer, question.solution, question.choices]
    return json.dumps(fields).encode("ascii") + b"\n"


def _question(row: dict[str, Any]) -> Question:
    return Question(**{**row, "choices": tuple(row["choices"])})

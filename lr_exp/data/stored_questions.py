"""Questions on disk: written once in shards, read back one shard at a time."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data.formats import Question
from lr_exp.data.lazy import Blocks
from lr_exp.store.shards import read_shard, shard_path, shard_paths, write_shard

VERSION = 1

# Few files for millions of questions, and little memory for two shards. A multiple of the
# rollout's window, so that a window's questions are in one shard.
SHARD_SIZE = 4096

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("solution", pa.string()),
        ("choices", pa.list_(pa.string())),
    ]
)


class Fingerprint:
    """SHA-256 over a sequence of questions."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, question: Question) -> None:
        """Adds the next question with all its fields."""
        fields = [
            question.id,
            question.text,
            question.answer,
            question.solution,
            list(question.choices),
        ]
        self._digest.update(json.dumps(fields).encode("ascii") + b"\n")

    def hex(self) -> str:
        """Digest of all questions added so far."""
        return self._digest.hexdigest()


def without_reference(question: Question) -> Question:
    """The parts of a question that prompts show: no reference answer and no solution."""
    return Question(id=question.id, text=question.text, choices=question.choices)


class StoredQuestions(Blocks[Question]):
    """Questions in a folder written by `write_questions`; two shards in memory at most."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Opens a folder without reading it.

        Args:
            folder: of the shards.
            facts: returned by `write_questions`.
        """
        self.fingerprint: str = facts["fingerprint"]
        self.prompts_fingerprint: str = facts["prompts_fingerprint"]
        super().__init__(
            facts["count"], SHARD_SIZE, lambda number: list(_read(shard_path(folder, number)))
        )


def write_questions(questions: Iterable[Question], folder: Path) -> dict[str, Any]:
    """Writes questions in shards, skipping those of the complete shards already in `folder`.

    Args:
        questions: all questions, the same ones in the same order at each attempt.
        folder: of the shards; incomplete and damaged ones are written again.

    Returns:
        `count`, and `fingerprint` and `prompts_fingerprint` as the functions of these names in
        `lr_exp.data.questions` compute them.
    """
    remaining = iter(questions)
    all_fields, prompts = Fingerprint(), Fingerprint()
    count = number = 0
    while (block := _read_complete_shard(folder, number)) is not None:
        deque(itertools.islice(remaining, SHARD_SIZE), maxlen=0)  # skips them in the source
        count, number = count + _add(block, all_fields, prompts), number + 1
    for path in shard_paths(folder)[number:]:
        path.unlink()
    while block := list(itertools.islice(remaining, SHARD_SIZE)):
        rows = [{name: getattr(question, name) for name in _SCHEMA.names} for question in block]
        write_shard(folder, number, rows, _SCHEMA)
        count, number = count + _add(block, all_fields, prompts), number + 1
    return {
        "count": count,
        "fingerprint": all_fields.hex(),
        "prompts_fingerprint": prompts.hex(),
    }


def _add(block: list[Question], all_fields: Fingerprint, prompts: Fingerprint) -> int:
    for question in block:
        all_fields.add(question)
        prompts.add(without_reference(question))
    return len(block)


def _read_complete_shard(folder: Path, number: int) -> list[Question] | None:
    """Questions of a full shard; None if it is missing, damaged or short (as the last one may be).

    Raises:
        OSError: a temporary error, which says nothing about the shard.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return None
    try:
        block = list(_read(path))
    except (pa.ArrowInvalid, OSError, ValueError, TypeError) as error:
        # Arrow reports invalid content as an OSError without errno.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None
    return block if len(block) == SHARD_SIZE else None


def _read(path: Path) -> Iterator[Question]:
    for row in read_shard(path):
        yield Question(**{**row, "choices": tuple(row["choices"])})

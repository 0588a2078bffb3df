"""Questions on the disk: written once, shard by shard, and read back a shard at a time.

Knows questions, shards and their fingerprints; knows neither where questions come from nor who
reads them.
"""

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

# Questions in a shard: few files for millions, and one or two of them in memory weigh little. A
# multiple of the rollout's window, whose questions thus lie in one shard.
SHARD = 4096

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
    """SHA-256 over questions that are shown one by one, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, question: Question) -> None:
        """Takes the next question, with its id and all its contents."""
        fields = [
            question.id,
            question.text,
            question.answer,
            question.solution,
            list(question.choices),
        ]
        self._digest.update(json.dumps(fields).encode("ascii") + b"\n")

    def hex(self) -> str:
        """Of all that were added."""
        return self._digest.hexdigest()


def as_asked(question: Question) -> Question:
    """What a model gets to see of a question: neither reference nor solution."""
    return Question(id=question.id, text=question.text, choices=question.choices)


class StoredQuestions(Blocks[Question]):
    """The questions of a folder that `write_questions` filled; two shards in memory at most."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Opens a folder, reading nothing.

        Args:
            folder: of shards.
            facts: what `write_questions` told of it.
        """
        self.fingerprint: str = facts["fingerprint"]
        self.prompts_fingerprint: str = facts["prompts_fingerprint"]
        super().__init__(
            facts["count"], SHARD, lambda number: list(_read(shard_path(folder, number)))
        )


def write_questions(questions: Iterable[Question], folder: Path) -> dict[str, Any]:
    """Writes questions as shards; those that are there stay, and as many are passed over.

    Args:
        questions: the same ones in the same order whenever the folder is gone on with.
        folder: of the shards; what is not whole in it is made again.

    Returns:
        Facts: `count`, and `fingerprint` and `prompts_fingerprint` as `lr_exp.data` tells them of a
        list of the same questions.
    """
    rest = iter(questions)
    whole, asked = Fingerprint(), Fingerprint()
    count = number = 0
    while (found := _whole_shard(folder, number)) is not None:
        deque(itertools.islice(rest, SHARD), maxlen=0)  # the source gives them again
        count, number = count + _add(found, whole, asked), number + 1
    for path in shard_paths(folder)[number:]:
        path.unlink()
    while block := list(itertools.islice(rest, SHARD)):
        rows = [{name: getattr(one, name) for name in _SCHEMA.names} for one in block]
        write_shard(folder, number, rows, _SCHEMA)
        count, number = count + _add(block, whole, asked), number + 1
    return {"count": count, "fingerprint": whole.hex(), "prompts_fingerprint": asked.hex()}


def _add(block: list[Question], whole: Fingerprint, asked: Fingerprint) -> int:
    for question in block:
        whole.add(question)
        asked.add(as_asked(question))
    return len(block)


def _whole_shard(folder: Path, number: int) -> list[Question] | None:
    """A full shard's questions; None where it is missing, short (the last one may be) or damaged.

    Raises:
        OSError: it cannot be read at the moment, which says nothing about it.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return None
    try:
        block = list(_read(path))
    except (pa.ArrowInvalid, OSError, ValueError, TypeError) as error:
        # Arrow says with an OSError that has no number that the bytes make no sense.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None
    return block if len(block) == SHARD else None


def _read(path: Path) -> Iterator[Question]:
    for row in read_shard(path):
        yield Question(**{**row, "choices": tuple(row["choices"])})

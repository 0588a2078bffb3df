"""Supervision: the kept steps with their targets, as the distiller reads them.

All kept steps of an answer share one row of token ids, cut after the last prefix. Rows are held as
Arrow columns, about thirty times smaller than Python objects. `Supervision` holds all rows, which
the distiller shuffles; `SupervisionWriter` and `StoredSupervision` hold a part at a time.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lr_exp.data.lazy import Lazy

FILE = "supervision.parquet"

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("prompt_length", pa.int32()),
        ("steps", pa.list_(pa.int32())),
        ("kl", pa.list_(pa.float32())),
        ("target_ids", pa.list_(pa.list_(pa.int32()))),
        ("target_weights", pa.list_(pa.list_(pa.float32()))),
    ]
)


@dataclass(frozen=True)
class SupervisedTrajectory:
    """One answer's prefix and the targets of its kept steps."""

    question_id: str
    question: str
    input_ids: list[int]  # prompt and answer, up to the last kept step's prefix
    prompt_length: int  # tokens of the prompt
    steps: list[int]  # kept steps: tokens generated before each, ascending
    kl: list[float]  # (kept,) nats
    target_ids: list[list[int]]  # (kept, support of that step)
    target_weights: list[list[float]]  # the same shape, each row sums to 1

    def read_at(self, index: int) -> int:
        """The place in `input_ids` whose next-token logits the kept step of this index trains."""
        return self.prompt_length + self.steps[index] - 1


class _Rows(Lazy[SupervisedTrajectory]):
    """A table's rows, converted to objects on access."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def _at(self, index: int) -> SupervisedTrajectory:
        (row,) = self._table.slice(index, 1).to_pylist()
        return SupervisedTrajectory(**row)


class Supervision:
    """All kept steps of a run."""

    def __init__(self, trajectories: Iterable[SupervisedTrajectory] | pa.Table) -> None:
        """Supervision of these trajectories.

        Args:
            trajectories: objects, or a table with the columns of `SCHEMA`.
        """
        table: Any = trajectories
        if not isinstance(trajectories, pa.Table):
            rows = [vars(trajectory) for trajectory in trajectories]
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
        self._table = _in_one_chunk(table)  # for constant-time access to rows
        self.trajectories: Sequence[SupervisedTrajectory] = _Rows(self._table)

    @cached_property
    def kept_counts(self) -> NDArray[np.int64]:
        """Kept steps of each trajectory."""
        lengths = pc.call_function("list_value_length", [self._table["steps"]])
        return lengths.to_numpy().astype(np.int64)

    @property
    def kept(self) -> int:
        """Number of kept steps."""
        return int(self.kept_counts.sum())

    def for_questions(self, questions: Iterable[str]) -> Iterator[SupervisedTrajectory]:
        """The trajectories of these questions, by their ids."""
        yield from _Rows(self._table.filter(_is_for_questions(self._table, questions)))

    def digest(self) -> str:
        """SHA-256 of all that training reads: prefixes, positions and targets."""
        digest = _Digest()
        for trajectory in self.trajectories:
            digest.add(trajectory)
        return digest.hex()

    def save(self, folder: Path) -> None:
        """Writes the supervision as one Parquet file."""
        pq.write_table(self._table, folder / FILE)

    @staticmethod
    def load(folder: Path) -> "Supervision":
        """Reads what `save` or a `SupervisionWriter` wrote."""
        return Supervision(pq.ParquetFile(folder / FILE).read())


class SupervisionWriter:
    """Writes supervision part by part, each as a row group. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._digest = _Digest()
        self._file = pq.ParquetWriter(folder / FILE, SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, part: pa.Table) -> None:
        """Writes the next rows, with the columns of `SCHEMA`."""
        if part.num_rows:
            self._file.write_table(part)
        for trajectory in _Rows(part):
            self._digest.add(trajectory)

    def digest(self) -> str:
        """`Supervision.digest` of everything written."""
        return self._digest.hex()


class StoredSupervision:
    """Supervision on disk, read one row group at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    @property
    def trajectories(self) -> Iterator[SupervisedTrajectory]:
        with pq.ParquetFile(self._path) as file:
            for group in range(file.num_row_groups):
                yield from _Rows(file.read_row_group(group))

    def for_questions(self, questions: Iterable[str]) -> Iterator[SupervisedTrajectory]:
        """The trajectories of these questions, by their ids."""
        wanted = list(questions)
        with pq.ParquetFile(self._path) as file:
            for group in range(file.num_row_groups):
                mask = _is_for_questions(file.read_row_group(group, ["question_id"]), wanted)
                if pc.call_function("any", [mask]).as_py():
                    yield from _Rows(file.read_row_group(group).filter(mask))


def _is_for_questions(table: pa.Table, questions: Iterable[str]) -> Any:
    wanted = pa.array(questions, type=pa.string())
    return pc.call_function("is_in", [table["question_id"]], pc.SetLookupOptions(value_set=wanted))


class _Digest:
    """SHA-256 over trajectories, added one by one."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, t: SupervisedTrajectory) -> None:
        for part in (t.input_ids, [t.prompt_length], t.steps, *t.target_ids):
            _update(self._hasher, np.asarray(part, dtype=np.int32))
        for weights in t.target_weights:
            _update(self._hasher, np.asarray(weights, dtype=np.float32))

    def hex(self) -> str:
        return self._hasher.hexdigest()


def _in_one_chunk(table: pa.Table) -> pa.Table:
    """The table with one chunk a column; with 64-bit list offsets beyond 2**31 ids."""
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid:
        large = [field.with_type(_large(field.type)) for field in table.schema]
        return table.cast(pa.schema(large)).combine_chunks()


def _large(kind: Any) -> Any:
    return pa.large_list(_large(kind.value_type)) if pa.types.is_list(kind) else kind


def _update(hasher: "hashlib._Hash", array: NDArray[np.generic]) -> None:
    hasher.update(len(array).to_bytes(8, "little"))
    hasher.update(array.tobytes())

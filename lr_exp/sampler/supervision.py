"""Supervision: the kept steps with their targets, as the distiller reads them.

All kept steps of an answer share one row of token ids, cut after the last prefix. Rows are held as
Arrow columns, about thirty times smaller than Python objects. `Supervision` holds all rows, which
the distiller shuffles; `write_supervision` and `read_supervision` hold a part at a time.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
        ("index", pa.int32()),
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
    index: int = 0  # of the answer in its shards; 0 in imported records

    @property
    def labels(self) -> list[dict[int, float]]:
        """The weights of each kept step by token id; empty without a target."""
        pairs = zip(self.target_ids, self.target_weights, strict=True)
        return [dict(zip(ids, weights, strict=True)) for ids, weights in pairs]

    def read_at(self, index: int) -> int:
        """The place in `input_ids` whose next-token logits the kept step of this index trains."""
        return self.prompt_length + self.steps[index] - 1


def _rows(table: pa.Table) -> Lazy[SupervisedTrajectory]:
    """A table's rows, converted to objects on access."""
    return Lazy(table.num_rows, lambda i: SupervisedTrajectory(**table.slice(i, 1).to_pylist()[0]))


class Supervision:
    """All kept steps of a run."""

    def __init__(self, trajectories: Iterable[SupervisedTrajectory] | pa.Table) -> None:
        """Takes objects, or a table with the columns of `SCHEMA`."""
        is_table = isinstance(trajectories, pa.Table)
        self._table: Any = trajectories if is_table else as_table(trajectories)
        self.trajectories: Sequence[SupervisedTrajectory] = _rows(self._table)

    @cached_property
    def kept_counts(self) -> NDArray[np.int64]:
        lengths = pc.call_function("list_value_length", [self._table["steps"]])
        return lengths.to_numpy().astype(np.int64)

    @property
    def prefix_lengths(self) -> NDArray[np.int64]:
        """Tokens before each kept step, the prompt's included."""
        prompts = self._table["prompt_length"].to_numpy()
        steps = self._table["steps"].combine_chunks().flatten().to_numpy()
        return np.repeat(prompts, self.kept_counts) + steps

    @property
    def kept(self) -> int:
        return int(self.kept_counts.sum())

    def digest(self) -> str:
        """SHA-256 of all that training reads: prefixes, positions and targets."""
        hasher = hashlib.sha256()
        for trajectory in self.trajectories:
            _update(hasher, trajectory)
        return hasher.hexdigest()

    def save(self, folder: Path) -> None:
        pq.write_table(self._table, folder / FILE)

    @staticmethod
    def load(folder: Path) -> "Supervision":
        """Reads what `save` or `write_supervision` wrote."""
        return Supervision(pq.ParquetFile(folder / FILE).read())


def as_table(trajectories: Iterable[SupervisedTrajectory]) -> pa.Table:
    """One row for each trajectory, with the columns of `SCHEMA`."""
    return pa.Table.from_pylist([vars(trajectory) for trajectory in trajectories], schema=SCHEMA)


def write_supervision(parts: Iterable[pa.Table], folder: Path) -> str:
    """Writes tables with the columns of `SCHEMA`, each as a row group; returns their `digest`."""
    hasher = hashlib.sha256()
    with pq.ParquetWriter(folder / FILE, SCHEMA) as file:
        for part in parts:
            file.write_table(part)
            for trajectory in _rows(part):
                _update(hasher, trajectory)
    return hasher.hexdigest()


def read_supervision(folder: Path) -> Iterator[SupervisedTrajectory]:
    """The trajectories in a folder, one row group in memory at a time."""
    with pq.ParquetFile(folder / FILE) as file:
        for group in range(file.num_row_groups):
            yield from _rows(file.read_row_group(group))


def read_answers(folder: Path, indices: Sequence[int]) -> Sequence[SupervisedTrajectory]:
    """The trajectories of these answers in a folder."""
    return _rows(pq.read_table(folder / FILE, filters=pc.field("index").isin(indices)))


def _update(hasher: "hashlib._Hash", trajectory: SupervisedTrajectory) -> None:
    """Adds all that training reads of a trajectory to a digest."""
    t = trajectory
    integers = (t.input_ids, [t.prompt_length], t.steps, *t.target_ids)
    arrays = [np.asarray(values, np.int32) for values in integers]
    for array in arrays + [np.asarray(weights, np.float32) for weights in t.target_weights]:
        hasher.update(len(array).to_bytes(8, "little"))
        hasher.update(array.tobytes())

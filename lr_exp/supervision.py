"""Supervision: the kept steps with their soft labels, as the distiller reads them.

Knows token ids and weights; knows neither how they were chosen nor what is trained on them. All
kept steps of one answer share one row of token ids, cut after the last prefix that is needed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

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
    """One answer's prefix and the labels of its kept steps."""

    question_id: str
    question: str
    input_ids: list[int]  # prompt and answer, up to the last kept step's prefix
    prompt_length: int  # how many of them are the prompt
    steps: list[int]  # kept steps: tokens generated before each, ascending
    kl: list[float]  # (kept,) nats
    target_ids: list[list[int]]  # (kept, support of that step)
    target_weights: list[list[float]]  # the same shape, each row sums to 1

    def read_at(self, kept: int) -> int:
        """Index into `input_ids` whose next-token logits are trained for the kept step."""
        return self.prompt_length + self.steps[kept] - 1


@dataclass(frozen=True)
class Supervision:
    """All kept steps of a run."""

    trajectories: Sequence[SupervisedTrajectory]

    @property
    def kept(self) -> int:
        """Number of kept steps."""
        return sum(len(trajectory.steps) for trajectory in self.trajectories)

    def digest(self) -> str:
        """sha256 of what is trained: prefixes, places, labels. Two equal ones train alike."""
        hasher = hashlib.sha256()
        for t in self.trajectories:
            for part in (t.input_ids, [t.prompt_length], t.steps, *t.target_ids):
                _update(hasher, np.asarray(part, dtype=np.int32))
            for weights in t.target_weights:
                _update(hasher, np.asarray(weights, dtype=np.float32))
        return hasher.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes the supervision as one Parquet file."""
        rows = [vars(trajectory) for trajectory in self.trajectories]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / FILE)

    @staticmethod
    def load(folder: Path) -> "Supervision":
        """Reads what `save` wrote."""
        rows = pq.ParquetFile(folder / FILE).read().to_pylist()
        return Supervision([SupervisedTrajectory(**row) for row in rows])


def _update(hasher: "hashlib._Hash", array: NDArray[np.generic]) -> None:
    hasher.update(len(array).to_bytes(8, "little"))
    hasher.update(array.tobytes())

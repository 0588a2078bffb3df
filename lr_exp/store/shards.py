"""Tables in numbered Parquet shards, each written whole or not at all.

Knows files and columns, not what they mean. A stage that finds a shard there does not make it
again: that is how it goes on after a crash, losing at most the batch in flight.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lr_exp.store import write_atomically


def shard_path(folder: Path, number: int) -> Path:
    """Where the shard of this number is or will be."""
    return folder / f"shard-{number:06d}.parquet"


def shard_number(path: Path) -> int:
    """The number of the shard at this path."""
    return int(path.stem.rpartition("-")[2])


def write_shard(folder: Path, number: int, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes rows as one shard, by a temporary name."""
    write_encoded(folder, number, encoded(rows, schema))


def encoded(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a shard's bytes, for another process to write."""
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue().to_pybytes()


def write_encoded(folder: Path, number: int, content: bytes) -> None:
    """Writes what `encoded` returned as one shard."""
    # A shard's name promises that its rows are on the disk.
    write_atomically(shard_path(folder, number), content)


def read_shard(path: Path) -> list[dict[str, Any]]:
    """The rows of one shard."""
    return pq.ParquetFile(path).read().to_pylist()


def count_rows(path: Path) -> int:
    """How many rows a shard has, without reading them."""
    return pq.ParquetFile(path).metadata.num_rows


def shard_paths(folder: Path) -> list[Path]:
    """All shards of a folder, in the order of their numbers."""
    return sorted(folder.glob("shard-*.parquet"), key=shard_number)


def read_shards(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of all shards, one shard in memory at a time."""
    for path in shard_paths(folder):
        yield from read_shard(path)

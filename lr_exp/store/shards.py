"""Tables in numbered Parquet shards, each written atomically.

A stage resumes after a crash by skipping the shards that exist; it loses at most one batch.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lr_exp.store import write_atomically


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.parquet"


def shard_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def write_shard(folder: Path, number: int, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    write_encoded(folder, number, encoded(pa.Table.from_pylist(rows, schema=schema)))


def encoded(table: pa.Table) -> bytes:
    """The content of a shard, so that another process can write it."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


def write_encoded(folder: Path, number: int, content: bytes) -> None:
    write_atomically(shard_path(folder, number), content)


def read_shard(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read().to_pylist()


def read_table(paths: Iterable[Path], columns: list[str] | None = None) -> pa.Table:
    """Columns of one or more shards, by default all, in the order of the shards."""
    return pa.concat_tables(pq.ParquetFile(path).read(columns) for path in paths)


def shard_sizes(folder: Path) -> dict[int, int]:
    """The number of rows of each shard, by its number."""
    paths = shard_paths(folder)
    return {shard_number(path): pq.ParquetFile(path).metadata.num_rows for path in paths}


def count_items(folder: Path, column: str) -> int:
    """The items of all lists in a column, such as token ids."""
    columns = (pq.ParquetFile(path).read([column])[column] for path in shard_paths(folder))
    return sum(len(chunk.flatten()) for one in columns for chunk in one.chunks)


def shard_paths(folder: Path) -> list[Path]:
    """All shards of a folder, in numeric order."""
    return sorted(folder.glob("shard-*.parquet"), key=shard_number)


def read_by_index(folder: Path) -> list[dict[str, Any]]:
    """Rows of all shards, in the order of their `index`."""
    return sorted(read_shards(folder), key=lambda row: row["index"])


def read_shards(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of all shards; one shard is in memory at a time."""
    for path in shard_paths(folder):
        yield from read_shard(path)

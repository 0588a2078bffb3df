"""Reads rows of questions from Parquet files in small batches."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lr_exp.errors import UserError

COLUMNS = ("question", "answer", "solution")
_SHORT_FLOATS = (pa.float16(), pa.float32())
_BATCH_ROWS = 1024


def parquet_files(path: Path, key: str) -> list[Path]:
    """The file at `path`, or the `*.parquet` files in and below that folder, sorted by path.

    Args:
        path: a file or a folder; hidden files and folders in it are skipped.
        key: the setting to name in messages.

    Raises:
        UserError: there is no such file.
    """
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*.parquet")
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not files:
            raise UserError(
                f"{path}: no file in this folder ends in .parquet. Set {key} to a Parquet file or "
                "to a folder of Parquet files."
            )
        return files
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder. Set {key} to a Parquet file or folder.")
    return [path]


def parquet_rows(files: list[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each row's position (`FILE, row N`, from 1) and its `COLUMNS`.

    Floats become Decimals with the shortest digits, as in JSON Lines.

    Raises:
        UserError: a file is damaged, or has no column `question`.
    """
    for path in files:
        row = 0
        with _reading(path):
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            if "question" not in names:
                raise UserError(
                    f"{path}: no column `question`; the columns are: "
                    f"{', '.join(sorted(names)) or 'none'}."
                )
            columns = [name for name in COLUMNS if name in names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                for values in _rows(batch):
                    row += 1
                    where = f"{path}, row {row}"
                    yield where, {name: _exact(value, where) for name, value in values.items()}


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The batch's rows; a 16- or 32-bit float becomes 0.1, not 0.10000000149011612."""
    short = [field.name for field in batch.schema if field.type in _SHORT_FLOATS]
    texts = pa.schema(
        [field.with_type(pa.string()) if field.name in short else field for field in batch.schema]
    )
    rows = batch.cast(texts).to_pylist()
    for row in rows:
        row |= {name: float(row[name]) for name in short if row[name] is not None}
    return rows


def _exact(value: Any, where: str) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a valid number. Leave the cell empty (null).")
    return Decimal(repr(value))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as Parquet ({reason}). Write the file again."
        ) from error

"""Rows of Parquet files, a few at a time.

Knows files and the columns of a question; knows neither settings nor where in a run it is.
"""

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
_NARROW = (pa.float16(), pa.float32())
_ROWS = 1024  # read at once


def parquet_files(path: Path, key: str) -> list[Path]:
    """The file, or the `*.parquet` files in and below the folder, in the order of their paths.

    Args:
        path: of a file or a folder.
        key: the setting to change, for messages.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        files = sorted(
            one
            for one in path.rglob("*.parquet")
            if not any(part.startswith(".") for part in one.relative_to(path).parts)
        )
        if not files:
            raise UserError(
                f"{path}: no file in this folder ends in .parquet. Set {key} to a Parquet file or "
                "to a folder that holds some."
            )
        return files
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder. Set {key} to one of Parquet.")
    return [path]


def parquet_rows(files: list[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row's place (file and row, from 1) and its columns of a question.

    A number with a point becomes a Decimal of its shortest digits, as JSON Lines has it.

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
                    f"{path}: no column `question`; the columns there are: "
                    f"{', '.join(sorted(names)) or 'none'}."
                )
            columns = [name for name in COLUMNS if name in names]
            for batch in file.iter_batches(_ROWS, columns=columns):
                for one in _with_short_floats(batch):
                    row += 1
                    where = f"{path}, row {row}"
                    yield where, {name: _plain(value, where) for name, value in one.items()}


def _with_short_floats(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows; numbers of 16 and 32 bits have their own digits: 0.1, not 0.10000000149011612."""
    narrow = [field.name for field in batch.schema if field.type in _NARROW]
    texts = pa.schema(
        [field.with_type(pa.string()) if field.name in narrow else field for field in batch.schema]
    )
    rows = batch.cast(texts).to_pylist()
    for row in rows:
        row |= {name: float(row[name]) for name in narrow if row[name] is not None}
    return rows


def _plain(value: Any, where: str) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise UserError(f"{where}: {value} is no answer; leave the cell empty (null).")
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

"""Reads JSON Lines files, plain or compressed with gzip."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from decimal import DecimalException
from pathlib import Path
from typing import IO, Any, cast

from lr_exp.errors import UserError, first_line, short_repr

_GZIP_MAGIC = b"\x1f\x8b"


def read_json_lines(
    path: Path, *, parse_float: Callable[[str], Any] = float
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields the number (from 1), the place for messages and the object of each line with text.

    Args:
        path: UTF-8, one JSON object a line; the content tells whether it is compressed.
        parse_float: makes a value of a number with a fraction or an exponent.

    Raises UserError if the file cannot be read, a line is not a JSON object, or a key is repeated.
    """
    try:
        # Read as bytes: in text mode lines also end at U+2028, which JSON strings may contain.
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield number, where, _read_line(line, where, parse_float)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"{path}: cannot be read ({reason}). Pass a readable JSON Lines file, plain or "
            "compressed with gzip."
        ) from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path)) if is_compressed else path.open("rb")


def _read_line(line: bytes, where: str, parse_float: Callable[[str], Any]) -> dict[str, Any]:
    try:
        value = json.loads(
            line.decode("utf-8-sig"),
            parse_float=parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8. Save the file as UTF-8.") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ValueError, RecursionError, DecimalException) as error:
        # Without the error's position, which counts from the start of the line.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{where}: not JSON ({reason}). Write one object a line.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object. Write one object a line.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise UserError(f"the key {short_repr(key)} occurs twice. Keep one of its values.")
        unique[key] = value
    return unique

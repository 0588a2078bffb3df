"""Reads JSON Lines files."""

import json
from collections.abc import Callable, Iterator
from decimal import DecimalException
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError


def read_json_lines(
    path: Path, *, parse_float: Callable[[str], Any] = float
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields the number (from 1), the place for messages and the object of each line with text.

    Args:
        path: UTF-8, one JSON object a line.
        parse_float: makes a value of a number with a fraction or an exponent.

    Raises UserError if the file cannot be read or a line is not a JSON object.
    """
    try:
        # Read as bytes: in text mode lines also end at U+2028, which JSON strings may contain.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield number, where, _read_line(line, where, parse_float)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Pass a readable JSON Lines file."
        ) from error


def _read_line(line: bytes, where: str, parse_float: Callable[[str], Any]) -> dict[str, Any]:
    try:
        value = json.loads(
            line.decode("utf-8-sig"),
            parse_float=parse_float,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8. Save the file as UTF-8.") from error
    except (ValueError, RecursionError, DecimalException) as error:
        # Without the error's position, which counts from the start of the line.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{where}: not JSON ({reason}). Write one object a line.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object. Write one object a line.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

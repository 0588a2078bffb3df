"""Reads JSON files that may have been edited, truncated or replaced."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import ValidationError

from lr_exp.errors import map_strings, printable

_MAX_BYTES = 64 * 2**20  # a summary has a few thousand
_NOT_A_FILE = "it is a dangling link or not a regular file"  # reading a pipe would block
_MAX_DEPTH = 100  # of nested objects and lists; a summary has 5
_MAX_SHOWN = 40  # characters of an invalid value in an error message


def read_json(path: Path, max_bytes: int = _MAX_BYTES) -> Any:
    """The content of a file, with control characters and lone surrogates in its strings escaped.

    A file whose name ends in `.gz` is decompressed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large or too deeply nested, or holds no JSON. The message says which.
    """
    if not path.is_file():
        raise OSError(_NOT_A_FILE)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"it is not a complete gzip file: {error}") from error
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    try:
        value = json.loads(content.decode("utf-8"))
        if _is_too_deep(value):
            raise RecursionError
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is invalid") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return map_strings(value, printable)  # names reach figures and the terminal


def read_json_lines(path: Path) -> Iterator[Any]:
    """The values in a file with one JSON value per line."""
    if not path.is_file():
        raise OSError(_NOT_A_FILE)
    # Not splitlines(): it also splits at U+2028 and others, which a model's output may contain.
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number whose square is finite."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -1e30 < value < 1e30


def _is_too_deep(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """Whether objects and lists are nested deeper than in any file of a run."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth == 0 or any(_is_too_deep(item, depth - 1) for item in inside)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in one line without its path."""
    if isinstance(error, ValidationError):
        return _first_error(error)
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, TypeError):
        return "it is not a JSON object"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())


def _first_error(error: ValidationError) -> str:
    """`sample.seconds should be a number, not '9'`."""
    first = error.errors()[0]
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"]]
    key = "".join(parts).removeprefix(".")
    message = first["msg"]
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":  # raised in a validator of ours
        return f"{key}: {message.removeprefix('Value error, ')}"
    message = message.removeprefix("Input ").partition(" or instance of ")[0]
    for pydantics, ours in (("dictionary", "a JSON object"), ("integer", "an integer"), ("", "a ")):
        message = message.replace(f"a valid {pydantics}", ours)
    value = repr(first["input"])
    value = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…"
    return f"{key or 'it'} {message}, not {value}"

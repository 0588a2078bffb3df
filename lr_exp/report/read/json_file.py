"""Reads JSON files that may have been edited, truncated or replaced."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from lr_exp.errors import map_strings, printable

MAX_BYTES = 64 * 2**20  # a summary has a few thousand
_NOT_A_FILE = "it is a dangling link or not a regular file"  # reading a pipe would block
_MAX_DEPTH = 100  # of nested objects and lists; a summary has 5


def read_json(path: Path) -> Any:
    """The content of a file, with control characters in its strings escaped.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no JSON, or JSON that no report can show: too large, too deeply nested,
            a lone surrogate. The message says which.
    """
    if not path.is_file():
        raise OSError(_NOT_A_FILE)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is invalid") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if is_too_deep(value):
        raise ValueError("it is nested too deeply")
    json.dumps(value, ensure_ascii=False).encode()
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


def is_too_deep(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """Whether objects and lists are nested deeper than in any file of a run."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth == 0 or any(is_too_deep(item, depth - 1) for item in inside)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in one line without its path."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, TypeError):
        return "it is not a JSON object"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())

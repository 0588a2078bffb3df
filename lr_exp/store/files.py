"""Atomic file writes and digests."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MIN_FREE_BYTES = 1 << 20


def digest(value: Any) -> str:
    """sha256 of a JSON-like value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, cached in this process until the file changes."""
    status = path.stat()
    return _file_digest(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_digest(path: str, inode: int, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_lines(records: Iterable[Any]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file under a temporary name in the same folder, then renames it."""
    with open_atomically(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that gets its name only when the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether a full disk caused an error, however the library reports it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_FULL
    if "No space left on device" in str(error):
        return True
    try:  # some libraries only report that writing failed
        return shutil.disk_usage(folder).free < _MIN_FREE_BYTES
    except OSError:
        return False

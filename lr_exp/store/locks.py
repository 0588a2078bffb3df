"""Advisory file locks (`flock`), which the system releases when their owner dies."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors of file systems without locks (Lustre mounted without `flock`, NFS without its daemon).
_NO_LOCK_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None) -> Iterator[bool | None]:
    """Holds the lock on a file, which is created if missing.

    Args:
        path: the lock file.
        on_wait: called before waiting for another process; None: do not wait.

    Yields:
        True if the lock is held, False if another process has it, None if the file system has no
        locks.

    Raises:
        OSError: the file cannot be opened.
    """
    # NFS grants exclusive locks only on files opened for writing.
    with path.open("a") as file:
        yield _acquire(file.fileno(), on_wait)


def _acquire(file: int, on_wait: Callable[[], None] | None) -> bool | None:
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                return False
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCK_ERRORS:
            return None
        raise
    return True

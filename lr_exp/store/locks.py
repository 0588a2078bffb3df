"""Advisory locks on files: one owner at a time, dropped by the system when their owner dies.

Knows `flock` and what file systems make of it; knows nothing of what the locks are for.
"""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file system without locks answers (Lustre mounted without `flock`, NFS without its daemon).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None) -> Iterator[bool | None]:
    """Holds the lock on a file, which is made if it is not there.

    Args:
        path: the file.
        on_wait: called before another process is waited for; None: nobody is waited for.

    Yields:
        True: the lock is held. False: another process has it. None: there are no locks here.

    Raises:
        OSError: the file cannot be opened.
    """
    # For writing: over NFS a lock that excludes others needs that.
    with path.open("a") as file:
        yield _take(file.fileno(), on_wait)


def _take(file: int, on_wait: Callable[[], None] | None) -> bool | None:
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                return False
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True

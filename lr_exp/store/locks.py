"""File locks that keep several processes from writing to the same artifact or run's folder."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from lr_exp.errors import warn_once

log = logging.getLogger(__name__)

# Errors of file systems without `flock` (Lustre mounted without it, NFS without its daemon).
_NO_FLOCK_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_NO_FLOCK = (
    "the file system of %s has no flock: a run that is killed on another host leaves a .softlock "
    "file, and later runs wait until you delete it (see docs/queues.md)"
)
_POLL_SECONDS = 0.2


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds an exclusive lock on `path`, which is `STORE/STAGE/ADDRESS.lock` or `RUN/.lock`.

    It is a `flock`, which the system releases when its owner dies. On a file system without it, a
    file of the same name that ends in `.softlock` is the lock.

    Yields whether the lock is held; False only without `wait`, which waits for another process.
    """
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        with suppress(Timeout):
            lock.acquire(blocking=False)
    except OSError as error:
        if error.errno not in _NO_FLOCK_ERRORS:
            raise
        warn_once(log, _NO_FLOCK, path.parents[1])
        lock = SoftFileLock(path.with_suffix(".softlock"))
        with suppress(Timeout):
            lock.acquire(blocking=False)
    if wait and not lock.is_locked:
        log.info("waiting for another process, which holds %s", lock.lock_file)
        lock.acquire(poll_interval=_POLL_SECONDS)
    try:
        yield lock.is_locked
    finally:
        lock.release()

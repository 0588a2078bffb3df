"""Compares two symbolic expressions with math-verify, in a process of its own.

Answers are untrusted: `9^{9^{9^9}}` is a short one. The kernel ends a comparison that takes
too long, and limits its memory.
"""

import atexit
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast

from lr_exp.errors import UserError

_MAX_CHARACTERS = 400  # the benchmarks' longest reference has 230
_MAX_SECONDS = 1.0  # of CPU time for all comparisons of an answer, which usually take milliseconds
_WORKER = Path(__file__).with_name("symbolic_worker.py")
_budget = threading.local()


def start_answer() -> None:
    """Gives the following comparisons of this thread one second of CPU time in all."""
    _budget.seconds = _MAX_SECONDS


def symbolically_equal(gold: str, answer: str) -> bool:
    """Whether two expressions are equal; False if either is invalid or too long.

    Raises UserError if math-verify cannot be started, TimeoutError when the answer's time is up.
    """
    if max(len(gold), len(answer)) > _MAX_CHARACTERS:
        return False
    return _comparer.are_equal(gold, answer)


class _Comparer:
    """A process that compares, started at the first comparison.

    Not a pool of multiprocessing: one that does not fork imports the user's script again, and
    forking a process with torch's threads may deadlock.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def are_equal(self, gold: str, answer: str) -> bool:
        with self._lock:
            try:
                process = self._process or self._start()
                stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
                print(json.dumps([gold, answer, _budget.seconds]), file=stdin, flush=True)
                reply = stdout.readline()
                if not reply:
                    raise BrokenPipeError
            except BaseException as error:
                self.stop()  # after Ctrl-C too: the next comparison must not get this reply
                if isinstance(error, BrokenPipeError):
                    raise UserError(
                        "math-verify, which grades symbolic answers, cannot be started (its error "
                        "is above): install lr_exp again."
                    ) from error
                raise
        if reply == "null\n":
            raise TimeoutError
        equal, left = json.loads(reply)
        _budget.seconds = max(left, 0.001)  # no limit is 0
        return equal

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            # -P: otherwise Python imports this folder's `numbers` instead of its own.
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process
        )
        return self._process

    def stop(self) -> None:
        """Ends the process; the next comparison starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_comparer = _Comparer()
atexit.register(_comparer.stop)

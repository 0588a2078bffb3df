"""Signals that stop the program: Ctrl-C, a queue's SIGTERM, a terminal that was closed."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from lr_exp.distributed.errors import PeerLostError
from lr_exp.distributed.group import GROUP

_received: list[int] = []  # a process has one set of signal handlers


class Stopped(KeyboardInterrupt):
    """A signal stopped the program; SIGTERM is handled like Ctrl-C."""

    def __init__(self, number: int, lost: PeerLostError | None = None) -> None:
        super().__init__(*([str(lost)] if lost else []))
        self.number = number
        self.lost = lost  # why torchrun stops this rank, if another one failed


def stop_request() -> Stopped | None:
    """The stop that a signal requested, also where a library turned it into its own error."""
    return Stopped(_received[0], GROUP.peer_lost_error()) if _received else None


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raises `Stopped` on signals, again if Python drops it, as in a weak reference's callback."""
    previous_hook = sys.unraisablehook

    def handle(number: int, frame: object) -> None:
        _received.append(number)
        lost = GROUP.peer_lost_error()
        if lost is None:
            GROUP.report_end()
        raise Stopped(number, lost)

    def resend_if_dropped(dropped: Any) -> None:
        if isinstance(dropped.exc_value, Stopped):
            timer = Timer(0.1, os.kill, (os.getpid(), dropped.exc_value.number))
            timer.daemon = True
            timer.start()
        else:
            previous_hook(dropped)

    _received.clear()
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)  # unless started with nohup
    sys.unraisablehook = resend_if_dropped
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook

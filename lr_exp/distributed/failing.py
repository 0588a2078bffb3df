"""When a rank fails alone, or dies: its reason for the others, and how they notice.

Knows processes and the launcher's own store of notes, which outlives a rank; exchanges nothing
else.
"""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lr_exp.distributed.place import is_rank0, rank, rank_label
from lr_exp.errors import UserError

# Seconds in which torchrun ends this rank if the first one fails in the same way and has said so;
# before the ranks are connected, each starts when it can.
_COURTESY = 2.0
_COURTESY_ALONE = 10.0

_FAILURE = "failure"  # what the first rank to fail alone leaves for the others


class SharedError(UserError):
    """An error that every rank raises at the same place, so that they stay in step."""


class PeerLostError(UserError):
    """Another rank is gone, so this one cannot go on."""

    def __init__(self, message: str, *, rank: int | None = None, is_told: bool = False) -> None:
        super().__init__(message)
        self.rank = rank  # of the one that died, if that is known
        self.is_told = is_told  # that rank has said the reason itself


@dataclass(frozen=True)
class _Listening:
    """Where notes are left, and by whom."""

    notes: Any  # a store of torch.distributed
    peers: list[tuple[int, str, int]]  # rank, host, process id


_listening: _Listening | None = None


def myself() -> tuple[int, str, int]:
    """Rank, host and process id, as the others know this rank."""
    return rank(), socket.gethostname(), os.getpid()


def listen(notes: Any, peers: list[tuple[int, str, int]]) -> None:
    """From now on notes are left and read there.

    Args:
        notes: a store that every rank sees.
        peers: each rank's `myself`.
    """
    global _listening
    _listening = _Listening(notes, peers)


def report_failure(error: BaseException, message: str) -> None:
    """Leaves this rank's reason for the others, and gives the first rank time to speak first.

    To be called before this rank ends with an error that the others do not know of.
    """
    if isinstance(error, PeerLostError):
        report_end()  # not because of this rank
        return
    if _listening is not None:
        with suppress(RuntimeError):  # the launcher is gone
            _listening.notes.compare_set(_FAILURE, "", f"{rank_label()}: {message}")
    if not is_rank0():
        time.sleep(_COURTESY if _listening is not None else _COURTESY_ALONE)


def report_end() -> None:
    """Leaves word that this rank ends as it should."""
    if _listening is not None:
        with suppress(RuntimeError):  # the launcher is gone
            _listening.notes.set(f"ended/{rank()}", "1")


def check_peers() -> None:
    """Raises `PeerLostError` if another rank is gone; to be called where a connection broke."""
    deadline = time.monotonic() + 2 * _COURTESY  # the one that failed is telling why
    while _listening is not None and time.monotonic() < deadline:
        lost = lost_peer()
        if lost is not None:
            raise lost
        time.sleep(0.1)


def lost_peer() -> PeerLostError | None:
    """Why the run cannot go on, if another rank has failed or is gone; None if none has."""
    if _listening is None:
        return None
    try:
        if _listening.notes.check([_FAILURE]):
            reason = _listening.notes.get(_FAILURE).decode("utf-8", "replace")
            return PeerLostError(reason, is_told=True)
        for number, host, process in _listening.peers:
            if host != socket.gethostname() or _listening.notes.check([f"ended/{number}"]):
                continue
            if _is_gone(process):
                return PeerLostError(
                    f"rank {number} (process {process} on {host}) died: killed, perhaps for want "
                    "of memory, or crashed. The same command goes on where it was.",
                    rank=number,
                )
    except (RuntimeError, OSError):  # the launcher is gone, too
        return None
    return None


def _is_gone(process: int) -> bool:
    import psutil

    try:
        return psutil.Process(process).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True

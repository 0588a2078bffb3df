"""What the ranks do together, and errors that leave them in step.

Knows calls and their outcomes; knows nothing of what is called.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from lr_exp.distributed.failing import PeerLostError, SharedError
from lr_exp.distributed.group import all_gather, broadcast, gather, is_joined
from lr_exp.distributed.place import is_rank0, rank, rank_label, world_size
from lr_exp.errors import UserError

T = TypeVar("T")
J = TypeVar("J")


def run_on_rank0(work: Callable[[], T]) -> T:
    """What the first rank's call returned, on every rank; the others do not call.

    Raises:
        SharedError: the first rank's `UserError` or `OSError`.
    """
    if not is_joined():
        return work()
    return _unwrapped(broadcast(_tried(work) if is_rank0() else None))


def run_on_all_ranks(work: Callable[[], T]) -> T:
    """Each rank's own result of the same call.

    Raises:
        SharedError: it failed somewhere; the first rank's error, or else which rank's.
    """
    if not is_joined():
        return work()
    outcome = _tried(work)
    for one in all_gather(outcome.failed):
        if one is not None:
            _unwrapped(_Outcome(failed=one, error=outcome.error))
    return outcome.value


def run_identically(work: Callable[[], T]) -> T:
    """The call's result, where it fails on every rank or on none; nothing is exchanged.

    Raises:
        SharedError: a `UserError` of the call's.
    """
    if not is_joined():
        return work()
    try:
        return work()
    except PeerLostError:
        raise
    except UserError as error:
        raise SharedError(str(error)) from error


def distribute_jobs(
    jobs: Iterable[J], work: Callable[[J], T], take: Callable[[J, T], None]
) -> None:
    """Each job is worked on by one rank; the first rank takes the results, in the jobs' order.

    Args:
        jobs: the same on every rank, and so are the errors of making them. They are handed out in
            rounds, so that what a stop loses is a round: give jobs of similar size.
        work: called on the job's rank.
        take: called on the first rank.

    Raises:
        SharedError: a `UserError` or `OSError` of any rank's.
    """
    if not is_joined():
        for job in jobs:
            take(job, work(job))
        return
    waiting = iter(jobs)
    while batch := run_identically(lambda: list(islice(waiting, world_size()))):
        own = _tried(partial(work, batch[rank()])) if rank() < len(batch) else None
        _unwrapped(broadcast(_tried(partial(_take_all, batch, gather(own), take))))


def run_collectively(make: Callable[[Callable[..., T]], Any], work: Callable[..., T]) -> Any:
    """What `make` returned on the first rank, on every rank; what it calls, all of them call.

    Args:
        make: called on the first rank alone, with a stand-in for `work`.
        work: called on every rank with the arguments that the stand-in was called with, as often
            as it was; the first rank's results are its.

    Raises:
        SharedError: as `from_first`.
    """
    if not is_joined():
        return make(work)
    if is_rank0():
        failed_alone = False

        def call(*given: Any) -> T:
            nonlocal failed_alone
            broadcast(_Call(given))
            try:
                return work(*given)
            except Exception as error:
                failed_alone = not isinstance(error, SharedError)
                raise

        outcome = _tried(lambda: make(call))
        if failed_alone and outcome.error is not None:
            # The others may be waiting inside the work, where they hear nothing but its end.
            raise outcome.error
        broadcast(outcome)
        return _unwrapped(outcome)
    while True:
        said = broadcast(None)
        if not isinstance(said, _Call):
            return _unwrapped(said)
        try:
            work(*said.given)
        except SharedError:
            continue  # the first rank raises it, too, and says what came of it


def check_same(what: dict[str, Any]) -> None:
    """Raises `SharedError` where ranks see different things.

    Args:
        what: JSON-like values by what they are called, as this rank sees them.
    """
    if not is_joined():
        return
    seen = all_gather((socket.gethostname(), what))
    first_host, first = seen[0]
    for number, (host, other) in enumerate(seen):
        differing = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if differing:
            name = differing[0]
            raise SharedError(
                f"rank {number} on {host} has another {name} than rank 0 on {first_host}: "
                f"{_short(other.get(name))} and {_short(first.get(name))}. Give every process the "
                "same files, settings and package versions."
            )


@dataclass(frozen=True)
class _Call:
    given: tuple[Any, ...]


@dataclass
class _Outcome:
    """What came of a piece of work; what others are told of it has no traceback."""

    value: Any = None
    failed: str | None = None  # the message, if it failed
    error: Exception | None = None  # on the rank where it was raised

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value, "failed": self.failed, "error": None}


def _tried(work: Callable[[], Any]) -> _Outcome:
    """What came of it. Errors that nobody expected are not caught: this rank ends with them."""
    try:
        return _Outcome(value=work())
    except PeerLostError:
        raise
    except SharedError as error:
        return _Outcome(failed=str(error), error=error)
    except (UserError, OSError) as error:
        prefix = "" if is_rank0() else f"{rank_label()}: "
        return _Outcome(failed=prefix + str(error), error=error)


def _unwrapped(outcome: _Outcome) -> Any:
    if outcome.failed is not None:
        raise SharedError(outcome.failed) from outcome.error
    return outcome.value


def _take_all(
    batch: Sequence[J], outcomes: Sequence[_Outcome | None], take: Callable[[J, Any], None]
) -> None:
    for job, outcome in zip(batch, outcomes, strict=False):
        if outcome is not None:
            take(job, _unwrapped(outcome))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."

"""Work that the ranks do together, with errors that keep them in lockstep."""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from lr_exp.distributed.environment import is_rank0, rank, rank_label, world_size
from lr_exp.distributed.group import GROUP, PeerLostError, SharedError
from lr_exp.errors import UserError, short_repr

T = TypeVar("T")
J = TypeVar("J")


def run_on_rank0(work: Callable[[], T]) -> T:
    """Calls `work` on rank 0 and returns its result, or raises its SharedError, on every rank."""
    if not GROUP.is_joined:
        return work()
    return _unwrap(GROUP.broadcast(_try(work) if is_rank0() else None))


def run_on_all_ranks(work: Callable[[], T]) -> T:
    """Calls `work` on every rank; each returns its own result.

    Raises SharedError, with the error of the lowest rank on which the call failed.
    """
    if not GROUP.is_joined:
        return work()
    outcome = _try(work)
    for message in GROUP.all_gather(outcome.failed):
        if message is not None:
            _unwrap(_Outcome(failed=message, error=outcome.error))
    return outcome.value


def run_identically(work: Callable[[], T]) -> T:
    """Calls `work` on every rank without communication; it must fail on all ranks or on none.

    Raises SharedError for the call's `UserError`.
    """
    if not GROUP.is_joined:
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
    """Runs each job on one rank; rank 0 receives the results in the order of the jobs.

    Args:
        jobs: the same on every rank, and of similar size: each round gives one to each rank. Errors
            raised while iterating are the same, too.
        work: called on the job's rank.
        take: called on rank 0 with each job and its result.

    Raises SharedError for a `UserError` or `OSError` of any rank.
    """
    if not GROUP.is_joined:
        for job in jobs:
            take(job, work(job))
        return
    remaining = iter(jobs)
    while batch := run_identically(lambda: list(islice(remaining, world_size()))):
        own = _try(partial(work, batch[rank()])) if rank() < len(batch) else None
        outcomes = GROUP.gather(own)  # on rank 0 only

        def take_all(batch: list[J] = batch, outcomes: list[Any] = outcomes) -> None:
            for job, outcome in zip(batch, outcomes, strict=False):
                take(job, _unwrap(outcome))

        _unwrap(GROUP.broadcast(_try(take_all)))


def run_collectively(make: Callable[[Callable[..., T]], Any], work: Callable[..., T]) -> Any:
    """Calls `make(work)` on rank 0; whenever it calls `work`, all ranks call it.

    Args:
        make: called on rank 0, with a stand-in for `work`. Its result is returned on every rank.
        work: called on every rank with the stand-in's arguments; the stand-in returns rank 0's
            result.

    Raises SharedError for rank 0's `UserError` or `OSError`.
    """
    if not GROUP.is_joined:
        return make(work)
    if is_rank0():
        failed_alone = False

        def call(*args: Any) -> T:
            nonlocal failed_alone
            GROUP.broadcast(_Call(args))
            try:
                return work(*args)
            except Exception as error:
                failed_alone = not isinstance(error, SharedError)
                raise

        outcome = _try(lambda: make(call))
        if failed_alone and outcome.error is not None:
            # The others may be waiting inside `work`, where only rank 0's exit releases them.
            raise outcome.error
        GROUP.broadcast(outcome)
        return _unwrap(outcome)
    while True:
        message = GROUP.broadcast(None)
        if not isinstance(message, _Call):
            return _unwrap(message)
        try:
            work(*message.args)
        except SharedError:
            continue  # rank 0 raises it, too, and broadcasts the outcome


def check_same(values: dict[str, Any]) -> None:
    """Raises `SharedError` unless all ranks pass the same JSON-like values, by their names."""
    if not GROUP.is_joined:
        return
    by_rank = GROUP.all_gather((socket.gethostname(), values))
    host0, values0 = by_rank[0]
    for number, (host, other) in enumerate(by_rank):
        for name in {**values0, **other}:
            first, second = values0.get(name), other.get(name)
            if first != second:
                raise SharedError(
                    f"{name}: rank {number} on {host} has {short_repr(second)}, but rank 0 on "
                    f"{host0} has {short_repr(first)}. Give every process the same files, settings "
                    "and package versions."
                )


@dataclass(frozen=True)
class _Call:
    args: tuple[Any, ...]


@dataclass
class _Outcome:
    """Result of a call. `error` is not sent to other ranks."""

    value: Any = None
    failed: str | None = None  # the error message, if the call failed
    error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value, "failed": self.failed, "error": None}


def _try(work: Callable[[], Any]) -> _Outcome:
    """Calls `work` and catches the expected errors; this rank exits with any other one."""
    try:
        return _Outcome(value=work())
    except PeerLostError:
        raise
    except SharedError as error:
        return _Outcome(failed=str(error), error=error)
    except (UserError, OSError) as error:
        prefix = "" if is_rank0() else f"{rank_label()}: "
        return _Outcome(failed=prefix + str(error), error=error)


def _unwrap(outcome: _Outcome) -> Any:
    if outcome.failed is not None:
        raise SharedError(outcome.failed) from outcome.error
    return outcome.value

"""The processes of one run: which of them this is, and what they tell each other.

`torchrun --nproc-per-node N -m lr_exp …` starts N of them, the ranks. All go through the same code
in step; the first one (rank 0) alone writes and speaks. Knows torch.distributed and processes;
knows nothing of stages. In a run of one process everything here is a plain call.

Ranks stay in step after an error only where all of them know of it: `SharedError`. One that fails
alone ends, and so do the others, with its reason.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from lr_exp.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
J = TypeVar("J")

# Ranks wait for each other as long as one works, or waits for another run's lock; one that died is
# noticed by its connections, which break.
_PATIENCE = timedelta(days=30)
# Seconds in which torchrun ends this rank if the first one fails in the same way and has said so;
# before the ranks are connected, each starts when it can.
_COURTESY = 2.0
_COURTESY_ALONE = 10.0

_FAILURE = "failure"  # what the first rank to fail alone leaves for the others
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")


class SharedError(UserError):
    """An error that every rank raises at the same place, so that they stay in step."""


class PeerLostError(UserError):
    """Another rank is gone, so this one cannot go on."""

    def __init__(self, message: str, *, is_told: bool = False) -> None:
        super().__init__(message)
        self.is_told = is_told  # that rank has said the reason itself


@dataclass(frozen=True)
class _Place:
    rank: int
    count: int
    local_rank: int
    local_count: int


def _read_place() -> _Place:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = [os.environ.get(name, "") for name in names]
    if not all(value.isdigit() for value in given):
        return _Place(0, 1, 0, 1)  # not started by torchrun
    return _Place(*(int(value) for value in given))


@dataclass
class _Group:
    """The connection to the others."""

    objects: Any  # the group on the CPU, whatever the models are on
    notes: Any  # held by the launcher: it outlives a rank
    peers: list[tuple[int, str, int]]  # rank, host, process id


_place = _read_place()
_group: _Group | None = None


def rank() -> int:
    """The number of this process, from 0; 0 in a run of one process."""
    return _place.rank


def count() -> int:
    """How many processes the run has."""
    return _place.count


def local_rank() -> int:
    """The number of this process on its host, from 0."""
    return _place.local_rank


def local_count() -> int:
    """How many processes the run has on this host."""
    return _place.local_count


def several() -> bool:
    return _place.count > 1


def where() -> str:
    """The process, for a person: `rank 1 on HOST`."""
    return f"rank {rank()} on {socket.gethostname()}"


def is_first() -> bool:
    """Whether this is the rank that writes, logs and draws progress."""
    return _place.rank == 0


def join(device: str) -> None:
    """Connects the ranks; once a process.

    From then on the launcher's variables are gone from the environment: libraries that read them
    (accelerate does) would split the work a second time.

    Args:
        device: cpu or cuda; gradients travel over gloo or NCCL, all else over gloo.

    Raises:
        UserError: the others cannot be reached.
    """
    global _group
    if not several() or _group is not None:
        return
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    try:
        notes, _, _ = next(rendezvous("env://", rank(), count(), timeout=_PATIENCE))
        dist.init_process_group(
            backend,
            store=c10d.PrefixStore("groups", notes),
            rank=rank(),
            world_size=count(),
            timeout=_PATIENCE,
        )
        objects = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"rank {rank()} of {count()} cannot reach the others ({first_line(error)}): start the "
            "program with torchrun, with the same --nnodes and --rdzv-endpoint on every host."
        ) from error
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    _group = _Group(objects, c10d.PrefixStore("notes", notes), [])
    _group.peers = all_gathered((rank(), socket.gethostname(), os.getpid()))


def leave() -> None:
    """Ends the connection, after the last thing that the ranks did together."""
    global _group
    if _group is not None:
        import torch.distributed as dist

        tell_end()
        dist.destroy_process_group()
        _group = None


# What the ranks do together.


def all_gathered(value: T) -> list[T]:
    """Every rank's value, on every rank, in their order."""
    if _group is None:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    _connected(lambda group: dist.all_gather_object(values, value, group=group))
    return values


def from_first(work: Callable[[], T]) -> T:
    """What the first rank's call returned, on every rank; the others do not call.

    Raises:
        SharedError: the first rank's `UserError` or `OSError`.
    """
    if _group is None:
        return work()
    return _unwrapped(_broadcast(_tried(work) if is_first() else None))


def alike(work: Callable[[], T]) -> T:
    """Each rank's own result of the same call.

    Raises:
        SharedError: it failed somewhere; the first rank's error, or else which rank's.
    """
    if _group is None:
        return work()
    outcome = _tried(work)
    for one in all_gathered(outcome.failed):
        if one is not None:
            _unwrapped(_Outcome(failed=one, error=outcome.error))
    return outcome.value


def in_step(work: Callable[[], T]) -> T:
    """The call's result, where it fails on every rank or on none; nothing is exchanged.

    Raises:
        SharedError: a `UserError` of the call's.
    """
    if _group is None:
        return work()
    try:
        return work()
    except PeerLostError:
        raise
    except UserError as error:
        raise SharedError(str(error)) from error


def share_out(jobs: Iterable[J], work: Callable[[J], T], take: Callable[[J, T], None]) -> None:
    """Each job is worked on by one rank; the first rank takes the results, in the jobs' order.

    Args:
        jobs: the same on every rank, and so are the errors of making them. They are handed out in
            rounds, so that what a stop loses is a round: give jobs of similar size.
        work: called on the job's rank.
        take: called on the first rank.

    Raises:
        SharedError: a `UserError` or `OSError` of any rank's.
    """
    if _group is None:
        for job in jobs:
            take(job, work(job))
        return
    waiting = iter(jobs)
    while batch := in_step(lambda: list(islice(waiting, count()))):
        own = _tried(partial(work, batch[rank()])) if rank() < len(batch) else None
        _unwrapped(_broadcast(_tried(partial(_take_all, batch, _gathered(own), take))))


def together(make: Callable[[Callable[..., T]], Any], work: Callable[..., T]) -> Any:
    """What `make` returned on the first rank, on every rank; what it calls, all of them call.

    Args:
        make: called on the first rank alone, with a stand-in for `work`.
        work: called on every rank with the arguments that the stand-in was called with, as often
            as it was; the first rank's results are its.

    Raises:
        SharedError: as `from_first`.
    """
    if _group is None:
        return make(work)
    if is_first():
        failed_alone = False

        def call(*given: Any) -> T:
            nonlocal failed_alone
            _broadcast(_Call(given))
            try:
                return work(*given)
            except Exception as error:
                failed_alone = not isinstance(error, SharedError)
                raise

        outcome = _tried(lambda: make(call))
        if failed_alone and outcome.error is not None:
            # The others may be waiting inside the work, where they hear nothing but its end.
            raise outcome.error
        _broadcast(outcome)
        return _unwrapped(outcome)
    while True:
        said = _broadcast(None)
        if not isinstance(said, _Call):
            return _unwrapped(said)
        try:
            work(*said.given)
        except SharedError:
            continue  # the first rank raises it, too, and says what came of it


def sum_up(tensors: Sequence["Tensor"]) -> None:
    """Adds up each tensor over the ranks, in place and on its device; all of one type."""
    if _group is None or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    _connected(lambda group: dist.all_reduce(flat))
    start = 0
    for tensor in tensors:
        end = start + tensor.numel()
        tensor.detach().copy_(flat[start:end].view_as(tensor))
        start = end


def check_same(what: dict[str, Any]) -> None:
    """Raises `SharedError` where ranks see different things.

    Args:
        what: JSON-like values by what they are called, as this rank sees them.
    """
    if _group is None:
        return
    seen = all_gathered((socket.gethostname(), what))
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


# When a rank fails alone.


def tell_failure(error: BaseException, message: str) -> None:
    """Leaves this rank's reason for the others, and gives the first rank time to speak first.

    To be called before this rank ends with an error that the others do not know of.
    """
    if isinstance(error, PeerLostError):
        tell_end()  # not because of this rank
        return
    if _group is not None:
        with suppress(RuntimeError):  # the launcher is gone
            _group.notes.compare_set(_FAILURE, "", f"{where()}: {message}")
    if not is_first():
        time.sleep(_COURTESY if _group is not None else _COURTESY_ALONE)


def tell_end() -> None:
    """Leaves word that this rank ends as it should."""
    if _group is not None:
        with suppress(RuntimeError):  # the launcher is gone
            _group.notes.set(f"ended/{rank()}", "1")


def check_peers() -> None:
    """Raises `PeerLostError` if another rank is gone; to be called where a connection broke."""
    deadline = time.monotonic() + 2 * _COURTESY  # the one that failed is telling why
    while _group is not None and time.monotonic() < deadline:
        lost = lost_peer()
        if lost is not None:
            raise lost
        time.sleep(0.1)


def lost_peer() -> PeerLostError | None:
    """Why the run cannot go on, if another rank has failed or is gone; None if none has."""
    if _group is None:
        return None
    try:
        if _group.notes.check([_FAILURE]):
            reason = _group.notes.get(_FAILURE).decode("utf-8", "replace")
            return PeerLostError(reason, is_told=True)
        for number, host, process in _group.peers:
            if host != socket.gethostname() or _group.notes.check([f"ended/{number}"]):
                continue
            if _is_gone(process):
                return PeerLostError(
                    f"rank {number} (process {process} on {host}) died: killed, perhaps for want "
                    "of memory, or crashed. The same command goes on where it was."
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


# How they speak.


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
        prefix = "" if is_first() else f"{where()}: "
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


def _broadcast(value: Any) -> Any:
    """The first rank's value, on every rank."""
    import torch.distributed as dist

    said = [value]
    _connected(lambda group: dist.broadcast_object_list(said, src=0, group=group))
    return value if is_first() else said[0]


def _gathered(value: Any) -> list[Any]:
    """Every rank's value on the first rank, nothing on the others."""
    import torch.distributed as dist

    values: list[Any] | None = [None] * count() if is_first() else None
    _connected(lambda group: dist.gather_object(value, values, dst=0, group=group))
    return values or []


def _connected(exchange: Callable[[Any], object]) -> None:
    if _group is None:
        raise ValueError("the ranks are not connected: call join first")
    try:
        exchange(_group.objects)
    except RuntimeError as error:
        check_peers()
        raise PeerLostError(
            f"another rank of this run is gone ({first_line(error)}). The same command goes on "
            "where it was."
        ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."

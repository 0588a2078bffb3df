"""The process group of a run, on top of torch.distributed (imported only with several ranks)."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lr_exp.distributed.environment import is_distributed, is_rank0, rank, rank_label, world_size
from lr_exp.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# A rank may wait for others for days. A dead peer is noticed by its broken connections instead.
_TIMEOUT = timedelta(days=30)
_LAUNCHER_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("GROUP_RANK", "ROLE_RANK"),
)

# Seconds that other ranks wait before they exit with an error, so that rank 0 can report the same
# error first; longer before the ranks are connected, since they do not start at the same time.
_RANK0_FIRST = 2.0
_RANK0_FIRST_UNCONNECTED = 10.0

_FAILURE = "failure"  # key under which the first rank to fail alone stores its reason


class SharedError(UserError):
    """An error that every rank raises at the same place, which keeps the ranks in lockstep."""


class PeerLostError(UserError):
    """Another rank failed or died, so this one has to stop."""

    def __init__(self, message: str, *, rank: int | None = None, is_reported: bool = False) -> None:
        super().__init__(message)
        self.rank = rank  # the one that died, if known
        self.is_reported = is_reported  # that rank has already printed the reason


class ProcessGroup:
    """All ranks of a run; before `join`, and in a run of one process, this process alone."""

    def __init__(self) -> None:
        self._group: Any = None  # gloo, for Python objects, whatever device the models are on
        self._notes: Any = None  # the launcher's key-value store, which outlives a rank
        self._peers: list[tuple[int, str, int]] = []  # rank, host, process id

    @property
    def is_joined(self) -> bool:
        return self._group is not None

    def join(self, device: str) -> None:
        """Connects the ranks; a second call does nothing.

        On the device `cuda`, gradients use NCCL, everything else gloo. Deletes the launcher's
        environment variables: libraries that read them, such as accelerate, would split the work a
        second time. Raises UserError if the other ranks cannot be reached.
        """
        if not is_distributed() or self.is_joined:
            return
        import torch.distributed as dist
        from torch.distributed import distributed_c10d as c10d
        from torch.distributed.rendezvous import rendezvous

        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        try:
            store, _, _ = next(rendezvous("env://", rank(), world_size(), timeout=_TIMEOUT))
            dist.init_process_group(
                backend,
                store=c10d.PrefixStore("groups", store),
                rank=rank(),
                world_size=world_size(),
                timeout=_TIMEOUT,
            )
            self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"rank {rank()} of {world_size()} cannot reach the other ranks "
                f"({first_line(error)}). Start the program with torchrun, with the same --nnodes "
                "and --rdzv-endpoint on every host."
            ) from error
        for name in _LAUNCHER_VARIABLES:
            os.environ.pop(name, None)
        self._peers = self.all_gather((rank(), socket.gethostname(), os.getpid()))
        self._notes = c10d.PrefixStore("notes", store)

    def leave(self) -> None:
        """Closes the connections, after the last collective call."""
        if self.is_joined:
            import torch.distributed as dist

            self.report_end()
            dist.destroy_process_group()
            self._group = None

    def all_gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        if not self.is_joined:
            return [value]
        values: list[Any] = [None] * world_size()
        self._exchange(lambda dist: dist.all_gather_object(values, value, group=self._group))
        return values

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        values = [value]
        self._exchange(lambda dist: dist.broadcast_object_list(values, src=0, group=self._group))
        return value if is_rank0() else values[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value on rank 0; an empty list on the others."""
        values: list[Any] | None = [None] * world_size() if is_rank0() else None
        self._exchange(lambda dist: dist.gather_object(value, values, dst=0, group=self._group))
        return values or []

    def all_reduce(self, tensors: Sequence["Tensor"]) -> None:
        """Sums each tensor over the ranks, in place. All have one dtype and one device."""
        if not self.is_joined or not tensors:
            return
        import torch

        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self._exchange(lambda dist: dist.all_reduce(flat))
        for tensor, summed in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(summed.view_as(tensor))

    def _exchange(self, exchange: Callable[[Any], object]) -> None:
        """Calls `exchange` with `torch.distributed`; raises PeerLostError if a rank is gone."""
        import torch.distributed as dist

        try:
            exchange(dist)
        except RuntimeError as error:
            self.check_peers()
            raise PeerLostError(
                "another rank of this run exited. Run the same command again to resume."
            ) from error

    def report_failure(self, error: BaseException, message: str) -> None:
        """Stores the reason why this rank exits alone, and lets rank 0 report its own first."""
        if isinstance(error, PeerLostError):
            self.report_end()  # another rank caused it
            return
        if self._notes is not None:
            with suppress(RuntimeError):  # the launcher is gone
                self._notes.compare_set(_FAILURE, "", f"{rank_label()}: {message}")
        if not is_rank0():
            time.sleep(_RANK0_FIRST if self._notes is not None else _RANK0_FIRST_UNCONNECTED)

    def report_end(self) -> None:
        """Tells the other ranks that this rank exits normally."""
        if self._notes is not None:
            with suppress(RuntimeError):  # the launcher is gone
                self._notes.set(f"ended/{rank()}", "1")

    def check_peers(self) -> None:
        """Raises `PeerLostError` if another rank is gone. Call it when a connection broke."""
        deadline = time.monotonic() + 2 * _RANK0_FIRST  # a failed rank may still store its reason
        while self._notes is not None and time.monotonic() < deadline:
            lost = self.peer_lost_error()
            if lost is not None:
                raise lost
            time.sleep(0.1)

    def peer_lost_error(self) -> PeerLostError | None:
        """The error to raise if another rank has failed or died, else None."""
        if self._notes is None:
            return None
        try:
            if self._notes.check([_FAILURE]):
                reason = self._notes.get(_FAILURE).decode("utf-8", "replace")
                return PeerLostError(reason, is_reported=True)
            for number, host, pid in self._peers:
                if host != socket.gethostname() or self._notes.check([f"ended/{number}"]):
                    continue
                if _is_gone(pid):
                    return PeerLostError(
                        f"rank {number} (process {pid} on {host}) died: it crashed or was killed, "
                        "perhaps because memory ran out. Run the same command again to resume.",
                        rank=number,
                    )
        except (RuntimeError, OSError):  # the launcher is gone, too
            pass
        return None


GROUP = ProcessGroup()  # one per process, like the default group of torch.distributed


def _is_gone(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True

"""The connection between the ranks, and what can be said over it.

Knows torch.distributed, imported only where there are several ranks; knows nothing of work.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lr_exp.distributed.failing import PeerLostError, check_peers, listen, myself, report_end
from lr_exp.distributed.place import is_distributed, is_rank0, rank, world_size
from lr_exp.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# Ranks wait for each other as long as one works, or waits for another run's lock; one that died is
# noticed by its connections, which break.
_PATIENCE = timedelta(days=30)
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")

_group: Any = None  # of all ranks, on the CPU, whatever the models are on


def is_joined() -> bool:
    """Whether there are others to speak to."""
    return _group is not None


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
    if not is_distributed() or _group is not None:
        return
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    try:
        notes, _, _ = next(rendezvous("env://", rank(), world_size(), timeout=_PATIENCE))
        dist.init_process_group(
            backend,
            store=c10d.PrefixStore("groups", notes),
            rank=rank(),
            world_size=world_size(),
            timeout=_PATIENCE,
        )
        objects = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"rank {rank()} of {world_size()} cannot reach the others ({first_line(error)}): start "
            "the program with torchrun, with the same --nnodes and --rdzv-endpoint on every host."
        ) from error
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    _group = objects
    listen(c10d.PrefixStore("notes", notes), all_gather(myself()))


def leave() -> None:
    """Ends the connection, after the last thing that the ranks did together."""
    global _group
    if _group is not None:
        import torch.distributed as dist

        report_end()
        dist.destroy_process_group()
        _group = None


def all_gather(value: T) -> list[T]:
    """Every rank's value, on every rank, in their order."""
    if _group is None:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size()
    _exchange(lambda group: dist.all_gather_object(values, value, group=group))
    return values


def broadcast(value: Any) -> Any:
    """The first rank's value, on every rank."""
    import torch.distributed as dist

    said = [value]
    _exchange(lambda group: dist.broadcast_object_list(said, src=0, group=group))
    return value if is_rank0() else said[0]


def gather(value: Any) -> list[Any]:
    """Every rank's value on the first rank, nothing on the others."""
    import torch.distributed as dist

    values: list[Any] | None = [None] * world_size() if is_rank0() else None
    _exchange(lambda group: dist.gather_object(value, values, dst=0, group=group))
    return values or []


def all_reduce(tensors: Sequence["Tensor"]) -> None:
    """Adds up each tensor over the ranks, in place and on its device; all of one type."""
    if _group is None or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    _exchange(lambda group: dist.all_reduce(flat))
    start = 0
    for tensor in tensors:
        end = start + tensor.numel()
        tensor.detach().copy_(flat[start:end].view_as(tensor))
        start = end


def _exchange(exchange: Callable[[Any], object]) -> None:
    if _group is None:
        raise ValueError("the ranks are not connected: call join first")
    try:
        exchange(_group)
    except RuntimeError as error:
        check_peers()
        raise PeerLostError(
            "another rank of this run is gone. The same command goes on where it was."
        ) from error

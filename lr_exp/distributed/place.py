"""Which of a run's processes this is. Knows the variables that torchrun sets; imports no torch."""

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class _Place:
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def _read_place() -> _Place:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = [os.environ.get(name, "") for name in names]
    if not all(value.isdigit() for value in given):
        return _Place(0, 1, 0, 1)  # not started by torchrun
    return _Place(*(int(value) for value in given))


_place = _read_place()


def rank() -> int:
    """The number of this process, from 0; 0 in a run of one process."""
    return _place.rank


def world_size() -> int:
    """How many processes the run has."""
    return _place.world_size


def local_rank() -> int:
    """The number of this process on its host, from 0."""
    return _place.local_rank


def local_world_size() -> int:
    """How many processes the run has on this host."""
    return _place.local_world_size


def is_distributed() -> bool:
    return _place.world_size > 1


def rank_label() -> str:
    """The process, for a person: `rank 1 on HOST`."""
    return f"rank {rank()} on {socket.gethostname()}"


def is_rank0() -> bool:
    """Whether this is the rank that writes, logs and draws progress."""
    return _place.rank == 0

"""Rank and world size of this process, from torchrun's environment variables."""

import os
import socket
from typing import NamedTuple


class _Environment(NamedTuple):
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def _read_environment() -> _Environment:
    values = [os.environ.get(name.upper(), "") for name in _Environment._fields]
    if not all(value.isdigit() for value in values):
        return _Environment()  # not started by torchrun
    return _Environment(*map(int, values))


_environment = _read_environment()  # at import: joining the process group deletes the variables


def rank() -> int:
    """Number of this process, from 0; 0 in a run of one process."""
    return _environment.rank


def world_size() -> int:
    return _environment.world_size


def local_rank() -> int:
    """Number of this process on its host, from 0."""
    return _environment.local_rank


def local_world_size() -> int:
    """Number of processes of the run on this host."""
    return _environment.local_world_size


def is_distributed() -> bool:
    return _environment.world_size > 1


def rank_label() -> str:
    """The process in messages: `rank 1 on HOST`."""
    return f"rank {rank()} on {socket.gethostname()}"


def is_rank0() -> bool:
    """Whether this rank writes files, logs and shows progress."""
    return _environment.rank == 0

"""A sweep's cells in whatever process a launcher runs them: the way there and the way back.

Hydra's launchers run cells one after another in this process, or pickle them into other ones: on
this machine, in a queue, on a cluster. Knows what a process needs before a cell can run in it, and
how each cell ended; knows nothing of what a cell does.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

from omegaconf import DictConfig

from lr_exp.config.start import prepare
from lr_exp.errors import guard_tracebacks

_ended: dict[int, "Outcome"] = {}  # of this call, by the cell's number


@dataclass(frozen=True)
class Outcome:
    """How a cell ended; what its function returns.

    Launchers hand it to Hydra's sweeper, which drops it. So it notes itself in every process that
    it comes to: a sweep counts what it has seen, not what a network's file system shows by then.
    """

    number: int  # in the sweep, from 1
    cell: str  # its folder's name
    error: str | None  # in one line; None: it finished
    came_back: bool = False  # from another process

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return note, (self.number, self.cell, self.error, True)


def note(number: int, cell: str, error: str | None, came_back: bool = False) -> Outcome:
    """Notes how a cell ended."""
    _ended[number] = Outcome(number, cell, error, came_back)
    return _ended[number]


def forget() -> None:
    """Begins a count."""
    _ended.clear()


def outcomes() -> list[Outcome]:
    """Of all cells that ended since the last `forget`, in this process or in others."""
    return [_ended[number] for number in sorted(_ended)]


class Portable:
    """A cell's function. Where it is unpickled, it first makes that process ready for the cell.

    A fresh process has another command line and no guards, and on a cluster another folder to work
    in. All that Hydra does there, it does after the function has come.
    """

    def __init__(self, function: Callable[[DictConfig], Any]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, config: DictConfig) -> Any:
        return self._function(config)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _arrive, (os.getcwd(), sys.argv[1:], self._function)


def _arrive(folder: str, words: Sequence[str], function: Callable[[DictConfig], Any]) -> Portable:
    """Makes this process like the one that the sweep was started in, but for its signals.

    Those are the launcher's: submitit's requeue a job, Ray's and joblib's end a worker. Ended at
    any moment, a cell loses nothing that the store held.
    """
    os.chdir(folder)  # paths in settings are relative to it
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    if cores:  # not every Slurm keeps a job to its own; joblib and Ray set this themselves
        os.environ.setdefault("OMP_NUM_THREADS", cores)
    sys.argv[1:] = words
    guard_tracebacks()
    prepare()
    return Portable(function)

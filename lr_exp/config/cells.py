"""Cells of a sweep in other processes: what travels to them, and how their outcomes come back.

Hydra's launchers run cells one after another in this process, or pickle them for other processes on
this machine, in a queue or on a cluster.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from omegaconf import DictConfig

from lr_exp.config.composition import register
from lr_exp.config.start import prepare
from lr_exp.errors import guard_tracebacks


@dataclass(frozen=True)
class Outcome:
    """How a cell ended; the return value of its task function.

    Hydra's sweeper discards return values, and a network file system may show files late. So an
    outcome adds itself to its sweep's `Outcomes` wherever it is unpickled.
    """

    sweep: str  # the key of its `Outcomes`
    number: int  # in the sweep, from 1
    cell: str  # the name of its folder
    error: str | None  # one line; None: it finished
    remote: bool = False  # the cell ran in another process

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _receive, (self.sweep, self.number, self.cell, self.error)


class Outcomes:
    """The outcomes of one sweep, from this process and from others."""

    def __init__(self) -> None:
        self._key = uuid4().hex
        self._by_number: dict[int, Outcome] = {}
        _open[self._key] = self

    def add(self, number: int, cell: str, error: str | None, *, remote: bool = False) -> Outcome:
        """Records how a cell ended; a second outcome of the same number replaces the first."""
        outcome = Outcome(self._key, number, cell, error, remote)
        self._by_number[number] = outcome
        return outcome

    def all(self) -> list[Outcome]:
        """Every outcome so far, in the sweep's order."""
        return [self._by_number[number] for number in sorted(self._by_number)]


# Unpickling calls a module's function with plain data: this is its only way to the live object.
_open: WeakValueDictionary[str, Outcomes] = WeakValueDictionary()


def _receive(sweep: str, number: int, cell: str, error: str | None) -> Outcome:
    if sweep in _open:
        return _open[sweep].add(number, cell, error, remote=True)
    return Outcome(sweep, number, cell, error, remote=True)


class Portable:
    """A cell's task function, which prepares the process that it is unpickled in.

    A new process has no guards and, on a cluster, another working directory. Hydra reads nothing
    there before it has unpickled the function.
    """

    def __init__(self, function: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
        """Args:
        function: runs the cell; must be picklable.
        arguments: the sweep's command line.
        """
        self._function = function
        self._arguments = list(arguments)
        update_wrapper(self, function)

    def __call__(self, config: DictConfig) -> Any:
        return self._function(config)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _arrive, (os.getcwd(), self._arguments, self._function)


def _arrive(
    folder: str, arguments: Sequence[str], function: Callable[[DictConfig], Any]
) -> Portable:
    """Sets this process up like the one that started the sweep, except for signal handlers.

    Those stay the launcher's: submitit's requeue a job, Ray's and joblib's end a worker.
    """
    os.chdir(folder)  # paths in settings are relative to it
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    if cores:  # not every Slurm binds a job to its cores; joblib and Ray set this themselves
        os.environ.setdefault("OMP_NUM_THREADS", cores)
    guard_tracebacks()
    prepare()
    register(arguments)
    return Portable(function, arguments)

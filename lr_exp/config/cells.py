"""Cells of a sweep: setting up the processes that run them, and collecting their outcomes.

Hydra's launchers run cells one after another in this process, or pickle them for other processes on
this machine, in a queue or on a cluster.
"""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from omegaconf import DictConfig

from lr_exp import distributed, progress
from lr_exp.config.composition import register
from lr_exp.errors import guard_logging, guard_tracebacks


def prepare() -> None:
    """Prepares this process; called once in every process that runs a cell."""
    guard_logging()
    progress.choose(None if distributed.is_rank0() else progress.NONE)
    handler = logging.StreamHandler()
    if not distributed.is_rank0():
        handler.setLevel(logging.CRITICAL)  # rank 0 logs for all
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    logging.captureWarnings(True)  # written above a progress bar, not into it
    logging.getLogger("lr_exp").setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # The files in conf/hydra/launcher have the names of the plugins' schemas on purpose.
    warnings.filterwarnings("ignore", r"(?s).*hydra/launcher/.* validated against ConfigStore")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not progress.on_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries
    # Threads that spin at barriers slow a shared machine down tenfold; waiting costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Hydra then raises errors instead of printing them, possibly with secrets, and exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"


@dataclass(frozen=True)
class Outcome:
    """How a cell ended; the return value of its task function.

    Hydra's sweeper discards return values, and a network file system may show files late. So
    unpickling an outcome in the sweep's process adds it to that sweep's `Outcomes`.
    """

    sweep: str  # the key of its `Outcomes`
    number: int  # in the sweep, from 1
    cell: str  # the name of its folder
    error: str | None  # one line; None: it finished
    remote: bool = False  # the cell ran in another process

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpickle_outcome, (self.sweep, self.number, self.cell, self.error)


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


# Unpickling can only call a function of the module, which finds the live `Outcomes` here.
_open: WeakValueDictionary[str, Outcomes] = WeakValueDictionary()


def _unpickle_outcome(sweep: str, number: int, cell: str, error: str | None) -> Outcome:
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
        return _unpickle_in_worker, (os.getcwd(), self._arguments, self._function)


def _unpickle_in_worker(
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

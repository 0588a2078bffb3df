"""Cells of a sweep: setting up the processes that run them, and collecting their outcomes.

Launchers run cells in this process, or pickle them for others here, in a queue or on a cluster.
"""

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lr_exp import distributed, progress
from lr_exp.config.composition import register
from lr_exp.errors import guard_logging, guard_output, guard_tracebacks

# Libraries that log every font, lock and request; hydra.verbose=NAME still shows one of them.
_CHATTY = ("filelock", "fsspec", "httpcore", "httpcore2", "httpx", "httpx2", "matplotlib")


def prepare() -> None:
    """Prepares this process; called once in every process that runs a cell."""
    guard_logging()
    guard_output()
    progress.choose(None if distributed.is_rank0() else progress.NONE)
    handler = logging.StreamHandler()
    handler.addFilter(_is_new)
    if not distributed.is_rank0():
        handler.setLevel(logging.CRITICAL)  # rank 0 logs for all
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    logging.captureWarnings(True)  # written above a progress bar, not into it
    logging.getLogger("lr_exp").setLevel(logging.INFO)
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
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


_warned: set[str] = set()  # texts of this process's warnings


def _is_new(record: logging.LogRecord) -> bool:
    """Whether a log record is no repeated warning, such as each cell's about the same pair."""
    if record.levelno != logging.WARNING:
        return True
    try:
        text = record.getMessage()
    except Exception:  # the handler reports a malformed record
        return True
    is_new = text not in _warned
    _warned.add(text)
    return is_new


@dataclass(frozen=True)
class Outcome:
    """How a cell ended; the return value of its task function.

    Unpickling it in the sweep's process records it there: Hydra's sweeper discards return values.
    """

    number: int  # in the sweep, from 1
    folder: Path  # in the sweep's
    overrides: tuple[str, ...]
    error: str | None  # one line; None: it finished
    results: dict[str, str] = field(default_factory=dict)  # by column of the sweep's table

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return record, tuple(vars(self).values())


outcomes: dict[int, Outcome] = {}  # of this process's sweep, by number


def record(number: int, *rest: Any) -> Outcome:
    """Records how a cell ended; a second outcome of the same number replaces the first."""
    outcomes[number] = Outcome(number, *rest)
    return outcomes[number]


def labels() -> list[str]:
    """What distinguishes each cell: the overrides that not all cells have."""
    ordered = [outcome.overrides for _, outcome in sorted(outcomes.items())]
    shared = set.intersection(*map(set, ordered))
    return [", ".join(word for word in own if word not in shared) for own in ordered]


class Portable:
    """A picklable task function, which prepares the process that it is unpickled in.

    A new process has no guards and, on a cluster, another working directory.
    """

    def __init__(self, function: Callable[[DictConfig], Any]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, config: DictConfig) -> Any:
        return self._function(config)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpickle_in_worker, (os.getcwd(), self._function)


def _unpickle_in_worker(folder: str, function: Callable[[DictConfig], Any]) -> Portable:
    """Sets this process up like the one that started the sweep, except for signal handlers.

    Those stay the launcher's: submitit's requeue a job, Ray's and joblib's end a worker.
    """
    os.chdir(folder)  # paths in settings are relative to it
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    if cores:  # not every Slurm binds a job to its cores; joblib and Ray set this themselves
        os.environ.setdefault("OMP_NUM_THREADS", cores)
    guard_tracebacks()
    prepare()
    register()
    return Portable(function)

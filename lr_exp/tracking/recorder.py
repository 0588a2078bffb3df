"""A W&B run on disk, written by a thread of its own, so that no call of the run waits for W&B.

Knows W&B's run; leaves sending to the uploader.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking.families import AXES, CURVES, SUMMARIES, axis_of
from lr_exp.tracking.login import logged_in
from lr_exp.tracking.uploader import Uploader

log = logging.getLogger(__name__)

# Seconds for W&B's own process to write what is queued. It needs less than one; more than this
# means that it hangs, and what it wrote so far is all that it will.
LOCAL_SECONDS = 20.0

_STOPPED = f"W&B stopped taking metrics (%s); they go on in {METRICS}"


@dataclass(frozen=True)
class Cell:
    """How W&B identifies a run."""

    id: str | None = None  # None: W&B chooses one
    name: str | None = None
    job_type: str | None = None


class Recorder:
    """Takes calls for a W&B run and makes them in order, in the background.

    The first call that fails turns W&B off for the rest of the run; the run in W&B's folder is
    still ended in order.
    """

    def __init__(
        self,
        wandb: Any,
        mode: str | None,
        folder: Path,
        settings: WandbSettings,
        config: dict[str, Any],
        cell: Cell,
    ) -> None:
        """Starts recording.

        Args:
            wandb: the module.
            mode: `online`, `offline` or None for online where there is a login.
            folder: the run's; W&B makes its own below.
            settings: names and tags.
            config: shown with the run.
            cell: which run it is.
        """
        self.failed = False
        self._wandb = wandb
        self._mode = mode
        self._folder = folder
        self._settings = settings
        self._config = config
        self._cell = cell
        self._exit_code = 0
        self._uploader: Uploader | None = None
        self._calls: queue.SimpleQueue[Callable[[Any], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb-recorder", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[Any], object]) -> None:
        """Has the call made with the W&B run; returns at once."""
        if not self.failed:
            self._calls.put(call)

    def close(self, failed: bool, seconds: float) -> None:
        """Ends the run in W&B's folder and gives the sending some time to end, too.

        Args:
            failed: whether the run ended in an error.
            seconds: how long the run took, of which the sending may take a small part.
        """
        self._exit_code = 1 if failed else 0
        self._calls.put(None)
        self._thread.join(LOCAL_SECONDS)
        if self._thread.is_alive():
            self._fail("W&B's own process hangs and is ended; all numbers are in %s", METRICS)
            self._kill_wandb_core()
            self._thread.join(1.0)
        if self._uploader is not None:
            self._uploader.finish(seconds)

    def _kill_wandb_core(self) -> None:
        """Ends W&B's process, and its wait for that process at the interpreter's exit."""
        import psutil

        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # gone by itself
                if child.name().startswith("wandb-core"):
                    child.kill()
        ending = threading.Thread(target=self._tear_down, daemon=True)
        ending.start()
        ending.join(2.0)

    def _tear_down(self) -> None:
        # It finds the process gone: an error, or an exit with that process's status.
        with contextlib.suppress(Exception, SystemExit):
            self._wandb.teardown()

    def _work(self) -> None:
        try:
            run = self._start()
        except Exception as error:  # permissions, versions, a full disk alike
            self._fail("W&B could not be started (%s)", error)
            return
        while (call := self._calls.get()) is not None:
            self._try(call, run)
        try:
            run.finish(exit_code=self._exit_code)
        except Exception as error:
            self._fail(_STOPPED, error)

    def _try(self, call: Callable[[Any], object], run: Any) -> None:
        if self.failed:
            return
        try:
            call(run)
        except Exception as error:  # a sink must not fail the run
            self._fail(_STOPPED, error)

    def _fail(self, what: str, *details: object) -> None:
        """Turns W&B off; only the first reason is said, others follow from it."""
        if not self.failed:
            log.warning(what, *details)
        self.failed = True

    def _start(self) -> Any:
        # Offline for the whole process, not for the run alone: otherwise W&B counts its own calls
        # and tells the service so when the interpreter exits, which hangs if the service does.
        session = self._wandb.setup(self._wandb.Settings(mode="offline", silent=True))
        base_url = session.settings.base_url
        online = self._mode == "online" or (self._mode is None and logged_in(base_url))
        if self._mode == "online" and not logged_in(base_url):
            log.warning(
                "wandb.mode=online, but there is no login (`wandb login`): going on offline"
            )
            online = False
        # One run per cell: the id is the cell's own, and it is not resumed. Resuming appends to
        # what the service has of an earlier try. But each try's record is whole from its first step
        # on, since what was done before is logged again; sent as a new run of the same id, its
        # lines are written from the service's first one on and so take the places of the earlier
        # try's. There is never a second run, nor a point twice. `never` counts for this record only
        # (offline nobody asks whether the run is there); it is given since WANDB_RESUME of a user's
        # shell would be written into the record and obeyed when that is sent. (A run that was
        # deleted on the service keeps its id blocked: `wandb beta sync --id` sends the record under
        # another.)
        run = self._wandb.init(
            mode="offline",
            id=self._cell.id,
            resume="never",
            job_type=self._cell.job_type,
            project=self._settings.project,
            entity=self._settings.entity,
            group=self._settings.group,
            name=self._settings.name or self._cell.name,
            tags=list(self._settings.tags),
            dir=str(self._folder),
            config=self._config,
            reinit="finish_previous",  # the cells of a multirun share a process
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        _define_metrics(run)
        if online:
            self._uploader = Uploader(Path(run.settings.sync_file), base_url)
        return run


def _define_metrics(run: Any) -> None:
    """Over what each metric is drawn, and what of it stands in the table of runs."""
    for axis in (*AXES.values(), *CURVES.values()):
        run.define_metric(axis, hidden=True, summary="none")
    for family, axis in AXES.items():
        run.define_metric(f"{family}/*", step_metric=axis)
    for name, summary in SUMMARIES.items():
        axis = CURVES.get(name) or axis_of(name)
        run.define_metric(name, step_metric=axis, summary=summary)

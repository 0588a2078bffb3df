"""Records a run in a W&B folder on disk. A background thread makes all calls to W&B."""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.errors import map_strings, printable
from lr_exp.store import Artifact
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking.metric_names import CURVES, STEP_AXES, SUMMARIES, step_axis
from lr_exp.tracking.sink import Cell, Sink
from lr_exp.tracking.wandb_artifacts import artifact_name, record_artifact
from lr_exp.tracking.wandb_login import logged_in
from lr_exp.tracking.wandb_uploader import Uploader

log = logging.getLogger(__name__)

# How long wandb-core may take to write what is queued. It normally needs less than a second; after
# this long it hangs.
FLUSH_TIMEOUT_SECONDS = 20.0

_FAILED = f"W&B logging failed (%s) and is now off; {METRICS} still gets all metrics"


def start_wandb(
    folder: Path, settings: WandbSettings, config: dict[str, Any], cell: Cell
) -> "WandbSink | None":
    """Starts a W&B run; None if W&B is disabled, not installed or cannot be imported."""
    mode = os.environ.get("WANDB_MODE") if settings.mode == "auto" else settings.mode
    if mode == "disabled":
        return None
    try:
        import wandb
    except ImportError:
        if settings.mode != "auto":
            log.warning(
                "wandb.mode=%s, but wandb is not installed: pip install wandb", settings.mode
            )
        return None
    except Exception as error:  # a broken installation can raise anything
        log.warning("W&B cannot be imported (%s)", error)
        return None
    return WandbSink(wandb, mode, folder, settings, config, cell)


class WandbSink(Sink):
    """Queues calls for a W&B run; no method waits for W&B.

    The first call that fails turns the sink off; the run in W&B's folder is still finished.
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
            mode: `online`, `offline`, or None for online if there is a login.
            folder: the run's folder; W&B creates its own inside.
            settings: project, names and tags.
            config: shown with the run.
            cell: identifies the run.
        """
        self._failed = False
        self._wandb = wandb
        self._mode = mode
        self._folder = folder
        self._settings = settings
        self._config = config
        self._cell = cell
        self._exit_code = 0
        self._began = time.monotonic()
        self._uploader: Uploader | None = None
        self._calls: queue.SimpleQueue[Callable[[Any], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb-sink", daemon=True)
        self._thread.start()

    @property
    def records_media(self) -> bool:
        return not self._failed

    # Values are copied before they are queued, since the caller may change them.

    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None:
        values = {f"{family}/{name}": value for name, value in metrics.items() if value is not None}
        self._send(lambda run: run.log({step_axis(family): step, **values}))

    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None:
        rows = [{axis: x, name: y} for x, y in points]
        self._send(lambda run: [run.log(row) for row in rows])

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float]) -> None:
        import numpy as np

        bins = (np.array(counts), np.array(edges))
        self._send(lambda run: run.log({name: self._wandb.Histogram(np_histogram=bins)}))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        head = list(columns)
        # Models and users wrote the texts: escape what a terminal would interpret.
        body = [[map_strings(value, printable) for value in row] for row in rows]
        self._send(lambda run: run.log({name: self._wandb.Table(columns=head, data=body)}))

    def summarize(self, values: Mapping[str, Any]) -> None:
        headlines = dict(values)
        self._send(lambda run: run.summary.update(headlines))

    def artifact(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None:
        if not self._settings.artifacts:
            return
        made_earlier = self._cell.id is not None and artifact.made_by == self._cell.id

        def record(run: Any) -> None:
            try:
                record_artifact(run, artifact, not artifact.reused or made_earlier, metadata)
            except Exception as error:  # costs this artifact only: a missing file, a changed API
                name = artifact_name(artifact)
                log.warning("W&B: %s was not recorded as an artifact (%s)", name, error)

        self._send(record)

    def close(self, failed: bool) -> None:
        """Finishes the run on disk, then waits a limited time for the upload."""
        seconds = time.monotonic() - self._began
        self._exit_code = 1 if failed else 0
        self._calls.put(None)
        self._thread.join(FLUSH_TIMEOUT_SECONDS)
        if self._thread.is_alive():
            self._fail("W&B: wandb-core hangs and was killed; %s has all metrics", METRICS)
            self._kill_wandb_core()
            self._thread.join(1.0)
        if self._uploader is not None:
            self._uploader.finish(seconds)

    def _send(self, call: Callable[[Any], object]) -> None:
        if not self._failed:
            self._calls.put(call)

    def _kill_wandb_core(self) -> None:
        """Kills wandb-core, so that wandb's exit hook does not wait for it."""
        import psutil

        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # already gone
                if child.name().startswith("wandb-core"):
                    child.kill()
        teardown = threading.Thread(target=self._tear_down, daemon=True)
        teardown.start()
        teardown.join(2.0)

    def _tear_down(self) -> None:
        # Without wandb-core it raises, or exits with wandb-core's status.
        with contextlib.suppress(Exception, SystemExit):
            self._wandb.teardown()

    def _work(self) -> None:
        try:
            run = self._start()
        except Exception as error:  # permissions, versions, a full disk
            self._fail("W&B could not be started (%s)", error)
            return
        while (call := self._calls.get()) is not None:
            if not self._failed:
                self._try(call, run)
        self._try(lambda run: run.finish(exit_code=self._exit_code), run)

    def _try(self, call: Callable[[Any], object], run: Any) -> None:
        try:
            call(run)
        except Exception as error:  # tracking must not fail the run
            self._fail(_FAILED, error)

    def _fail(self, message: str, *details: object) -> None:
        """Turns the sink off and logs the first failure; later ones follow from it."""
        if not self._failed:
            log.warning(message, *details)
        self._failed = True

    def _start(self) -> Any:
        # Offline for the whole process: otherwise W&B reports its own usage to the service at
        # interpreter exit, which hangs if the service does.
        session = self._wandb.setup(self._wandb.Settings(mode="offline", silent=True))
        base_url = session.settings.base_url
        online = self._mode == "online" or (self._mode is None and logged_in(base_url))
        if self._mode == "online" and not logged_in(base_url):
            log.warning(
                "wandb.mode=online, but there is no login (`wandb login`): recording offline"
            )
            online = False
        # The run's id is the cell's, so an experiment that is repeated or continued updates the
        # same W&B run. It is not resumed: resuming appends, but each attempt logs all its metrics
        # from the first step on. Uploaded as a new run with the same id, they overwrite those of
        # the earlier attempt from the first line on. `resume` is set explicitly because a user's
        # WANDB_RESUME would be written into the record and applied at upload. (W&B never accepts
        # the id of a deleted run again; `wandb beta sync --id` uploads the record under another.)
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
            reinit="finish_previous",  # the runs of a multirun share a process
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        _define_metrics(run)
        if online:
            self._uploader = Uploader(Path(run.settings.sync_file), base_url)
        return run


def _define_metrics(run: Any) -> None:
    """Sets the x axis of each metric and its value in the run table."""
    for axis in (*STEP_AXES.values(), *CURVES.values()):
        run.define_metric(axis, hidden=True, summary="none")
    for family, axis in STEP_AXES.items():
        run.define_metric(f"{family}/*", step_metric=axis)
    for name, summary in SUMMARIES.items():
        axis = CURVES.get(name) or step_axis(name)
        run.define_metric(name, step_metric=axis, summary=summary)

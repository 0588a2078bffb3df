"""Records a run with W&B, online if possible and otherwise offline.

A background thread makes all calls to W&B, so that no stage waits for the service.
"""

import json
import logging
import operator
import os
import queue
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from lr_exp.config.settings import WandbSettings
from lr_exp.errors import first_line, map_strings, printable
from lr_exp.store import MANIFEST, Artifact
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking.metric_names import CURVES, STEP_AXES, SUMMARIES, step_axis

log = logging.getLogger(__name__)

INIT_TIMEOUT_SECONDS = 10.0  # then the run is recorded offline
FINISH_TIMEOUT_SECONDS = 20.0  # for what is not uploaded yet at the end of the run
LOCAL_TIMEOUT_SECONDS = 3.0  # for writing the record to disk, and for stopping the service

DEFAULT_PROJECT = "lr_exp"

# Stage -> W&B artifact type; others are datasets. Rollouts and scores are not recorded: too large.
_ARTIFACT_TYPES = {"adapter": "model", "grades": "answers", "lm_eval": "answers"}
_SKIPPED_FOLDERS = ("snapshots",)  # copies of the adapter during training
# Of a table; called in the background, where an error costs the tracking only.
Rows = Callable[[], Sequence[Sequence[Any]]]
_REDUCE = {"min": min, "max": max, "last": operator.itemgetter(-1)}


@dataclass(frozen=True)
class RunIdentity:
    id: str
    name: str
    job_type: str


class Sink:
    """Records nothing: for runs without W&B, and as the base of `WandbSink`."""

    records_texts = False  # of questions and answers, and weights

    # Metrics that are not finite are passed as None; the points of a curve are (x, y).
    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None: ...
    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Rows) -> None: ...
    def summarize(self, values: Mapping[str, Any]) -> None: ...
    def artifact(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None: ...
    def close(self, failed: bool) -> None: ...


def start_wandb(
    folder: Path, settings: WandbSettings, config: dict[str, Any], identity: RunIdentity
) -> Sink:
    """Starts a W&B run; nothing is recorded if W&B is disabled or cannot be imported."""
    mode = settings.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or mode
    if mode == "disabled":
        return Sink()
    # W&B sends reports about itself when the process exits. If the service hangs, so does the exit.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except Exception as error:  # not installed, or a broken installation, which can raise anything
        if settings.mode != "auto" or not isinstance(error, ImportError):
            log.warning("W&B cannot be imported (%s): pip install wandb", error)
        return Sink()
    options = {
        "id": identity.id,
        "job_type": identity.job_type,
        "project": settings.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
        "entity": settings.entity,  # None, here and below: the variable WANDB_... if it is set
        "group": settings.group,
        "name": settings.name or os.environ.get("WANDB_NAME") or identity.name,
        "tags": list(settings.tags) or None,
        "notes": settings.notes,
        "dir": str(Path(os.environ.get("WANDB_DIR") or folder).resolve()),
        "config": config,
        "reinit": "finish_previous",  # the runs of a multirun share a process
    }
    return WandbSink(wandb, mode, options, settings.artifacts)


class WandbSink(Sink):
    """Queues calls for a W&B run; only `close` waits for W&B. A failed call turns the sink off."""

    def __init__(self, wandb: Any, mode: str, options: dict[str, Any], records_texts: bool) -> None:
        """Starts a run with these options of `wandb.init`; `auto` is online if there is a login."""
        self._wandb, self._mode, self._options = wandb, mode, options
        self.records_texts = records_texts
        self._began = time.monotonic()
        self._run_folder: str | None = None  # of W&B, quoted for a shell
        self._offline_reason: str | None = None  # why a run that should be online is not
        self._failed = self._offline = self._timed_out = False
        self._exit_code = self._rows = 0
        self._values: dict[str, list[float]] = {}  # of the metrics in `SUMMARIES`
        self._inputs: list[Any] = []  # artifacts of other runs
        # W&B stages tables there until they are uploaded; its default is in the home folder.
        self._sets_data_dir = "WANDB_DATA_DIR" not in os.environ
        if self._sets_data_dir:
            os.environ["WANDB_DATA_DIR"] = str(Path(options["dir"]) / "wandb")
        self._calls: queue.SimpleQueue[Callable[[Any], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb-sink", daemon=True)
        self._thread.start()

    # Values are copied before they are queued, since the caller may change them.

    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None:
        values = {f"{family}/{name}": value for name, value in metrics.items() if value is not None}
        for name in values.keys() & SUMMARIES.keys():
            self._values.setdefault(name, []).append(values[name])
        self._call(lambda run: self._add_row(run, {step_axis(family): step, **values}))

    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None:
        rows = [{axis: x, name: y} for x, y in points]
        self._call(lambda run: [self._add_row(run, row) for row in rows])

    def table(self, name: str, columns: Sequence[str], rows: Rows) -> None:
        def add(run: Any) -> None:
            # Models and users wrote the texts: escape what a terminal would interpret.
            data = [[map_strings(value, printable) for value in row] for row in rows()]
            self._add_row(run, {name: self._wandb.Table(columns=list(columns), data=data)})

        self._call(add)

    def summarize(self, values: Mapping[str, Any]) -> None:
        headlines = dict(values)
        self._call(lambda run: run.summary.update(headlines))

    def artifact(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None:
        if self.records_texts:
            self._call(lambda run: self._add_artifact(run, artifact, metadata))

    def close(self, failed: bool) -> None:
        """Finishes the W&B run within a limited time and logs how to upload what is missing."""
        self._call(self._correct_summary)
        self._exit_code = 1 if failed else 0
        self._calls.put(None)
        limit = FINISH_TIMEOUT_SECONDS + LOCAL_TIMEOUT_SECONDS
        if self._run_folder is None:
            limit += max(0.0, self._began + INIT_TIMEOUT_SECONDS - time.monotonic())
        self._thread.join(limit)
        if self._sets_data_dir:
            os.environ.pop("WANDB_DATA_DIR", None)
        timed_out = self._timed_out or self._thread.is_alive()
        is_reported = self._failed
        if timed_out or is_reported:
            self._failed = True  # no further message
            self._stop_service()
        if timed_out and is_reported:
            return
        if timed_out and (self._offline or self._run_folder is None):
            log.warning("W&B did not respond in time; %s has all metrics", METRICS)
        elif timed_out:
            log.warning(
                "W&B: the upload did not finish in time. Repeat the command to upload the rest, "
                "or run `wandb sync --include-online %s`",
                self._run_folder,
            )
        elif self._run_folder and self._offline:
            level = logging.WARNING if self._offline_reason else logging.INFO
            because = f", because {self._offline_reason}" if self._offline_reason else ""
            message = "W&B: recorded offline%s. Upload: `wandb sync %s`"
            log.log(level, message, because, self._run_folder)

    def _stop_service(self) -> None:
        """Stops W&B's service process; W&B itself waits for it at exit, without a limit."""
        teardown = partial(self._try, self._wandb.teardown, "")
        thread = threading.Thread(target=teardown, name="wandb-teardown", daemon=True)
        thread.start()
        thread.join(LOCAL_TIMEOUT_SECONDS)
        for child in psutil.Process().children() if thread.is_alive() else ():
            with suppress(psutil.Error):  # it has ended
                if child.name() == "wandb-core":
                    child.kill()

    def _call(self, call: Callable[[Any], object]) -> None:
        if not self._failed:
            self._calls.put(call)

    def _add_row(self, run: Any, row: dict[str, Any]) -> None:
        """Adds a row to the run's history, unless an earlier attempt at the run has logged it."""
        if self._rows >= run.starting_step:
            run.log(row)
        self._rows += 1

    def _correct_summary(self, run: Any) -> None:
        """Sets minima and maxima, since those of W&B cover only the rows after a resumption."""
        for name, values in self._values.items() if run.resumed else ():
            kinds = SUMMARIES[name].split(",")
            run.summary.update({name: {kind: _REDUCE[kind](values) for kind in kinds}})

    def _work(self) -> None:
        run = self._try(self._start, "could not be started (%s); this run is not recorded there")
        if run is None:
            return
        self._run_folder = shlex.quote(str(Path(run.dir).parent))
        failure = "logging failed (%s) and is now off"
        while (call := self._calls.get()) is not None:
            if not self._failed:
                self._try(partial(call, run), failure)
        self._try(partial(self._finish, run), failure)

    def _try(self, call: Callable[[], Any], failure: str) -> Any:
        """Calls; an error turns the sink off. Only the first is logged: others follow from it."""
        try:
            return call()
        except Exception as error:  # tracking must not fail the run
            if not self._failed:
                log.warning(f"W&B {failure}; %s has all metrics", error, METRICS)
            self._failed = True

    def _start(self) -> Any:
        """Starts the W&B run: offline if there is no login or the service does not respond."""
        wandb, online = self._wandb, self._mode in ("auto", "online")
        session = wandb.setup(wandb.Settings(mode="online" if online else "offline", silent=True))
        if online:
            try:
                if wandb.login(prompt=False, verify=False):
                    run = self._init("online", resume="allow")
                    log.info("W&B: %s", run.url)
                    return run
                if self._mode == "online":
                    self._offline_reason = "there is no login (`wandb login`)"
            except Exception as error:  # no network, a hanging service, an invalid key
                if self._failed:  # the program has stopped waiting
                    raise
                url = session.settings.base_url
                reason = first_line(error)
                self._offline_reason = f"the run could not be started at {url} ({reason})"
                wandb.teardown()  # releases the run's id
                wandb.setup(wandb.Settings(mode="offline", silent=True))
        # Each attempt records all rows, so `wandb sync` must not resume an earlier one.
        run = self._init("offline", resume="never")
        self._offline = True
        return run

    def _init(self, mode: str, resume: str) -> Any:
        settings = self._wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_TIMEOUT_SECONDS,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
            finish_timeout_raises=True,
        )
        options = {**self._options, "resume": resume}
        if os.environ.get("WANDB_SWEEP_ID"):  # an agent of `wandb sweep` chose the run's id
            del options["id"], options["resume"]
        run = self._wandb.init(mode=mode, settings=settings, **options)
        for axis in (*STEP_AXES.values(), *CURVES.values()):
            run.define_metric(axis, hidden=True, summary="none")
        for family, axis in STEP_AXES.items():
            run.define_metric(f"{family}/*", step_metric=axis)
        for name, summary in SUMMARIES.items():
            axis = CURVES.get(name) or step_axis(name)
            run.define_metric(name, step_metric=axis, summary=summary)
        return run

    def _add_artifact(self, run: Any, artifact: Artifact, metadata: Mapping[str, Any]) -> None:
        """Records an output, which refers to files in the store; keeps an input for the end."""
        name = f"{artifact.stage}-{artifact.address}"  # the same in every project
        folder = artifact.folder.resolve()  # `wandb sync` may run in another folder
        keys = ("version", "facts", "inputs", "settings", "seconds")
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            facts = {"stage": artifact.stage, "address": artifact.address}
            facts |= {**{key: manifest[key] for key in keys}, **metadata}
            kind = _ARTIFACT_TYPES.get(artifact.stage, "dataset")
            recorded = self._wandb.Artifact(name, type=kind, metadata=facts)
            for file in sorted(manifest["files"]):
                if Path(file).parts[0] not in _SKIPPED_FOLDERS:
                    path = str(folder / file)
                    recorded.add_file(path, name=file, policy="immutable", skip_cache=True)
            if not artifact.reused or artifact.made_by == self._options["id"]:
                run.log_artifact(recorded)
            elif not self._offline:  # W&B declares inputs online only
                self._inputs.append(recorded)
        except Exception as error:  # costs this artifact only
            log.warning("W&B: %s was not recorded as an artifact (%s)", name, error)

    def _finish(self, run: Any) -> None:
        try:
            for recorded in self._inputs:
                run.use_artifact(recorded)  # waits for the service
            run.finish(exit_code=self._exit_code)
        except TimeoutError:
            self._timed_out = True

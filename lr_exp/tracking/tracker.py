"""The sink that the program writes to: the file first, then W&B.

Knows the form of a line and of W&B's calls; knows nothing of threads, processes and networks.
"""

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.errors import map_strings, printable
from lr_exp.store import Artifact
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking import lineage
from lr_exp.tracking.families import axis_of
from lr_exp.tracking.recorder import Cell, Recorder

log = logging.getLogger(__name__)


class Tracker:
    """Writes metrics to the run's folder and to W&B. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        settings: WandbSettings,
        config: dict[str, Any],
        cell: Cell | None = None,
    ) -> None:
        """Starts both sinks.

        Args:
            folder: the run's.
            settings: whether and where W&B records.
            config: shown with the run in W&B.
            cell: which run it is in W&B; None makes a new one.
        """
        self._cell = cell or Cell()
        self._takes_artifacts = settings.artifacts
        # A folder that is used again starts anew: numbers of two runs must not mix.
        self._file = (folder / METRICS).open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._recorder = _start_wandb(folder, settings, config, self._cell)

    @property
    def has_service(self) -> bool:
        """Whether histograms and tables are recorded anywhere."""
        return self._recorder is not None and not self._recorder.failed

    def log(self, family: str, step: int, metrics: dict[str, float]) -> None:
        """Records numbers of one family at one step; a number that is not finite becomes null."""
        clean = {name: _finite(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"family": family, "step": step, **clean}) + "\n")
        self._file.flush()
        if self._recorder is None:
            return
        known = {f"{family}/{name}": value for name, value in clean.items() if value is not None}
        self._recorder.send(lambda run: run.log({axis_of(family): step, **known}))

    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None:
        """Draws a curve in W&B, its points with x first; the numbers are in `summary.json`."""
        if self._recorder is None:
            return
        pairs = list(points)

        def show(run: Any) -> None:
            for x, y in pairs:
                run.log({axis: x, name: y})

        self._recorder.send(show)

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float]) -> None:
        """Shows a histogram in W&B; the counts themselves are in `summary.json`."""
        if self._recorder is None:
            return
        height, at = list(counts), list(edges)  # the caller's may change before they are read

        def show(run: Any) -> None:
            import numpy as np
            import wandb

            bins = (np.asarray(height), np.asarray(at))
            run.log({name: wandb.Histogram(np_histogram=bins)})

        self._recorder.send(show)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Shows a table in W&B (its rows are in the run's own files).

        What a terminal would obey is spelt in its texts: models and users wrote them.
        """
        if self._recorder is None:
            return
        head: list[Any] = list(columns)  # the caller's may change before they are read
        body: list[Any] = [[map_strings(cell, printable) for cell in row] for row in rows]

        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=head, data=body)})

        self._recorder.send(show)

    def summarize(self, values: dict[str, Any]) -> None:
        """Sets the headline numbers that W&B shows in its run table."""
        if self._recorder is not None:
            known = dict(values)
            self._recorder.send(lambda run: run.summary.update(known))

    def artifact(self, artifact: Artifact, **metadata: Any) -> None:
        """Records a finished stage in W&B: as what the run made, in whichever try, or what it used.

        Reading it is W&B's work, in the background. What goes wrong costs the artifact alone.
        """
        if self._recorder is None or not self._takes_artifacts:
            return
        cell = self._cell.id
        made_here = not artifact.reused or (cell is not None and artifact.made_by == cell)

        def show(run: Any) -> None:
            try:
                lineage.record(run, artifact, made_here, metadata)
            except Exception as error:  # a file that is gone, a version of W&B that has changed
                name = lineage.name_of(artifact)
                log.warning("W&B: %s is not recorded as an artifact (%s)", name, error)

        self._recorder.send(show)

    def close(self, failed: bool = False) -> None:
        """Ends both sinks; to be called once, also after an error."""
        self._file.close()
        if self._recorder is not None:
            self._recorder.close(failed, seconds=time.monotonic() - self._began)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)


def _start_wandb(
    folder: Path, settings: WandbSettings, config: dict[str, Any], cell: Cell
) -> Recorder | None:
    """A W&B run, or None where it is not wanted, not installed or cannot be imported."""
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
    except Exception as error:  # an installation can be broken in any way
        log.warning("W&B cannot be imported (%s)", error)
        return None
    return Recorder(wandb, mode, folder, settings, config, cell)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""The tracker that the pipeline logs to, and the sink that writes `metrics.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.store import Artifact
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking.sink import Cell, Sink
from lr_exp.tracking.wandb_sink import start_wandb


class JsonlSink(Sink):
    """Writes metrics to a JSON Lines file, one line per call.

    Overwrites an existing file, so that the metrics of two runs never mix.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None:
        self._file.write(json.dumps({"family": family, "step": step, **metrics}) + "\n")
        self._file.flush()  # a killed run keeps its metrics

    def close(self, failed: bool) -> None:
        self._file.close()


class Tracker:
    """Passes every call to all sinks. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        settings: WandbSettings,
        config: dict[str, Any],
        cell: Cell | None = None,
    ) -> None:
        """Opens the sinks.

        Args:
            folder: the run's folder; exists.
            settings: whether and where W&B records.
            config: the run's configuration, shown in W&B.
            cell: identifies the run in W&B; None starts a new run.
        """
        self._sinks: list[Sink] = [JsonlSink(folder / METRICS)]
        if wandb_sink := start_wandb(folder, settings, config, cell or Cell()):
            self._sinks.append(wandb_sink)

    @property
    def records_media(self) -> bool:
        """Whether any sink records curves, histograms and tables."""
        return any(sink.records_media for sink in self._sinks)

    def log(self, family: str, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of one family at one step. NaN and infinity become null."""
        finite = {name: x if math.isfinite(x) else None for name, x in metrics.items()}
        for sink in self._sinks:
            sink.log(family, step, finite)

    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None:
        """Logs a curve of (x, y) points, with x named `axis`."""
        for sink in self._sinks:
            sink.curve(name, axis, points)

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float]) -> None:
        """Logs a histogram; `edges` has one element more than `counts`."""
        for sink in self._sinks:
            sink.histogram(name, counts, edges)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for sink in self._sinks:
            sink.table(name, columns, rows)

    def summarize(self, values: dict[str, Any]) -> None:
        """Sets the run's headline numbers."""
        for sink in self._sinks:
            sink.summarize(values)

    def artifact(self, artifact: Artifact, **metadata: Any) -> None:
        """Records a finished stage: an output if this run made it, an input if another run did."""
        for sink in self._sinks:
            sink.artifact(artifact, metadata)

    def close(self, failed: bool = False) -> None:
        """Closes all sinks. Call once, after an error too."""
        for sink in self._sinks:
            sink.close(failed)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(failed=kind is not None)

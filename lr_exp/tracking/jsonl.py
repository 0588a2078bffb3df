"""Writes metrics to a JSON Lines file, one line per call."""

import json
from collections.abc import Mapping
from pathlib import Path

from lr_exp.tracking.sink import Sink


class JsonlSink(Sink):
    """Overwrites an existing file, so that the metrics of two runs never mix."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None:
        self._file.write(json.dumps({"family": family, "step": step, **metrics}) + "\n")
        self._file.flush()  # a killed run keeps its metrics

    def close(self, failed: bool) -> None:
        self._file.close()

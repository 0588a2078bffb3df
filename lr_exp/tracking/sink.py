"""What a tracking service can record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lr_exp.store import Artifact


@dataclass(frozen=True)
class RunIdentity:
    """Identifies a run in a tracking service."""

    id: str
    name: str
    job_type: str


class Sink:
    """Records nothing: for runs without a tracking service, and as the base of `WandbSink`."""

    # Metrics that are not finite are passed as None; the points of a curve are (x, y).
    def log(self, family: str, step: int, metrics: Mapping[str, float | None]) -> None: ...
    def curve(self, name: str, axis: str, points: Sequence[tuple[float, float]]) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def summarize(self, values: Mapping[str, Any]) -> None: ...
    def artifact(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None: ...
    def close(self, failed: bool) -> None: ...

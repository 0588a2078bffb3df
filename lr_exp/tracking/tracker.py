"""The tracker that the pipeline logs to."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.store import Artifact
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking.wandb_sink import RunIdentity, start_wandb


class Tracker:
    """Writes metrics to `metrics.jsonl` and to W&B. Use as a context manager.

    `wandb` also records curves, tables and headlines; without W&B it does nothing.
    """

    def __init__(
        self, folder: Path, settings: WandbSettings, config: dict[str, Any], identity: RunIdentity
    ) -> None:
        """Overwrites the file in the run's `folder`; W&B shows the run's `config`."""
        self._file = (folder / METRICS).open("w", encoding="utf-8")
        self.wandb = start_wandb(folder, settings, config, identity)

    def log(self, family: str, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of one family at one step. NaN and infinity become null."""
        finite = {name: x if math.isfinite(x) else None for name, x in metrics.items()}
        self._file.write(json.dumps({"family": family, "step": step, **finite}) + "\n")
        self._file.flush()  # a killed run keeps its metrics
        self.wandb.log(family, step, finite)

    def artifact(self, artifact: Artifact, **metadata: Any) -> None:
        """Records a finished stage: an output if this run made it, an input if another run did."""
        self.wandb.artifact(artifact, metadata)

    def close(self, failed: bool = False) -> None:
        """Call once, after an error too."""
        self._file.close()
        self.wandb.close(failed)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(failed=kind is not None)

"""The sink that the program writes to: the file first, then W&B.

Knows the form of a line and of a W&B call; knows nothing of threads, processes and networks.
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

from lr_exp.settings import WandbSettings
from lr_exp.tracking.recorder import Recorder

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Tracker:
    """Writes metrics to the run's folder and to W&B. Use as a context manager."""

    def __init__(self, folder: Path, settings: WandbSettings, config: dict[str, Any]) -> None:
        # A folder that is used again starts anew: numbers of two runs must not mix.
        self._file = (folder / METRICS).open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._recorder = _start_wandb(folder, settings, config)

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
        axis = f"{family.partition('/')[0]}/step"  # of eval/gsm8k: eval/step
        self._recorder.send(lambda run: run.log({axis: step, **known}))

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
        """Shows a table in W&B (its rows are in the run's own files)."""
        if self._recorder is None:
            return
        head: list[Any] = list(columns)  # the caller's may change before they are read
        body: list[Any] = [list(row) for row in rows]

        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=head, data=body)})

        self._recorder.send(show)

    def summarize(self, values: dict[str, Any]) -> None:
        """Sets the headline numbers that W&B shows in its run table."""
        if self._recorder is not None:
            known = dict(values)
            self._recorder.send(lambda run: run.summary.update(known))

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


def _start_wandb(folder: Path, settings: WandbSettings, config: dict[str, Any]) -> Recorder | None:
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
    return Recorder(wandb, mode, folder, settings, config)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Where a run's numbers go: `metrics.jsonl` always, Weights & Biases where it can be had.

Knows names and numbers; knows nothing of what they mean. A service that is away never fails a run:
the first error turns W&B off for the rest of it, the file goes on.
"""

import json
import logging
import math
import netrc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from lr_exp.settings import WandbSettings

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

# Metrics come in families `<family>/<metric>`; each is drawn over its own counter.
_AXES = {"distill/*": "distill/step", "sample/*": "sample/step", "eval/*": "eval/step"}


class Tracker:
    """Writes metrics to the run's folder and to W&B. Use as a context manager."""

    def __init__(self, folder: Path, settings: WandbSettings, config: dict[str, Any]) -> None:
        # A folder that is used again starts anew: numbers of two runs must not mix.
        self._file = (folder / METRICS).open("w", encoding="utf-8")
        self._run = _start_wandb(folder, settings, config)

    @property
    def has_service(self) -> bool:
        """Whether histograms and tables are shown anywhere."""
        return self._run is not None

    def log(self, family: str, step: int, metrics: dict[str, float]) -> None:
        """Records numbers of one family at one step; a number that is not finite becomes null."""
        clean = {name: _finite(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"family": family, "step": step, **clean}) + "\n")
        self._file.flush()
        known = {f"{family}/{name}": value for name, value in clean.items() if value is not None}
        axis = f"{family.partition('/')[0]}/step"  # of eval/gsm8k: eval/step
        self._send(lambda run: run.log({axis: step, **known}))

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float]) -> None:
        """Shows a histogram in W&B; the counts themselves are in `summary.json`."""

        def show(run: Any) -> None:
            import numpy as np
            import wandb

            bins = (np.asarray(counts), np.asarray(edges))
            run.log({name: wandb.Histogram(np_histogram=bins)})

        self._send(show)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Shows a table in W&B (its rows are in the run's own files)."""

        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=list(columns), data=[list(r) for r in rows])})

        self._send(show)

    def summarize(self, values: dict[str, Any]) -> None:
        """Sets the headline numbers that W&B shows in its run table."""
        self._send(lambda run: run.summary.update(values))

    def close(self, failed: bool = False) -> None:
        """Ends both sinks; to be called once, also after an error."""
        self._file.close()
        self._send(lambda run: run.finish(exit_code=1 if failed else 0))
        self._run = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def _send(self, act: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            act(self._run)
        except Exception as error:  # a sink must not fail the run
            log.warning("W&B stopped taking metrics (%s); they go on in %s", error, METRICS)
            self._run = None


def _start_wandb(folder: Path, settings: WandbSettings, config: dict[str, Any]) -> Any:
    """A W&B run, or None where it is not wanted, not installed or cannot be started."""
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
    if mode == "online" and not _logged_in():
        log.warning("wandb.mode=online, but there is no login (`wandb login`): going on offline")
        mode = "offline"
    if mode is None:
        mode = "online" if _logged_in() else "offline"
    for attempt in dict.fromkeys((mode, "offline")):  # away? then for later `wandb sync`
        try:
            return _init(wandb, attempt, folder, settings, config)
        except Exception as error:  # network, permission and version errors alike
            log.warning("W&B could not be started %s (%s)", attempt, error)
    return None


def _init(
    wandb: Any, mode: str, folder: Path, settings: WandbSettings, config: dict[str, Any]
) -> Any:
    run = wandb.init(
        mode=mode,
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        name=settings.name,
        tags=list(settings.tags),
        dir=str(folder),
        config=config,
        reinit="finish_previous",  # the cells of a multirun share a process
        settings=wandb.Settings(silent=True, console="off", init_timeout=20),
    )
    for metrics, axis in _AXES.items():
        run.define_metric(axis, hidden=True)
        run.define_metric(metrics, step_metric=axis)
    return run


def _logged_in() -> bool:
    """Whether a key is at hand. Read where W&B keeps it: its own functions ask for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, ValueError, RuntimeError, netrc.NetrcParseError):
        return False  # no such file, not text, no home, not in its format


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

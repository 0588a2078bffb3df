"""Records a small micro-world run with W&B offline and reads the record with wandb's own reader."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from lr_exp.api import compose
from lr_exp.config.composition import conf_dir
from lr_exp.config.settings import Settings
from lr_exp.pipeline.run import run

SMALL = (
    "experiment=demo",
    "data.count=16",
    "sampler.batch_size=16",
    "distiller.steps=8",
    "distiller.batch_size=8",
    "distiller.learning_rate=5e-3",
    "distiller.log_every=2",
    "distiller.checkpoint_seconds=0",
    "benchmarks=[micro_add,micro_plain]",
    "evaluator.max_examples=12",
    "evaluator.batch_size=12",
    "evaluator.gap=greedy",
    "device=cpu",
    "dtype=float32",
    "wandb.mode=offline",
)


def settings_for(store: Path, *overrides: str, sweep: str = "a_sweep") -> Settings:
    words = (*SMALL, f"store={store}", f"wandb.group={sweep}", *overrides)  # as the program's
    return replace(compose(*words), sweep=sweep)


def go(folder: Path, store: Path, *overrides: str) -> dict[str, Any]:
    return run(settings_for(store, *overrides), folder, [conf_dir()]).to_dict()


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hides the W&B login, server and folders of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(place / "netrc"))
        for name in ("CACHE_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", str(place / name.lower()))
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
        yield


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.wandb` file."""
    from wandb.util import get_core_path

    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    result = subprocess.run(  # noqa: S603 - wandb's own program
        [*command, "--run-file", str(path), str(path.parent.parent)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


class Record:
    """The content of one `.wandb` file."""

    def __init__(self, folder: Path) -> None:
        """Reads the newest record in a run's folder."""
        path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)
        self.rows = read_rows(path)
        self.files = path.parent / "files"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [row[kind] for row in self.rows if row["type"] == kind]

    @cached_property
    def run(self) -> dict[str, Any]:
        (row,) = self.of("run")
        return row

    @property
    def config(self) -> dict[str, Any]:
        return self.run["config"]["update"]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        return [row["item"] for row in self.of("history")]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The final summary; nested objects are flattened, with keys joined by dots."""
        flat: dict[str, Any] = {}
        for row in self.of("summary"):
            for name, value in row.get("update", {}).items():
                inner = value if isinstance(value, dict) else None
                flat |= {f"{name}.{k}": v for k, v in inner.items()} if inner else {name: value}
        return flat

    def curve(self, name: str, axis: str) -> list[tuple[float, float]]:
        return [(row[axis], row[name]) for row in self.history if name in row]

    def in_history(self, name: str) -> set[str]:
        """The types of a metric in the history: `number`, `histogram`, `table-file`."""
        return {kind for row in self.history if (kind := _kind(row, name))}

    def in_summary(self, name: str) -> str | None:
        return _kind(self.summary, name)

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Finished stages by name, without the artifacts that W&B makes of tables."""
        rows = self.of("artifact")
        return {row["name"]: row for row in rows if row["type"] != "run_table"}


def _kind(row: dict[str, Any], name: str) -> str | None:
    if isinstance(row.get(name), int | float):
        return "number"
    return row.get(f"{name}._type")

"""Runs that failed or have not finished: their settings, as far as known, and what they left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import map_strings, printable
from lr_exp.report.read.json_file import is_number, read_json, reason_of
from lr_exp.store.run_folder import ANSWERS, FAILED, METRICS, TRAJECTORIES

_NAMES = ("expert", "amateur", "method", "data", "sweep")
_NUMBERS = ("alpha", "beta", "seed")
_MAX_YAML_BYTES = 2**20


@dataclass(frozen=True)
class _Incomplete:
    """A run without a usable summary."""

    name: str  # the folder, relative to the one that is reported
    folder: Path
    expert: str | None = None
    amateur: str | None = None
    method: str | None = None
    data: str | None = None
    alpha: float | None = None
    beta: float | None = None
    seed: int | None = None
    sweep: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def existing_files(self) -> tuple[str, ...]:
        """The files in the run's folder that a page can show."""
        shown = (METRICS, TRAJECTORIES, ANSWERS)
        return tuple(name for name in shown if (self.folder / name).exists())

    def override(self, key: str) -> str | None:
        """The value of `key` on the command line; None if it was not set there."""
        return dict(word.split("=", 1) for word in self.overrides if "=" in word).get(key)


@dataclass(frozen=True)
class Failed(_Incomplete):
    """A run that ended in an error, or whose files cannot be read."""

    error: str = ""
    is_damaged: bool = False  # its summary.json or failed.json cannot be read

    @property
    def outcome(self) -> str:
        return "damaged" if self.is_damaged else "failed"

    @property
    def decoder(self) -> str:
        return self.override("evaluator.decoder") or "greedy"


@dataclass(frozen=True)
class Unfinished(_Incomplete):
    """A run without summary or error: still running, or killed."""

    @property
    def has(self) -> str:
        """`has metrics.jsonl, answers`."""
        return f"has {', '.join(self.existing_files) or 'no results'}"


def has_started(folder: Path, files: list[str]) -> bool:
    """Whether a run started in a folder that has neither a summary nor an error."""
    return METRICS in files or TRAJECTORIES in files or "expert" in _hydra_settings(folder)


def read_unfinished(folder: Path, name: str) -> Unfinished:
    return Unfinished(name, folder, **_hydra_settings(folder))


def damaged(folder: Path, name: str, reason: str) -> Failed:
    """A run whose summary cannot be used."""
    return Failed(name, folder, error=reason, is_damaged=True, **_hydra_settings(folder))


def read_failed(folder: Path, name: str) -> Failed:
    """A run with a `failed.json`; if that cannot be read, the reason becomes the error."""
    try:
        record = read_json(folder / FAILED)
        error = " ".join(str(record["error"]).split())
    except (OSError, ValueError, KeyError, TypeError) as reason:
        error = f"failed, and its {FAILED} cannot be read ({reason_of(reason)})"
        return damaged(folder, name, error)
    settings = _valid(record)
    if "expert" not in record:  # the run's settings are not valid
        settings = _hydra_settings(folder) | settings
    return Failed(name, folder, error=error, **settings)


def _hydra_settings(folder: Path) -> dict[str, Any]:
    """The settings that Hydra saved before the run started; empty if they cannot be read."""
    record: dict[str, Any] = {"overrides": _read_yaml(folder / ".hydra" / "overrides.yaml")}
    config = _read_yaml(folder / ".hydra" / "config.yaml")
    if isinstance(config, dict):
        for key in (*_NAMES, *_NUMBERS):
            value = config.get(key)
            record[key] = value.get("name") if isinstance(value, dict) else value
    return _valid(record)


def _read_yaml(path: Path) -> Any:
    """The content of a file, or None. YAML values may contain themselves: do not recurse."""
    import yaml

    try:
        if path.is_file() and path.stat().st_size <= _MAX_YAML_BYTES:
            return yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        pass
    return None


def _valid(record: dict[str, Any]) -> dict[str, Any]:
    """The known keys whose values have the right type, with control characters escaped."""
    valid: dict[str, Any] = {
        key: record[key] for key in _NAMES if isinstance(record.get(key), str) and record[key]
    }
    valid |= {key: record[key] for key in _NUMBERS if is_number(record.get(key))}
    overrides = record.get("overrides")
    if isinstance(overrides, list):
        valid["overrides"] = [word for word in overrides if isinstance(word, str)]
    valid = map_strings(valid, printable)
    return {**valid, "overrides": tuple(valid.get("overrides", ()))}

"""Runs that failed or have not finished: their settings, as far as known, and what they left."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from lr_exp.errors import map_strings, printable
from lr_exp.report.read.json_file import is_number, read_json, reason_of
from lr_exp.report.read.run import Run
from lr_exp.report.read.summary import EvaluateSummary, Summary
from lr_exp.store.run_folder import ANSWERS, FAILED, METRICS, TRAJECTORIES

_NAMES = ("expert", "amateur", "method", "data", "prompt", "sweep")
_NUMBERS = ("alpha", "beta", "seed")
_UNKNOWN: dict[str, Any] = {**dict.fromkeys((*_NAMES, *_NUMBERS)), "settings": {}}
_MAX_YAML_BYTES = 2**20


class _Incomplete(Run):
    """A run without a usable summary: `known` is what other files record of it."""

    def __init__(self, folder: Path, name: str, known: dict[str, Any]) -> None:
        self.overrides: tuple[str, ...] = tuple(known.get("overrides", ()))
        parts = {"evaluate": EvaluateSummary(decoder=self.override("evaluator.decoder"))}
        super().__init__(folder, name, Summary.model_construct(None, **_UNKNOWN | parts | known))

    @property
    def existing_files(self) -> tuple[str, ...]:
        """The files in the run's folder that a page can show."""
        shown = (METRICS, TRAJECTORIES, ANSWERS)
        return tuple(name for name in shown if (self.folder / name).exists())

    def override(self, key: str) -> str | None:
        """The value of `key` on the command line; None if it was not set there."""
        return dict(word.split("=", 1) for word in self.overrides if "=" in word).get(key)


class Failed(_Incomplete):
    """A run that ended in an error, or whose summary.json or failed.json cannot be read."""

    def __init__(
        self, folder: Path, name: str, known: dict[str, Any], error: str, *, is_damaged: bool
    ) -> None:
        super().__init__(folder, name, known)
        self.error = error
        self.is_damaged = is_damaged
        self.outcome = "damaged" if is_damaged else "failed"


class Unfinished(_Incomplete):
    """A run without summary or error: still running, or killed."""

    outcome = "unfinished"

    @property
    def has(self) -> str:
        """`has metrics.jsonl, answers`."""
        return f"has {', '.join(self.existing_files) or 'no results'}"


def has_started(folder: Path, files: list[str]) -> bool:
    """Whether a run started in a folder that has neither a summary nor an error."""
    return METRICS in files or TRAJECTORIES in files or "expert" in _saved_settings(folder)


def read_unfinished(folder: Path, name: str) -> Unfinished:
    return Unfinished(folder, name, _saved_settings(folder))


def damaged(folder: Path, name: str, error: str) -> Failed:
    """A run whose summary cannot be used."""
    return Failed(folder, name, _saved_settings(folder), error, is_damaged=True)


def read_failed(folder: Path, name: str) -> Failed:
    """A run with a `failed.json`; if that cannot be read, the reason becomes the error."""
    try:
        record = read_json(folder / FAILED)
        error = " ".join(str(record["error"]).split())
    except (OSError, ValueError, KeyError, TypeError) as reason:
        error = f"failed, and its {FAILED} cannot be read ({reason_of(reason)})"
        return damaged(folder, name, error)
    known = _valid(record)
    if "expert" not in record:  # the run's settings are not valid
        known = _saved_settings(folder) | known
    return Failed(folder, name, known, error, is_damaged=False)


def _saved_settings(folder: Path) -> dict[str, Any]:
    """The settings that Hydra saved before the run started, or else those of its trajectories."""
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = _valid(read_json(folder / TRAJECTORIES))
    config = _read_yaml(folder / ".hydra" / "config.yaml")
    if isinstance(config, dict):
        values = {key: config.get(key) for key in (*_NAMES, *_NUMBERS)}
        record |= _valid(
            {key: v.get("name") if isinstance(v, dict) else v for key, v in values.items()}
        )
    return record | _valid({"overrides": _read_yaml(folder / ".hydra" / "overrides.yaml")})


def _read_yaml(path: Path) -> Any:
    """The content of a file, or None. YAML values may contain themselves: do not recurse."""
    import yaml

    with suppress(OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        if path.is_file() and path.stat().st_size <= _MAX_YAML_BYTES:
            return yaml.safe_load(path.read_bytes())
    return None


def _valid(record: Any) -> dict[str, Any]:
    """The known keys whose values have the right type, with control characters escaped."""
    if not isinstance(record, dict):
        return {}
    valid: dict[str, Any] = {
        key: record[key] for key in _NAMES if isinstance(record.get(key), str) and record[key]
    }
    valid |= {key: record[key] for key in _NUMBERS if is_number(record.get(key))}
    overrides = record.get("overrides")
    if isinstance(overrides, list):
        valid["overrides"] = [word for word in overrides if isinstance(word, str)]
    return map_strings(valid, printable)

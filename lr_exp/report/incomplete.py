"""Runs that ended in an error, or have not ended: what they were to be, and what they left.

Knows a run's folder; knows nothing of tables. Whatever stands there is told or left out: nothing in
such a folder keeps a report from being made.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import map_strings, printable
from lr_exp.report import shape
from lr_exp.store.run_folder import ANSWERS, FAILED, METRICS, TRAJECTORIES

_HYDRA = ".hydra"
_CONFIG = "config.yaml"  # the composed settings
_OVERRIDES = "overrides.yaml"
_WORDS = ("expert", "amateur", "method", "data", "sweep")
_NUMBERS = ("alpha", "beta", "seed")
_LARGEST = 64 * 2**20  # bytes; a summary has some thousand


@dataclass(frozen=True)
class _Cell:
    """A run without a usable summary: its folder, and what it was to be, as far as it is known."""

    name: str  # the folder, relative to the one that was asked for
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
    def left(self) -> tuple[str, ...]:
        """Which of the files that a page can show are there."""
        shown = (METRICS, TRAJECTORIES, ANSWERS)
        return tuple(name for name in shown if (self.folder / name).exists())

    @property
    def has(self) -> str:
        """`has metrics.jsonl, answers`, for a list of such runs."""
        return f"has {', '.join(self.left) or 'no results'}"


@dataclass(frozen=True)
class Failed(_Cell):
    """A cell that ended in an error, or whose summary cannot be used, and why."""

    error: str = ""
    is_damaged: bool = False  # its summary or its record of the failure cannot be read


@dataclass(frozen=True)
class Unfinished(_Cell):
    """A run that has left neither a summary nor an error: it goes on, or was ended."""


def is_begun(folder: Path, files: list[str]) -> bool:
    """Whether a run began in a folder that has neither a summary nor an error."""
    return METRICS in files or TRAJECTORIES in files or "expert" in _asked(folder)


def read_unfinished(folder: Path, name: str) -> Unfinished:
    return Unfinished(name, folder, **_asked(folder))


def damaged(folder: Path, name: str, reason: str) -> Failed:
    """A run whose summary cannot be used."""
    return Failed(name, folder, error=reason, is_damaged=True, **_asked(folder))


def read_failed(folder: Path, name: str) -> Failed:
    """A record of a failure that cannot be read is itself told as the failure."""
    try:
        told = read_json(folder / FAILED)
        error = " ".join(str(told["error"]).split())
    except (OSError, ValueError, KeyError, TypeError) as reason:
        why = f"failed, and its {FAILED} cannot be read ({reason_of(reason)})"
        return Failed(name, folder, error=why, is_damaged=True, **_asked(folder))
    return Failed(name, folder, error=error, **_choices(told))


def read_json(path: Path) -> Any:
    """What a file holds, if it can be written to a report, too: half of a surrogate pair cannot.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no JSON, or nothing that a report can show; the message says why.
    """
    if not path.is_file():
        raise OSError("it is no plain file, or a link to nothing")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST // 2**20} MiB")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"), parse_int=_whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8: byte {error.start} is not") from error
    except RecursionError as error:
        raise ValueError("its objects lie too deep in one another") from error
    if shape.is_too_deep(value):
        raise ValueError("its objects lie too deep in one another")
    json.dumps(value, ensure_ascii=False).encode()
    return map_strings(value, printable)  # names reach figures and the terminal


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in one line without its place."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):
        told = f"it lacks {error}"
    elif isinstance(error, TypeError):
        told = "it holds no JSON object"
    return " ".join(told.split())


def _whole(digits: str) -> int:
    if len(digits) > 400:  # a float has 309 digits at most
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def _asked(folder: Path) -> dict[str, Any]:
    """What Hydra wrote down before the run began; nothing where that cannot be read."""
    found: dict[str, Any] = {"overrides": _read_yaml(folder / _HYDRA / _OVERRIDES)}
    config = _read_yaml(folder / _HYDRA / _CONFIG)
    if isinstance(config, dict):
        groups = {key: config.get(key) for key in ("expert", "amateur", "method", "data")}
        found |= {key: config.get(key) for key in ("sweep", *_NUMBERS)}
        found |= {
            key: group.get("name") for key, group in groups.items() if isinstance(group, dict)
        }
    asked = map_strings(_choices(found), printable)
    return {**asked, "overrides": tuple(asked.get("overrides", ()))}


def _read_yaml(path: Path) -> Any:
    """What a file holds, whose values are not to be walked through: they may hold themselves."""
    import yaml

    try:
        if path.is_file() and path.stat().st_size <= _LARGEST // 64:
            return yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        pass
    return None


def _choices(told: dict[str, Any]) -> dict[str, Any]:
    """Those of the known choices that are what they should be."""
    found: dict[str, Any] = {
        key: told[key] for key in _WORDS if isinstance(told.get(key), str) and told[key]
    }
    found |= {key: told[key] for key in _NUMBERS if shape.is_number(told.get(key))}
    overrides = told.get("overrides")
    if isinstance(overrides, list):
        found["overrides"] = tuple(one for one in overrides if isinstance(one, str))
    return found

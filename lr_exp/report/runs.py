"""Finds the runs below a folder and reads what they left.

Knows the files of a run's folder (`summary.json`, `failed.json`, `metrics.jsonl`, `answers/`);
knows nothing of tables. Imports no torch: reports are made where the models are not.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError
from lr_exp.hygiene import each_text, printable
from lr_exp.report import shape

SUMMARY = "summary.json"
FAILED = "failed.json"
METRICS = "metrics.jsonl"
WHO = ("expert", "tuned")

_NOT_RUNS = {"store", "report", "wandb", ".hydra"}  # folders that hold no run of their own
_NEEDED = ("method", "expert", "amateur", "alpha", "beta", "seed", "settings")


class AnswersMissingError(Exception):
    """A run's graded answers cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its `summary.json`."""

    folder: Path
    name: str  # the folder, relative to the one that was asked for
    summary: dict[str, Any]

    @property
    def expert(self) -> str:
        return self.summary["expert"]

    @property
    def amateur(self) -> str | None:
        return self.summary["amateur"]

    @property
    def method(self) -> str | None:
        return self.summary["method"]

    @property
    def data(self) -> str | None:
        return self.summary.get("data")

    @property
    def seed(self) -> int:
        return self.summary["seed"]

    @property
    def sweep(self) -> str | None:
        return self.summary.get("sweep")

    @property
    def stopped(self) -> str | None:
        """Why nothing was trained, where that is so."""
        return None if self.results("tuned") else self.summary.get("stopped")

    @property
    def outcome(self) -> str:
        """Whose results are the method's: `tuned`, or the expert that it left as it was."""
        return "expert" if self.stopped else "tuned"

    @property
    def decoder(self) -> str:
        return self.part("evaluate").get("decoder") or "greedy"

    def number(self, key: str) -> float | None:
        """Alpha or beta, as far as the run read it."""
        value = self.summary[key]
        return None if value is None else float(value)

    def part(self, name: str) -> dict[str, Any]:
        """What a stage left, or nothing."""
        return self.summary.get(name) or {}

    def provenance(self, key: str) -> Any:
        return self.part("provenance").get(key)

    def results(self, who: str) -> dict[str, dict[str, Any]]:
        """Accuracy (in [0, 1]), correct, total and stderr by benchmark, of `expert` or `tuned`."""
        return self.part("evaluate").get(who) or {}

    @property
    def benchmarks(self) -> list[str]:
        """What was evaluated, in the order of the settings."""
        asked = self.summary["settings"].get("benchmarks") or []
        return list(dict.fromkeys([*asked, *self.results("expert"), *self.results("tuned")]))

    def answers(self, who: str, benchmark: str) -> dict[str, float]:
        """Each question's correctness, in [0, 1], by its id.

        Raises:
            AnswersMissingError: there is no such file, or it is not of this result.
        """
        path = self.folder / "answers" / who / f"{benchmark}.jsonl"
        if path.name != f"{benchmark}.jsonl" or benchmark.startswith("."):
            raise AnswersMissingError(f"{benchmark!r} is no name of a file of answers")
        name = f"{self.name}/answers/{who}/{benchmark}.jsonl"
        graded: dict[str, list[bool]] = {}
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    answer = json.loads(line)
                    graded.setdefault(str(answer["id"]), []).append(bool(answer["correct"]))
        except FileNotFoundError as error:
            raise AnswersMissingError(
                f"{name} is missing, or is a link into a store that is not there"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnswersMissingError(f"{name} cannot be read") from error
        result = self.results(who)[benchmark]
        told = (result["correct"], result["total"])
        found = (sum(map(sum, graded.values())), sum(map(len, graded.values())))
        if found != told:
            raise AnswersMissingError(
                f"{name} has {found[0]} of {found[1]} right, {SUMMARY} {told[0]} of {told[1]}"
            )
        return {key: sum(values) / len(values) for key, values in graded.items()}

    def training(self) -> list[dict[str, Any]]:
        """The logged metrics of the tuning, by step; nothing where there is no such file."""
        found = []
        try:
            with (self.folder / METRICS).open(encoding="utf-8") as lines:
                for line in lines:
                    entry = json.loads(line)
                    if _is_training(entry):
                        found.append(entry)
        except (OSError, ValueError, RecursionError):  # a curve is drawn from what can be read
            return found
        return found


@dataclass(frozen=True)
class Failed:
    """A cell that ended in an error: what it was to be, as far as it is known, and why."""

    name: str
    error: str
    expert: str | None = None
    amateur: str | None = None
    method: str | None = None
    data: str | None = None
    alpha: float | None = None
    beta: float | None = None
    seed: int | None = None
    sweep: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """All that lies below a folder."""

    runs: list[Run]
    failed: list[Failed]
    unfinished: list[str]  # folders with metrics but neither a summary nor an error
    notes: list[str]


def find_runs(folder: Path) -> Found:
    """Every run below `folder`, in the order of their folders' names.

    Raises:
        UserError: there is no such folder, no finished run in it, or a summary cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run or of a sweep.")
    found = Found([], [], [], [])
    for place, files in _folders(folder):
        name = str(place.relative_to(folder)) if place != folder else folder.resolve().name
        counts = _which_counts(place, files)
        if counts == SUMMARY:
            found.runs.append(_read_run(place, name))
        elif counts == FAILED:
            found.failed.append(_read_failed(place / FAILED, name))
        elif METRICS in files:
            found.unfinished.append(name)
        if SUMMARY in files and FAILED in files:
            found.notes.append(f"{name} holds {SUMMARY} and {FAILED}: {counts}, the newer, counts.")
    if not found.runs:
        raise UserError(_nothing_finished(folder, found))
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_RUNS)
        yield Path(place), files


def _which_counts(folder: Path, files: list[str]) -> str | None:
    """What ended the folder's last run; a run removes the other file, so both are an accident."""
    ends = [name for name in (SUMMARY, FAILED) if name in files]
    return max(ends, key=lambda name: (folder / name).lstat().st_mtime_ns, default=None)


def _read_run(folder: Path, name: str) -> Run:
    path = folder / SUMMARY
    again = "Run the same command again: it rewrites the file."
    try:
        summary = _read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}). {again}") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path} is not a run's summary: it holds no JSON object. {again}")
    missing = [key for key in _NEEDED if key not in summary]
    if missing:
        raise UserError(f"{path} is not a run's summary: it lacks {', '.join(missing)}. {again}")
    wrong = shape.first_wrong(summary)
    if wrong:
        raise UserError(f"{path} is not a run's summary: {wrong}. {again}")
    run = Run(folder, name, summary)
    for who in WHO:
        for benchmark, result in run.results(who).items():
            if not shape.is_result(result):
                raise UserError(
                    f"{path}: the result of {who} on {benchmark} lacks its accuracy or its counts. "
                    f"{again}"
                )
    return run


def _read_json(path: Path) -> Any:
    """What a file holds, if it can be written to a report, too: half of a surrogate pair cannot."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if shape.is_too_deep(value):
        raise ValueError("its objects lie too deep in one another")
    json.dumps(value, ensure_ascii=False).encode()
    return each_text(value, printable)  # names reach figures and the terminal


def _is_training(entry: Any) -> bool:
    """Whether a line of the metrics is of the tuning, and its numbers can be drawn."""
    if not isinstance(entry, dict) or entry.get("family") != "distill":
        return False
    step, entropy = entry.get("step"), entry.get("entropy")
    return shape.is_number(step) and (entropy is None or shape.is_number(entropy))


def _read_failed(path: Path, name: str) -> Failed:
    """A record of a failure that cannot be read is itself told as the failure."""
    try:
        told = _read_json(path)
        error = " ".join(str(told["error"]).split())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Failed(name, f"failed, and its {FAILED} cannot be read")
    words = {
        key: told[key]
        for key in ("expert", "amateur", "method", "data", "sweep")
        if isinstance(told.get(key), str)
    }
    numbers = {
        key: told[key] for key in ("alpha", "beta", "seed") if shape.is_number(told.get(key))
    }
    overrides = told.get("overrides")
    overrides = tuple(map(str, overrides)) if isinstance(overrides, list) else ()
    return Failed(name, error, **words, **numbers, overrides=overrides)


def _nothing_finished(folder: Path, found: Found) -> str:
    if not found.failed and not found.unfinished:
        return f"{folder} holds no run: no {SUMMARY} lies in it or below it."
    failed, unfinished = len(found.failed), len(found.unfinished)
    told = f"{folder} holds no finished run: {failed} failed, {unfinished} unfinished"
    if found.failed:
        first = found.failed[0]
        told += f"; the first failure, {first.name}: {first.error.rstrip('.')}"
    return f"{told}."

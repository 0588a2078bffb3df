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
from lr_exp.report import shape
from lr_exp.report.incomplete import (
    Failed,
    Unfinished,
    damaged,
    is_begun,
    read_failed,
    read_json,
    read_unfinished,
    reason_of,
)
from lr_exp.store.run_folder import ANSWERS, FAILED, METRICS, SUMMARY

WHO = ("expert", "tuned")
_RECORDS = "lr_samples"  # the form of data that is no questions

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
    def warnings(self) -> list[str]:
        """What the run had to say about an odd pair of models."""
        told = self.summary.get("warnings")
        return [one for one in told if isinstance(one, str)] if isinstance(told, list) else []

    @property
    def is_imported(self) -> bool:
        """Whether what it learned from is records that were made elsewhere."""
        data = self.summary["settings"].get("data")
        return isinstance(data, dict) and data.get("format") == _RECORDS

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

    def answers_file(self, who: str, benchmark: str) -> Path:
        """Where the graded answers of `expert` or `tuned` are, if they are there."""
        return self.folder / ANSWERS / who / f"{benchmark}.jsonl"

    def answers(self, who: str, benchmark: str) -> dict[str, float]:
        """Each question's correctness, in [0, 1], by its id.

        Raises:
            AnswersMissingError: there is no such file, or it is not of this result.
        """
        path = self.answers_file(who, benchmark)
        if path.name != f"{benchmark}.jsonl" or benchmark.startswith("."):
            raise AnswersMissingError(f"{benchmark!r} is no name of a file of answers")
        name = f"{self.name}/{ANSWERS}/{who}/{benchmark}.jsonl"
        graded: dict[str, list[bool]] = {}
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise OSError
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
        if not (self.folder / METRICS).is_file():
            return found
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
class Found:
    """All that lies below a folder."""

    runs: list[Run]
    failed: list[Failed]
    unfinished: list[Unfinished]
    notes: list[str]

    @property
    def told(self) -> str:
        """`6 finished, 1 failed`, and those that were damaged later, if there are any."""
        damaged = sum(one.is_damaged for one in self.failed)
        told = f"{len(self.runs):,} finished, {len(self.failed) - damaged:,} failed"
        return f"{told}, {damaged:,} damaged" if damaged else told

    @property
    def total(self) -> int:
        """How many runs there are, whatever became of them."""
        return len(self.runs) + len(self.failed) + len(self.unfinished)


def find_runs(folder: Path, *, finished: bool = True) -> Found:
    """Every run below `folder`, in the order of their folders' names.

    Args:
        folder: where to look.
        finished: whether one of them must have finished.

    Raises:
        UserError: there is no such folder, or no (finished) run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run or of a sweep.")
    found = look(folder)
    others = found.unfinished or any(map(_shows_something, found.failed))
    if not found.runs and (finished or not others):
        raise UserError(_nothing_finished(folder, found))
    return found


def look(folder: Path, *, below: bool = True) -> Found:
    """What lies in a folder, which may be nothing.

    Args:
        folder: where to look.
        below: whether to look into the folders inside it, too.
    """
    found = Found([], [], [], [])
    for place, files in _folders(folder):
        if place != folder and not below:
            break
        name = str(place.relative_to(folder)) if place != folder else folder.resolve().name
        counts = _which_counts(place, files)
        if counts == SUMMARY:
            try:
                found.runs.append(_read_run(place, name))
            except _DamagedError as reason:
                found.failed.append(damaged(place, name, str(reason)))
        elif counts == FAILED:
            found.failed.append(read_failed(place, name))
        elif is_begun(place, files):
            found.unfinished.append(read_unfinished(place, name))
        if SUMMARY in files and FAILED in files:
            found.notes.append(f"{name} holds {SUMMARY} and {FAILED}: {counts}, the newer, counts.")
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_RUNS)
        yield Path(place), files


def _which_counts(folder: Path, files: list[str]) -> str | None:
    """What ended the folder's last run; a run removes the other file, so both are an accident."""
    ends = [name for name in (SUMMARY, FAILED) if name in files]
    return max(ends, key=lambda name: (folder / name).lstat().st_mtime_ns, default=None)


class _DamagedError(Exception):
    """A summary cannot be used; the message says why, and what to do."""


def _read_run(folder: Path, name: str) -> Run:
    again = "Run the same command again: it rewrites the file."
    try:
        summary = read_json(folder / SUMMARY)
    except (OSError, ValueError) as error:
        told = f"{SUMMARY} cannot be read ({reason_of(error)}). {again}"
        raise _DamagedError(told) from error
    wrong = _wrong(summary)
    if wrong:
        raise _DamagedError(f"{SUMMARY} is not a run's summary: {wrong}. {again}")
    run = Run(folder, name, summary)
    for who in WHO:
        for benchmark, result in run.results(who).items():
            if not shape.is_result(result):
                told = f"the result of {who} on {benchmark} lacks its accuracy or its counts"
                raise _DamagedError(f"{SUMMARY} is not a run's summary: {told}. {again}")
    return run


def _wrong(summary: Any) -> str | None:
    if not isinstance(summary, dict):
        return "it holds no JSON object"
    missing = [key for key in _NEEDED if key not in summary]
    return f"it lacks {', '.join(missing)}" if missing else shape.first_wrong(summary)


def _is_training(entry: Any) -> bool:
    """Whether a line of the metrics is of the tuning, and its numbers can be drawn."""
    if not isinstance(entry, dict) or entry.get("family") != "distill":
        return False
    step, entropy = entry.get("step"), entry.get("entropy")
    return shape.is_number(step) and (entropy is None or shape.is_number(entropy))


def _shows_something(failed: Failed) -> bool:
    """A damaged summary alone is no report, but an error to mend."""
    return not failed.is_damaged or bool(failed.left)


def _nothing_finished(folder: Path, found: Found) -> str:
    if not found.failed and not found.unfinished:
        return f"{folder} holds no run: no {SUMMARY} lies in it or below it."
    damaged = sum(one.is_damaged for one in found.failed)
    told = (
        f"{folder} holds no finished run: {len(found.failed) - damaged} failed, {damaged} damaged, "
        f"{len(found.unfinished)} unfinished"
    )
    if found.failed:
        first = found.failed[0]
        error = first.error.rstrip(".")
        if error.startswith(SUMMARY):  # it names the file, and what is wrong with it
            told += f"; the first, {first.folder}/{error}"
        else:
            told += f"; the first, {first.name}: {error}"
    return f"{told}."

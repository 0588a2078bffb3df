"""Finds the runs below a folder and reads their files."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError
from lr_exp.report.read import incomplete
from lr_exp.report.read.incomplete import Failed, Unfinished
from lr_exp.report.read.json_file import is_number, read_json, read_json_lines, reason_of
from lr_exp.report.read.summary import (
    DistillSummary,
    EvaluateSummary,
    Provenance,
    RecordedSettings,
    Results,
    SampleSummary,
    Summary,
    parse_summary,
)
from lr_exp.store.run_folder import ANSWERS, FAILED, METRICS, SUMMARY

WHO = ("expert", "tuned")
_REWRITE = "Run the same command again to rewrite the answers"
_NOT_SEARCHED = {"store", "report", "wandb", ".hydra"}


class AnswersMissingError(Exception):
    """A run's graded answers cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Run:
    """A run: its folder and its `summary.json`."""

    folder: Path
    name: str  # the folder, relative to the one that is reported
    summary: Summary

    @property
    def expert(self) -> str:
        return self.summary.expert

    @property
    def amateur(self) -> str | None:
        return self.summary.amateur

    @property
    def method(self) -> str | None:
        return self.summary.method

    @property
    def data(self) -> str | None:
        return self.summary.data

    @property
    def alpha(self) -> float | None:
        return self.summary.alpha

    @property
    def beta(self) -> float | None:
        return self.summary.beta

    @property
    def seed(self) -> int:
        return self.summary.seed

    @property
    def sweep(self) -> str | None:
        return self.summary.sweep

    @property
    def settings(self) -> RecordedSettings:
        return self.summary.settings

    @property
    def provenance(self) -> Provenance:
        return self.summary.provenance or Provenance()

    @property
    def sample(self) -> SampleSummary:
        """Empty if nothing was sampled; so are `distill` and `evaluate`."""
        return self.summary.sample or SampleSummary()

    @property
    def distill(self) -> DistillSummary:
        return self.summary.distill or DistillSummary()

    @property
    def evaluate(self) -> EvaluateSummary:
        return self.summary.evaluate or EvaluateSummary()

    @property
    def stopped(self) -> str | None:
        """Why nothing was trained; None if something was."""
        return None if self.results("tuned") else self.summary.stopped

    @property
    def warnings(self) -> list[str]:
        """About the pair of models."""
        return self.summary.warnings or []

    @property
    def is_imported(self) -> bool:
        """Whether the supervision is imported records."""
        return self.settings.get("data", {}).get("format") == "lr_samples"

    @property
    def final_model(self) -> str:
        """The model whose results are reported for the method.

        `tuned`, or `expert` if nothing was trained.
        """
        return "expert" if self.stopped else "tuned"

    @property
    def decoder(self) -> str:
        return self.evaluate.decoder or "greedy"

    def results(self, who: str) -> Results:
        """Results of `expert` or `tuned` by benchmark."""
        return (self.evaluate.tuned if who == "tuned" else self.evaluate.expert) or {}

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks in the order of the settings."""
        requested = self.settings.get("benchmarks") or []
        return list(dict.fromkeys([*requested, *self.results("expert"), *self.results("tuned")]))

    def answers_file(self, who: str, benchmark: str) -> Path:
        """Path of the graded answers of `expert` or `tuned`, which may not exist."""
        return self.folder / ANSWERS / who / f"{benchmark}.jsonl"

    def answers(self, who: str, benchmark: str) -> dict[str, float]:
        """Correctness of each question, in [0, 1], by question id.

        Raises:
            AnswersMissingError: the file does not exist or does not match the summary.
        """
        path = self.answers_file(who, benchmark)
        if path.name != f"{benchmark}.jsonl" or benchmark.startswith("."):
            raise AnswersMissingError(f"{benchmark!r} is not a valid benchmark name")
        name = f"{self.name}/{ANSWERS}/{who}/{benchmark}.jsonl"
        if not path.exists():
            raise AnswersMissingError(
                f"{name} is missing or is a dangling link into a deleted store. {_REWRITE}"
            )
        graded: dict[str, list[bool]] = {}
        try:
            for answer in read_json_lines(path):
                graded.setdefault(str(answer["id"]), []).append(bool(answer["correct"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnswersMissingError(
                f"{name} cannot be read ({reason_of(error)}). {_REWRITE}"
            ) from error
        result = self.results(who)[benchmark]
        correct, total = sum(map(sum, graded.values())), sum(map(len, graded.values()))
        if (correct, total) != (result.correct, result.total):
            raise AnswersMissingError(
                f"{name} has {correct} of {total} correct answers, but {SUMMARY} has "
                f"{result.correct} of {result.total}. {_REWRITE}"
            )
        return {key: sum(values) / len(values) for key, values in graded.items()}

    def training(self) -> list[dict[str, Any]]:
        """The logged training metrics in order, up to the first line that cannot be read."""
        entries: list[dict[str, Any]] = []
        with suppress(OSError, ValueError, RecursionError):  # keeps what precedes the error
            entries.extend(filter(_is_training, read_json_lines(self.folder / METRICS)))
        return entries


@dataclass(frozen=True)
class Found:
    """All runs below a folder."""

    runs: list[Run]
    failed: list[Failed]
    unfinished: list[Unfinished]
    notes: list[str]

    @property
    def counts(self) -> str:
        """`6 finished, 1 failed`, and the number of damaged runs, if any."""
        damaged = sum(run.is_damaged for run in self.failed)
        counts = f"{len(self.runs):,} finished, {len(self.failed) - damaged:,} failed"
        return f"{counts}, {damaged:,} damaged" if damaged else counts

    @property
    def total(self) -> int:
        """Number of runs: finished, failed and unfinished."""
        return len(self.runs) + len(self.failed) + len(self.unfinished)


def find_runs(folder: Path, *, finished: bool = True) -> Found:
    """Every run below `folder`, sorted by folder name.

    Args:
        folder: where to search.
        finished: whether to require at least one finished run.

    Raises:
        UserError: the folder does not exist, or has no (finished) run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run or of a sweep.")
    found = scan_folder(folder)
    # A damaged summary alone makes no report; it is an error to fix.
    shown = found.unfinished or [
        run for run in found.failed if not run.is_damaged or run.existing_files
    ]
    if not found.runs and (finished or not shown):
        raise UserError(_no_finished_run(folder, found))
    return found


def scan_folder(folder: Path, *, recursive: bool = True) -> Found:
    """The runs in a folder, possibly none.

    Args:
        folder: where to search.
        recursive: whether to search subfolders.
    """
    found = Found([], [], [], [])
    for place, files in _folders(folder):
        if place != folder and not recursive:
            break
        name = str(place.relative_to(folder)) if place != folder else folder.resolve().name
        # A run deletes the file of its earlier outcome, so having both is an accident.
        ends = [end for end in (SUMMARY, FAILED) if end in files]
        newest = max(ends, key=lambda end: (place / end).lstat().st_mtime_ns, default=None)
        if newest == SUMMARY:
            try:
                found.runs.append(Run(place, name, parse_summary(read_json(place / SUMMARY))))
            except (OSError, ValueError) as error:
                reason = (
                    f"{SUMMARY} cannot be read ({reason_of(error)}). Run the same command again: "
                    "it rewrites the file."
                )
                found.failed.append(incomplete.damaged(place, name, reason))
        elif newest == FAILED:
            found.failed.append(incomplete.read_failed(place, name))
        elif incomplete.has_started(place, files):
            found.unfinished.append(incomplete.read_unfinished(place, name))
        if len(ends) > 1:
            found.notes.append(
                f"{name} has both {SUMMARY} and {FAILED}: the newer one, {newest}, is used."
            )
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_SEARCHED)
        yield Path(place), files


def _is_training(entry: Any) -> bool:
    """Whether a line of the metrics has training numbers that can be plotted."""
    if not isinstance(entry, dict) or entry.get("family") != "distill":
        return False
    step, entropy = entry.get("step"), entry.get("entropy")
    return is_number(step) and (entropy is None or is_number(entropy))


def _no_finished_run(folder: Path, found: Found) -> str:
    if not found.failed and not found.unfinished:
        return f"{folder} contains no run: there is no {SUMMARY} in it or below it."
    damaged = sum(run.is_damaged for run in found.failed)
    message = (
        f"{folder} contains no finished run: {len(found.failed) - damaged} failed, "
        f"{damaged} damaged, {len(found.unfinished)} unfinished"
    )
    if found.failed:
        first = found.failed[0]
        place = f"{first.folder}/" if first.error.startswith(SUMMARY) else f"{first.name}: "
        message += f"; the first, {place}{first.error.rstrip('.')}"
    return f"{message}."

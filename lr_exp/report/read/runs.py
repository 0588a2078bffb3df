"""Finds the runs below a folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, did_you_mean, printable
from lr_exp.report.read.run import Incomplete, Run, flat, read_run
from lr_exp.report.read.summary import Failure
from lr_exp.store.run_folder import SUMMARY

BUNDLE = ".bundle.zip"  # how the name of a bundle ends
ReadBundle = Callable[[Path, str], tuple[list[Run], str]]  # of a path and a name: runs and a note

_NOT_SEARCHED = {"store", "report", "wandb", ".hydra"}


@dataclass(frozen=True)
class Found:
    """All runs below a folder."""

    runs: list[Run]
    failed: list[Incomplete]
    unfinished: list[Incomplete]
    where: str = ""  # the conditions of those that are shown, such as `seed=1 and method=upft`
    bundles: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # one for each bundle that was read

    @property
    def counts(self) -> str:
        """`6 finished, 1 failed`, the number of damaged runs, if any, and the conditions."""
        if self.where:
            return f"{len(self.runs):,} finished with {self.where}"
        damaged = sum(run.outcome == "damaged" for run in self.failed)
        counts = f"{len(self.runs):,} finished, {len(self.failed) - damaged:,} failed"
        return f"{counts}, {damaged:,} damaged" if damaged else counts

    @property
    def every(self) -> list[Run]:
        return [*self.runs, *self.failed, *self.unfinished]


def find_runs(
    folder: Path,
    where: Mapping[str, Any] | None = None,
    *,
    finished: bool = True,
    read_bundle: ReadBundle | None = None,
) -> Found:
    """Every run below `folder`, sorted by folder name.

    Args:
        where: values that a run must have, of a choice (`method`) or a setting by its dotted name;
            other runs, failed and unfinished ones are left out.
        read_bundle: reads the bundles below `folder`, which may itself be one; None ignores them.
            It raises UserError for a bundle that cannot be used, which is listed as damaged.

    Raises UserError if the folder does not exist, or has no run (`finished`: no finished run).
    """
    is_bundle = read_bundle is not None and folder.name.endswith(BUNDLE) and folder.is_file()
    if not is_bundle and not folder.is_dir():
        if folder.name.endswith(BUNDLE) and folder.is_file():
            raise UserError(
                f"{folder} is a bundle, which is not compared question by question: put it into a "
                "folder with the runs, and run python -m lr_exp.report on that folder."
            )
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}: give the folder of a run or of a sweep.")
    found = Found([], [], [], bundles=[folder]) if is_bundle else scan_folder(folder)
    if read_bundle is not None:
        for path in found.bundles:
            name = printable(path.name if is_bundle else str(path.relative_to(folder)))
            try:
                runs, note = read_bundle(path, name)
            except UserError as error:
                found.failed.append(Incomplete(path, name, "damaged", Failure(error=str(error))))
            else:
                found.runs.extend(runs)
                found.notes.append(note)
    if where and found.runs:
        shown, kept = " and ".join(f"{key}={value}" for key, value in where.items()), found.runs
        for key, value in where.items():
            kept, values = _with(kept, key, value)
            if not kept:
                known = ", ".join(sorted(values))
                raise UserError(
                    f"{folder}: none of its runs has {shown}. Values of {key}: {known}."
                )
        found = Found(kept, [], [], shown, notes=found.notes)
    # A damaged summary alone makes no report; it is an error to fix.
    shown = found.unfinished or [
        run for run in found.failed if run.outcome == "failed" or run.existing_files
    ]
    if not found.runs and (finished or not shown):
        raise UserError(_no_finished_run(folder, found))
    return found


def _with(runs: Sequence[Run], key: str, wanted: Any) -> tuple[list[Run], set[str]]:
    """The runs with a value of a choice or setting, and all values that it has in `runs`."""
    choices = ("method", "expert", "amateur", "data", "prompt", "alpha", "beta", "seed", "sweep")
    values = [flat(run.settings) | {one: getattr(run, one) for one in choices} for run in runs]
    known = {name for own in values for name in own}
    if key not in known:
        raise UserError(f"--where {key}: no run has this setting.{did_you_mean(key, known)}")
    pairs = [(run, own[key]) for run, own in zip(runs, values, strict=True) if key in own]
    return [run for run, value in pairs if value == wanted], {str(value) for _, value in pairs}


def scan_folder(folder: Path, *, recursive: bool = True) -> Found:
    """The runs in a folder and, if `recursive`, in its subfolders; possibly none."""
    found, seen = Found([], [], []), {folder.resolve()}
    for root, below, files in os.walk(folder, followlinks=True):
        place = Path(root)
        # A link may lead to a folder that is found without it: real folders come first.
        folders = [place / one for one in sorted({*below} - _NOT_SEARCHED) if recursive]
        below.clear()
        for one in sorted(folders, key=Path.is_symlink):
            if (target := one.resolve()) not in seen:
                seen.add(target)
                below.append(one.name)
        below.sort()
        found.bundles.extend(place / one for one in sorted(files) if one.endswith(BUNDLE))
        name = str(place.relative_to(folder)) if place != folder else folder.resolve().name
        run = read_run(place, name, files)
        if isinstance(run, Incomplete):
            (found.unfinished if run.outcome == "unfinished" else found.failed).append(run)
        elif run is not None:
            found.runs.append(run)
    return found


def _no_finished_run(folder: Path, found: Found) -> str:
    if not found.failed and not found.unfinished:
        return f"{folder} contains no run: there is no {SUMMARY} in it or below it."
    unfinished = len(found.unfinished)
    message = f"{folder} contains no finished run: {found.counts}, {unfinished:,} unfinished"
    if found.failed:
        first = found.failed[0]
        place = f"{first.folder}/" if first.error.startswith(SUMMARY) else f"{first.name}: "
        message += f"; the first, {place}{first.error.rstrip('.')}"
    return f"{message}."

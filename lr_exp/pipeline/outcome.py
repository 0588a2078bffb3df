"""The run's folder before and after the run: locking, clearing, recording a failure, the page."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError, first_line
from lr_exp.pipeline.method import method_of
from lr_exp.store import write_atomically
from lr_exp.store.locks import locked
from lr_exp.store.run_folder import ANSWERS, FAILED, LOCK, METRICS, PAGE, SUMMARY, TRAJECTORIES

log = logging.getLogger(__name__)


def choices(settings: Settings) -> dict[str, Any]:
    """The choices that results are reported under; None where no stage reads one.

    Raises UserError: the method's choices are not valid.
    """
    method, learns = method_of(settings), settings.learns_from_questions
    contrasts = "evaluate" in settings.stages and settings.evaluator.decoder == "contrastive"
    scored = learns and method.needs_amateur and not method.needs("context")
    compared = scored or settings.evaluates_amateur
    return {
        "method": method.name if learns else None,
        # Another model than the expert of this name, in all tables.
        "expert": settings.expert.name + ("+adapter" if settings.expert.adapter else ""),
        "amateur": settings.amateur.name if compared else None,
        "data": settings.data.name,
        "prompt": Path(settings.sampler.prompt).stem if learns else None,
        "alpha": settings.alpha if (learns and method.reads("alpha")) or contrasts else None,
        "beta": settings.beta if learns and method.reads("beta") else None,
        "seed": settings.seed,
        "sweep": settings.sweep,
    }


class FolderInUseError(UserError):
    """Another run is writing to the folder, so that this one must not."""


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Creates and locks the run's folder; only rank 0 writes to it.

    Raises FolderInUseError: another run has locked it.
    """
    if not distributed.is_rank0():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, wait=False) as is_held:
        if not is_held:
            raise FolderInUseError(
                f"another run is writing to {folder}: wait until it ends, or choose another folder "
                "(hydra.run.dir=, or hydra.sweep.dir= with -m)."
            )
        yield


def clear(folder: Path) -> None:
    """Deletes an earlier run's page, records and links; renames its summary and metrics.

    `previous.*` of a run before that are replaced. Copies of artifacts, where the file system has
    no links, stay.
    """
    if (folder / SUMMARY).exists():
        for name in (SUMMARY, METRICS):
            if (folder / name).exists():
                (folder / name).replace(folder / f"previous.{name}")
    for name in (FAILED, TRAJECTORIES, PAGE):
        (folder / name).unlink(missing_ok=True)
    links = [folder / "adapter", folder / "merged", *(folder / ANSWERS).rglob("*.jsonl")]
    for link in links:
        if link.is_symlink():
            link.unlink()


def record_failure(
    error: str, settings: Settings | None, overrides: list[str], folder: Path
) -> None:
    """Writes `failed.json` (`Failure`) and the page. `error` is one line."""
    record: dict[str, Any] = {"error": error, "overrides": overrides}
    with contextlib.suppress(UserError):  # the method is not valid
        if settings:
            trains = "distill" in settings.stages
            record |= {
                **choices(settings),
                "decoder": settings.evaluator.decoder if "evaluate" in settings.stages else None,
                "learning_rate": settings.distiller.learning_rate if trains else None,
            }
    with contextlib.suppress(OSError):  # the error itself is what matters
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FAILED, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_page(folder)


def write_page(folder: Path) -> None:
    """Writes the run's page. An error in it is logged: the results are already written."""
    from lr_exp.report.page import write_run_page

    try:
        write_run_page(folder)
    except Exception as error:
        log.warning("%s was not written: %s", PAGE, first_line(error))


def link(place: Path, target: Path) -> None:
    """Links to an artifact, or copies it where the file system has no links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()  # from an earlier run in this folder
    try:
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))
    except OSError:
        if target.is_dir():
            shutil.copytree(target, place, dirs_exist_ok=True)
        else:
            shutil.copy(target, place)

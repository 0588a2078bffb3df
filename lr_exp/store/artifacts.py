"""The artifact store: finished results of stages, addressed by all that determines them.

Knows files, hashes and locks; knows nothing of models or methods. An artifact is a folder
`<store>/<stage>/<address>/`. It is built beside its place in `<address>.part/`, which survives a
crash so that a stage can go on, and is renamed only after its manifest was written; the manifest's
presence means complete. Of processes that want the same artifact, a lock lets one make it; where
locks do not reach, they may all make it, and the first one's stays. Of a run's ranks the first one
finds, locks and writes for all.
"""

import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.store.files import (
    digest,
    file_digest,
    is_disk_full,
    remove_unfinished,
    write_atomically,
)
from lr_exp.store.locks import locked

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# What reading a damaged artifact ends in. Other errors of the system (too many open files, a disk
# that does not answer) pass.
_DAMAGE = (
    *(FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
)


@dataclass(frozen=True)
class Recipe:
    """All that determines an artifact. Two equal recipes have one address.

    `version` is the stage's code version: it grows when the stage's output would change.
    `inputs` are addresses and fingerprints of what goes in, `settings` what the stage was told.
    """

    stage: str
    version: int
    inputs: dict[str, Any]
    settings: dict[str, Any]

    @property
    def address(self) -> str:
        """The first 24 hexadecimal digits of the recipe's sha256."""
        whole = [self.stage, self.version, self.inputs, self.settings]
        return digest(whole)[:24]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, and what its builder reported about it."""

    stage: str
    address: str
    folder: Path
    facts: dict[str, Any]  # the builder's own numbers, e.g. counts
    seconds: float  # what making it took, over all its interruptions
    reused: bool  # it was there before this run asked for it
    made_by: str | None = None  # the `maker` of the store that made it


class Store:
    """A folder of artifacts that several runs, also at the same time, may share."""

    def __init__(self, root: str | Path, on_use: Callable[[str], None] = lambda name: None) -> None:
        """Opens the store, making its folder.

        Args:
            root: its folder.
            on_use: called with `stage/address` of every artifact before it is found or made.

        Raises:
            UserError: the folder cannot be made.
        """
        self.root = Path(root)
        self.maker: str | None = None  # noted in what this store makes from now on
        self._on_use = on_use
        self._told_lockless = False
        if not distributed.is_rank0():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def find(self, recipe: Recipe) -> Artifact | None:
        """The finished artifact of a recipe, or None where it is not there or damaged."""
        return distributed.run_on_rank0(lambda: self._find(recipe))

    def _find(self, recipe: Recipe) -> Artifact | None:
        self._on_use(f"{recipe.stage}/{recipe.address}")
        folder = self._folder(recipe)
        if not folder.exists() or problem_of(folder, recipe.address) is not None:
            return None
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return Artifact(
            recipe.stage,
            recipe.address,
            folder,
            manifest["facts"],
            manifest["seconds"],
            reused=True,
            made_by=manifest.get("made_by"),
        )

    def make(
        self, recipe: Recipe, build: Callable[[Path], dict[str, Any]], *, together: bool = False
    ) -> Artifact:
        """The artifact of a recipe, built only if it is not there.

        Args:
            recipe: what determines the artifact.
            build: fills the folder that it is given and returns JSON-like facts. After a crash it
                is given the same folder again, with what it had finished in it.
            together: every rank of the run calls `build` with the same folder, and the first one
                alone may write to it. Otherwise the first one builds and the others wait.

        Raises:
            UserError: the store cannot be written, or its disk is full. What was finished stays.
        """
        if together:
            return distributed.run_collectively(lambda build: self._make(recipe, build), build)
        return distributed.run_on_rank0(lambda: self._make(recipe, build))

    def _make(self, recipe: Recipe, build: Callable[[Path], dict[str, Any]]) -> Artifact:
        found = self._find(recipe)  # before any lock: a store that can only be read serves, too
        if found is not None:
            return found
        folder = self._folder(recipe)
        part = folder.with_suffix(".part")
        lock = folder.with_suffix(".lock")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            lock.open("a").close()
        except OSError as error:
            raise self._unwritable(error) from error
        with locked(lock, on_wait=lambda: _say_waiting(recipe)) as alone:
            if alone is None:
                part = self._own_part(folder)
            if not folder.exists() and problem_of(part, recipe.address) is None:
                part.rename(folder)  # an earlier try was stopped just before this line
            found = self._find(recipe)  # another process may have made it meanwhile
            if found is not None:
                return found
            _set_aside(folder, problem_of(folder, recipe.address))
            try:
                return self._build(recipe, build, part, folder)
            except Exception as error:
                # What a rank's error was before all of them shared it.
                own = error.__cause__ if isinstance(error, distributed.SharedError) else error
                if own is None or isinstance(own, UserError) or not is_disk_full(own, self.root):
                    raise
                raise UserError(
                    f"the disk of the store {self.root} is full ({recipe.stage} could not be "
                    "written): free some space (see python -m lr_exp.store --help) or set "
                    "store= to another disk. What was finished is kept: the same command goes on."
                ) from error

    def _build(
        self, recipe: Recipe, build: Callable[[Path], dict[str, Any]], part: Path, folder: Path
    ) -> Artifact:
        """Makes the artifact in `part` and gives it its name; to be called under the lock."""
        part.mkdir(exist_ok=True)
        (part / MANIFEST).unlink(missing_ok=True)
        remove_unfinished(part)
        clock = _Clock(part / ".seconds")
        with clock:
            facts = json.loads(json.dumps(build(part)))  # as a later run will read them
        clock.path.unlink()
        files = {
            str(path.relative_to(part)): {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(part.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "stage": recipe.stage,
            "version": recipe.version,
            "address": recipe.address,
            "inputs": recipe.inputs,
            "settings": recipe.settings,
            "facts": facts,
            "seconds": clock.seconds,
            "made_by": self.maker,
            "files": files,
        }
        write_atomically(part / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        try:
            part.rename(folder)
        except OSError:
            # Made meanwhile by a process that the lock did not stop: on a file system without
            # locks, with locks that other hosts do not see, or that shows new folders late.
            found = self._find(recipe)
            if found is None:
                raise
            shutil.rmtree(part, ignore_errors=True)
            return found
        return Artifact(
            recipe.stage,
            recipe.address,
            folder,
            facts,
            clock.seconds,
            reused=False,
            made_by=self.maker,
        )

    def _own_part(self, folder: Path) -> Path:
        """Where this process alone builds, for want of locks; no other one goes on with it."""
        if not self._told_lockless:
            self._told_lockless = True
            log.warning(
                "the file system of the store %s has no locks: what two runs need at the same time "
                "is made twice, and what a stopped run had not finished is not gone on with (see "
                "docs/queues.md)",
                self.root,
            )
        return folder.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")

    def _folder(self, recipe: Recipe) -> Path:
        return self.root / recipe.stage / recipe.address

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"the store {self.root} cannot be written ({error.strerror}: {error.filename}): set "
            "store= to a folder that can be."
        )


class _Clock:
    """Seconds spent building, summed over interrupted tries (kept in a file beside the work).

    A try that was killed could not write its end: it counts up to the last file that it wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.seconds = float(path.read_text("utf-8"))
        except (OSError, ValueError):
            self.seconds = 0.0
        else:
            newest = max(entry.stat().st_mtime for entry in path.parent.rglob("*"))
            self.seconds += newest - path.stat().st_mtime

    def __enter__(self) -> None:
        write_atomically(self.path, str(self.seconds))
        self._start = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
        # Where the builder failed, for want of space perhaps, its own error is the one to show.
        with suppress(OSError) if kind else nullcontext():
            write_atomically(self.path, str(self.seconds))


def _set_aside(folder: Path, problem: str | None) -> None:
    """Moves a damaged artifact out of the way; to be called under its lock."""
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise UserError(
            f"{folder}: {problem}, and it cannot be set aside ({error.strerror}): set store= to a "
            "folder that can be written."
        ) from error
    log.warning("%s: %s; set aside as %s and made again", folder, problem, aside.name)


def problem_of(folder: Path, address: str) -> str | None:
    """Why a folder is not the whole artifact of this address, or None if it is.

    Raises:
        OSError: it cannot be read at the moment, which says nothing about it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if manifest["address"] != address:
            return f"its manifest is of {manifest['address']}"
        _ = manifest["facts"], manifest["seconds"]
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["sha256"]:
                return f"{name} is damaged"
    except _DAMAGE as error:
        return f"its manifest cannot be read ({error!r})"
    return None


def _say_waiting(recipe: Recipe) -> None:
    log.info("another process is making %s/%s; waiting for it", recipe.stage, recipe.address)

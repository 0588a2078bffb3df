"""The artifact store: finished stage results, addressed by a hash of what determines them.

An artifact is a folder `<store>/<stage>/<address>/`. It is built in `<address>.part/`, which
survives a crash so that the stage can resume, and renamed once its manifest is written: a manifest
means that the artifact is complete. A lock lets one process build an artifact while the others
wait. In a run of several ranks, rank 0 finds, locks and writes.
"""

import json
import logging
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.store.files import digest, file_digest, is_disk_full, write_atomically
from lr_exp.store.locks import locked

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# Writes files to the folder passed to it and returns JSON-like facts. After a crash it is called
# with the same folder and the files already in it.
Build = Callable[[Path], dict[str, Any]]

# Errors that mean a damaged artifact; others, as of a disk that does not respond, are raised.
_DAMAGE_ERRORS = (
    *(FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines an artifact. Equal recipes have the same address."""

    stage: str
    version: int  # of the stage's code; incremented when its output changes
    inputs: dict[str, Any]  # addresses and fingerprints of the inputs
    settings: dict[str, Any]  # that affect the output

    @property
    def address(self) -> str:
        """The first 24 hexadecimal digits of the recipe's sha256."""
        return digest([self.stage, self.version, self.inputs, self.settings])[:24]


@dataclass(frozen=True)
class Artifact:
    stage: str
    address: str
    folder: Path
    facts: dict[str, Any]  # returned by its builder, e.g. counts
    seconds: float  # build time, summed over interrupted attempts
    reused: bool  # it existed before this run requested it
    made_by: str | None = None  # `maker` of the store that built it


class Store:
    """A folder of artifacts. Several runs may use it at the same time."""

    def __init__(self, root: str | Path, on_use: Callable[[str], None] = lambda name: None) -> None:
        """Creates the folder; raises UserError if it cannot.

        `on_use` is called with `stage/address` of each artifact before it is looked up or built.
        """
        self.root, self._on_use = Path(root), on_use
        self.maker: str | None = None  # id of the run, which built artifacts record as `made_by`
        if not distributed.is_rank0():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def find(self, recipe: Recipe) -> Artifact | None:
        """The finished artifact of a recipe; None if it is missing or damaged."""
        return distributed.run_on_rank0(lambda: self._find(recipe))

    def _find(self, recipe: Recipe) -> Artifact | None:
        self._on_use(f"{recipe.stage}/{recipe.address}")
        folder = self._folder(recipe)
        try:
            if not folder.exists() or problem_of(folder, recipe.address) is not None:
                return None
        except PermissionError as error:
            raise UserError(
                f"{error.filename} is not readable: ask its owner to run `chmod -R a+rX "
                f"{self.root}`, or set store= to a folder of your own."
            ) from error
        return self._artifact(folder, reused=True)

    def _artifact(self, folder: Path, *, reused: bool) -> Artifact:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        values = (manifest["facts"], manifest["seconds"], reused, manifest.get("made_by"))
        return Artifact(folder.parent.name, folder.name, folder, *values)

    def make(self, recipe: Recipe, build: Build, *, together: bool = False) -> Artifact:
        """Returns the artifact of a recipe and builds it first if it is missing or damaged.

        Args:
            together: all ranks call `build` with the same folder, and only rank 0 may write to it.
                Otherwise rank 0 builds and the others wait.

        Raises UserError: the store is not readable or not writable, or its disk is full. Finished
        files are kept.
        """
        if together:
            return distributed.run_collectively(lambda build: self.make_here(recipe, build), build)
        return distributed.run_on_rank0(lambda: self.make_here(recipe, build))

    def make_here(self, recipe: Recipe, build: Build) -> Artifact:
        """As `make`, without communication: ranks that call it wait for the one that builds."""
        found = self._find(recipe)  # before locking: a read-only store must work, too
        if found is not None:
            return found
        folder = self._folder(recipe)
        part, lock = folder.with_suffix(".part"), folder.with_suffix(".lock")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise self._unwritable(error) from error
        with locked(lock, wait=True):
            if not folder.exists() and problem_of(part, recipe.address) is None:
                part.rename(folder)  # an earlier attempt was killed just before this line
            found = self._find(recipe)  # another process may have built it meanwhile
            if found is not None:
                return found
            _set_aside(folder, problem_of(folder, recipe.address))
            try:
                return self._build(recipe, build, part, folder)
            except Exception as error:
                cause = error.__cause__ if isinstance(error, distributed.SharedError) else error
                if isinstance(cause, UserError | None) or not is_disk_full(cause, self.root):
                    raise
                raise UserError(
                    f"the disk of the store {self.root} is full; {recipe.stage} was not written. "
                    "Free some space (see python -m lr_exp.store --help) or set store= to a folder "
                    "on another disk. Finished work is kept: run the same command again to resume."
                ) from error

    def _build(self, recipe: Recipe, build: Build, part: Path, folder: Path) -> Artifact:
        """Builds the artifact in `part` and renames it; the caller holds the lock."""
        part.mkdir(exist_ok=True)
        (part / MANIFEST).unlink(missing_ok=True)
        for path in part.rglob("*.tmp"):  # of killed processes
            path.unlink(missing_ok=True)
        clock, began = part / ".seconds", time.perf_counter() - _seconds_so_far(part / ".seconds")
        write_atomically(clock, str(time.perf_counter() - began))
        try:
            facts = build(part)
        finally:
            seconds = time.perf_counter() - began
            with suppress(OSError):  # the disk may be full: the build's own error matters
                write_atomically(clock, str(seconds))
        mode = stat.S_IMODE(clock.stat().st_mode)
        clock.unlink()
        files = {}
        for path in sorted(path for path in part.rglob("*") if path.is_file()):
            status = path.stat()
            # safetensors lets only the owner read weights, but others may share the store.
            if not path.is_symlink() and status.st_mode & mode != mode:
                path.chmod(mode)
            name = str(path.relative_to(part))
            files[name] = {"sha256": file_digest(path), "bytes": status.st_size}
        manifest = {**vars(recipe), "address": recipe.address, "facts": facts}
        manifest |= {"seconds": seconds, "made_by": self.maker, "files": files}
        write_atomically(part / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        try:
            part.rename(folder)
        except OSError:  # another host built it: the file system shares no locks, or shows it late
            found = self._find(recipe)
            if found is None:
                raise
            shutil.rmtree(part, ignore_errors=True)
            return found
        return self._artifact(folder, reused=False)

    def _folder(self, recipe: Recipe) -> Path:
        return self.root / recipe.stage / recipe.address

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"the store {self.root} is not writable ({error.strerror}: {error.filename}). Set "
            "store= to a writable folder."
        )


def _seconds_so_far(clock: Path) -> float:
    """Build time of interrupted attempts; of one that was killed, the time until its last write."""
    try:
        newest = max(entry.stat().st_mtime for entry in clock.parent.rglob("*"))
        return float(clock.read_text("utf-8")) + newest - clock.stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def _set_aside(folder: Path, problem: str | None) -> None:
    """Renames a damaged artifact; the caller holds its lock."""
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise UserError(
            f"{folder}: {problem}, and the folder cannot be renamed ({error.strerror}). Set store= "
            "to a writable folder."
        ) from error
    log.warning("%s: %s; renamed to %s and built again", folder, problem, aside.name)


def problem_of(folder: Path, address: str) -> str | None:
    """What is wrong with an artifact's folder; None if it is intact; raises temporary OSErrors."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if manifest["address"] != address:
            return f"the manifest belongs to {manifest['address']}"
        _ = manifest["facts"], manifest["seconds"]
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["sha256"]:
                return f"{name} is damaged"
    except _DAMAGE_ERRORS as error:
        return f"the manifest cannot be read ({error!r})"
    return None

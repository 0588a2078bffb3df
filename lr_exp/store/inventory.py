"""What is in a store: listed, verified, pruned. Knows artifacts' folders, not what made them."""

import fcntl
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.store.artifacts import MANIFEST, problem_of

REFERENCES = "artifacts.txt"  # in a run's folder: each artifact it asked for, one a line
_RESULTS = ("summary.json", "failed.json")
_ADDRESS = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Entry:
    """One artifact's folder, whole or not."""

    stage: str
    address: str
    folder: Path
    state: str  # finished | unfinished (a run was stopped) | set aside (it was damaged)
    bytes: int
    modified: datetime

    @property
    def name(self) -> str:
        """`stage/address`, as a run refers to it."""
        return f"{self.stage}/{self.address}"


def entries(root: Path) -> list[Entry]:
    """All artifacts of a store, stage by stage; what is no artifact's folder is left out.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the store with --store.")
    found = []
    for folder in sorted(root.glob("*/*/")):
        address, _, ending = folder.name.partition(".")
        if not _ADDRESS.fullmatch(address) or folder.is_symlink():
            continue
        if not ending:
            state = "finished"
        elif ending == "part":
            state = "unfinished"
        elif ending.startswith("damaged-"):
            state = "set aside"
        else:
            continue
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        newest = max((one.st_mtime for one in files), default=folder.stat().st_mtime)
        found.append(
            Entry(
                folder.parent.name,
                address,
                folder,
                state,
                sum(one.st_size for one in files),
                datetime.fromtimestamp(newest, UTC),
            )
        )
    return found


def problems(root: Path) -> list[tuple[Entry, str]]:
    """The finished artifacts whose files are not what their manifest says, and how."""
    finished = [entry for entry in entries(root) if entry.state == "finished"]
    found = [(entry, problem_of(entry.folder, entry.address)) for entry in finished]
    return [(entry, problem) for entry, problem in found if problem is not None]


def note_reference(run_folder: Path, name: str) -> None:
    """Writes down that a run asks for an artifact, before it is made: prune leaves it alone."""
    path = run_folder / REFERENCES
    if not path.exists() or name not in path.read_text("utf-8").splitlines():
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")


def references(run_folders: Iterable[Path]) -> set[str]:
    """Names of the artifacts that the runs in and below these folders refer to.

    Raises:
        UserError: a folder is not there or has no run below it, or a run does not say what it
            refers to.
    """
    names: set[str] = set()
    for given in run_folders:
        noted = list(given.rglob(REFERENCES))
        results = {path.parent for name in _RESULTS for path in given.rglob(name)}
        silent = sorted(
            folder
            for folder in results - {path.parent for path in noted}
            if (folder / _RESULTS[0]).exists()
        )
        if silent:
            raise UserError(
                f"{silent[0]} does not say which artifacts it refers to (its {REFERENCES} is "
                "missing): run its command again, which makes nothing twice, or prune without it."
            )
        if not noted:
            raise UserError(f"{given}: no run in it or below it.")
        for path in noted:
            names.update(path.read_text("utf-8").split())
    return names


def unreferenced(root: Path, names: set[str]) -> list[Entry]:
    """What no run refers to, and what was set aside as damaged; nothing that is being made."""
    return [
        entry
        for entry in entries(root)
        if (entry.state == "set aside" or entry.name not in names) and not _is_being_made(entry)
    ]


def remove(entry: Entry) -> None:
    """Deletes an artifact: its manifest first, so that half of it is never taken for whole."""
    (entry.folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(entry.folder)  # its lock stays: another process may be waiting for it


def _is_being_made(entry: Entry) -> bool:
    lock = entry.folder.with_suffix(".lock")
    if entry.state == "set aside" or not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

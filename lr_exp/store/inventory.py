"""What is in a store: listed, verified, pruned. Knows artifacts' folders, not what made them."""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.store.artifacts import MANIFEST, problem_of
from lr_exp.store.files import write_atomically
from lr_exp.store.locks import locked
from lr_exp.store.run_folder import FAILED, SUMMARY

REFERENCES = "artifacts.txt"  # in a run's folder: each artifact it asked for, one a line
_ADDRESS = re.compile(r"[0-9a-f]{24}")
_NAME = re.compile(r"[a-z_]+/[0-9a-f]{24}")


@dataclass(frozen=True)
class Entry:
    """One artifact's folder, whole or not."""

    stage: str
    address: str
    folder: Path
    # finished | unfinished (a run was stopped) | damaged (without a manifest) | set aside (it was)
    state: str
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
            state = "finished" if (folder / MANIFEST).exists() else "damaged"
        elif ending.endswith("part"):
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
    finished = [entry for entry in entries(root) if entry.state in ("finished", "damaged")]
    found = [(entry, problem_of(entry.folder, entry.address)) for entry in finished]
    return [(entry, problem) for entry, problem in found if problem is not None]


def record_reference(run_folder: Path, name: str) -> None:
    """Writes down that a run asks for an artifact, before it is made: prune leaves it alone."""
    path = run_folder / REFERENCES
    try:
        noted = [line for line in path.read_text("utf-8").splitlines() if _NAME.fullmatch(line)]
    except (FileNotFoundError, UnicodeDecodeError):
        noted = []
    if name not in noted:
        write_atomically(path, "".join(f"{line}\n" for line in (*noted, name)))


def references(run_folders: Iterable[Path]) -> set[str]:
    """Names of the artifacts that the runs in and below these folders refer to.

    Raises:
        UserError: a folder is not there or has no run below it, or a run does not say what it
            refers to.
    """
    names: set[str] = set()
    for given in run_folders:
        noted = list(given.rglob(REFERENCES))
        results = {path.parent for name in (SUMMARY, FAILED) for path in given.rglob(name)}
        silent = sorted(
            folder
            for folder in results - {path.parent for path in noted}
            if (folder / SUMMARY).exists()
        )
        if silent:
            raise UserError(
                f"{silent[0]} does not say which artifacts it refers to (its {REFERENCES} is "
                "missing): run its command again, which makes nothing twice, or prune without it."
            )
        if not noted:
            raise UserError(f"{given}: no run in it or below it.")
        for path in noted:
            names |= _read_references(path)
    return names


def _read_references(path: Path) -> set[str]:
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    wrong = [line for line in lines if not _NAME.fullmatch(line)]
    if wrong or not lines:
        raise UserError(
            f"{path} is damaged: which artifacts this run refers to is not known. Run its command "
            "again, which makes nothing twice, or prune without it."
        )
    return set(lines)


def unreferenced(root: Path, run_folders: Sequence[Path]) -> list[Entry]:
    """What no run below these folders refers to, and what was set aside as damaged.

    Raises:
        UserError: see `references`.
    """
    names = references(run_folders)
    return [e for e in entries(root) if e.state == "set aside" or e.name not in names]


def prune(going: Iterable[Entry], run_folders: Sequence[Path]) -> list[Entry]:
    """Deletes what is still `unreferenced`, each under its lock; returns what is gone.

    An artifact that is being made stays, and so does one that a run has asked for since.
    """
    gone = []
    for entry in going:
        with _locked(entry) as free:
            if free and (entry.state == "set aside" or entry.name not in references(run_folders)):
                # The manifest first, so that half of an artifact is never taken for whole. Its
                # lock's file stays: another process may be waiting for it.
                (entry.folder / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(entry.folder)
                gone.append(entry)
    return gone


@contextmanager
def _locked(entry: Entry) -> Iterator[bool]:
    """Holds the artifact's lock, if nobody else does."""
    path = entry.folder.parent / f"{entry.address}.lock"
    if not path.exists():
        yield True
        return
    with locked(path, on_wait=None) as held:
        # Without locks nobody knows whether what is unfinished is being made.
        yield entry.state != "unfinished" if held is None else held

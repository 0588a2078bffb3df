"""Lists, verifies and prunes the artifacts of a store."""

import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.store.artifacts import MANIFEST
from lr_exp.store.files import write_atomically
from lr_exp.store.locks import locked
from lr_exp.store.run_folder import SUMMARY

RUNS = "runs.txt"  # in the store: absolute folders of the runs that use it, one per line
REFERENCES = "artifacts.txt"  # in a run's folder: names of the artifacts it requested, one per line
_ADDRESS = re.compile(r"[0-9a-f]{24}")
_NAME = re.compile(r"[a-z_]+/[0-9a-f]{24}")


@dataclass(frozen=True)
class Entry:
    """Folder of an artifact in any state."""

    stage: str
    address: str
    folder: Path
    # finished | unfinished (its run was stopped) | damaged (no manifest) | set aside (was damaged)
    state: str
    bytes: int
    modified: datetime

    @property
    def name(self) -> str:
        """`stage/address`, as in a run's references."""
        return f"{self.stage}/{self.address}"


def list_entries(root: Path) -> list[Entry]:
    """All artifacts of a store by stage and address; raises UserError if it is not a folder."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder. Set --store to the store's folder.")
    found = []
    for folder in sorted(root.glob("*/*/")):
        address, _, suffix = folder.name.partition(".")
        if not _ADDRESS.fullmatch(address) or folder.is_symlink():
            continue
        if not suffix:
            state = "finished" if (folder / MANIFEST).exists() else "damaged"
        elif suffix.endswith("part"):
            state = "unfinished"
        elif suffix.startswith("damaged-"):
            state = "set aside"
        else:
            continue
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        size = sum(file.st_size for file in files)
        newest = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
        modified = datetime.fromtimestamp(newest, UTC)
        found.append(Entry(folder.parent.name, address, folder, state, size, modified))
    return found


def record_run(root: Path, run_folder: Path) -> None:
    """Records that a run uses a store, if it can be written to, for `users`."""
    line, path = f"{run_folder.resolve()}\n", root / RUNS
    with suppress(OSError, UnicodeError):
        known = path.read_text("utf-8").splitlines() if path.exists() else []
        if line.strip() not in known:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)


def users(root: Path) -> dict[Path, set[str]]:
    """The artifacts of each run that used the store and can be read, by the run's folder."""
    folders: list[str] = []
    with suppress(OSError):
        folders = (root / RUNS).read_text("utf-8", "replace").splitlines()
    found = {}
    for folder in map(Path, folders):
        with suppress(OSError):  # a run that was deleted, or that another user keeps private
            lines = (folder / REFERENCES).read_text("utf-8", "replace").splitlines()
            found[folder] = {line for line in lines if _NAME.fullmatch(line)}
    return found


def record_reference(run_folder: Path, name: str) -> None:
    """Records that a run uses an artifact, before it is built, so that prune keeps it."""
    path = run_folder / REFERENCES
    try:
        names = [line for line in path.read_text("utf-8").splitlines() if _NAME.fullmatch(line)]
    except (FileNotFoundError, UnicodeDecodeError):
        names = []
    if name not in names:
        write_atomically(path, "".join(f"{line}\n" for line in (*names, name)))


def read_references(run_folders: Iterable[Path]) -> set[str]:
    """Names of the artifacts used by the runs in and below these folders.

    Raises UserError if a folder holds no run, or a run's references are missing or damaged.
    """
    names: set[str] = set()
    for parent in run_folders:
        runs = {path.parent for name in (REFERENCES, SUMMARY) for path in parent.rglob(name)}
        if not runs:
            raise UserError(
                f"{parent}: there is no run in or below this folder. Pass the folder of a run, or "
                "one that holds runs."
            )
        for run in sorted(runs):
            path = run / REFERENCES
            content = path.read_bytes() if path.exists() else b""
            lines = content.decode("utf-8", "replace").splitlines()
            if not lines or not all(_NAME.fullmatch(line) for line in lines):
                raise UserError(
                    f"{path}, the list of artifacts that this run uses, is missing or damaged. Run "
                    "its command again (existing artifacts are reused) or prune without this "
                    "folder."
                )
            names.update(lines)
    return names


def find_unreferenced(root: Path, run_folders: Sequence[Path]) -> list[Entry]:
    """Artifacts that no run below these folders uses, and those set aside as damaged."""
    names = read_references(run_folders)
    return [e for e in list_entries(root) if e.state == "set aside" or e.name not in names]


def prune(candidates: Iterable[Entry], run_folders: Sequence[Path]) -> list[Entry]:
    """Deletes candidates, each under its lock, and returns the deleted ones.

    Keeps artifacts that are being built and those that a run has requested meanwhile.
    """
    deleted = []
    for entry in candidates:
        with locked(entry.folder.with_name(f"{entry.address}.lock"), wait=False) as is_free:
            if is_free and (
                entry.state == "set aside" or entry.name not in read_references(run_folders)
            ):
                # The manifest first: a partly deleted artifact must not look complete. The lock
                # file stays, since another process may be waiting for it.
                (entry.folder / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(entry.folder)
                deleted.append(entry)
    return deleted

"""Where a run's results come from: the code's revision, time, machine and command."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import lr_exp
from lr_exp.config.composition import parse_flags, parse_override, search_path
from lr_exp.errors import UserError, first_line
from lr_exp.report.read.json_file import read_json
from lr_exp.report.read.summary import parse_summary
from lr_exp.store.run_folder import SUMMARY


def origin() -> dict[str, Any]:
    """Facts for `Provenance`: `commit`, `modified`, `started` and `host`."""
    commit, modified = _revision(Path(lr_exp.__file__).parent)
    return {
        "commit": commit,
        "modified": modified,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


@cache
def _revision(package: Path) -> tuple[str | None, bool | None]:
    """Commit of the repository that tracks this folder, and whether its files were modified.

    (None, None) where none does, as for an installed package, or there is no git.
    """

    def git(*words: str) -> list[str]:
        command = ["git", "-C", str(package), *words]
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.splitlines()

    try:
        # An installed package can lie, untracked, in the repository of another project.
        git("ls-files", "--error-unmatch", "__init__.py")
        (commit,) = git("rev-parse", "HEAD")
        return commit, bool(git("status", "--porcelain", "--untracked-files=no", "."))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None


def arguments_of(run: Path, given: Sequence[str]) -> list[str]:
    """The command line that repeats a run with further arguments, which replace recorded ones.

    `run` is its folder or its `summary.json`. Raises UserError: it is missing or has no command.
    """
    path = run / SUMMARY if run.is_dir() else run
    if not path.exists():
        missing = f"{run} has no {SUMMARY}" if run.is_dir() else f"there is no folder {run}"
        raise UserError(f"--from-run: {missing}: give the folder of one finished run.")
    try:
        settings = parse_summary(read_json(path)).settings
    except (OSError, ValueError) as error:
        raise UserError(f"--from-run {run}: {path} cannot be read: {first_line(error)}") from error
    if (overrides := settings.get("overrides")) is None:
        raise UserError(f"--from-run {run}: {path} records no command; an older version wrote it.")
    replaced = {parse_override(word).get_key_element() for word in parse_flags(given).overrides}
    recorded = [
        word for word in overrides if parse_override(word).get_key_element() not in replaced
    ]
    # A cell of a sweep is repeated as a sweep of one cell.
    multirun = ["-m"] if any(word.startswith("+sweep=") for word in recorded) else []
    return [*multirun, *recorded, *search_path(settings.get("config_dirs", [])), *given]

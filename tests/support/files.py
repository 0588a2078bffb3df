"""Reads and writes JSON files, and runs Python in another process."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read_lines(path: Path) -> list[Any]:
    """The values of a JSON Lines file; text in them may have other line separators."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def write_lines(path: Path, values: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def summary_of(outcome) -> dict[str, Any]:
    """The summary of a run of the program, which must have succeeded."""
    assert outcome.status == 0, outcome.err
    return json.loads((outcome.folder / "summary.json").read_text("utf-8"))


def run_python(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder, with the checkout on its path and this environment alone."""
    return subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

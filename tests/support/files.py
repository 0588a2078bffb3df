"""Reads and writes JSON files, runs Python in another process, and checks error messages."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lr_exp.errors import UserError

ROOT = Path(__file__).parents[2]


@contextmanager
def one_line_error(*parts: object) -> Iterator[None]:
    """Expects a UserError whose message is one line and has these parts."""
    with pytest.raises(UserError) as caught:
        yield
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)


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


def write_marked_document(path: Path) -> Path:
    """A document in which a benchmark replaces the text between its markers."""
    path.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n", "utf-8")
    return path


def replaced_text(document: Path) -> str:
    """The text of such a document, after checking that only what is between was replaced."""
    text = document.read_text("utf-8")
    assert text.startswith("before\n<!-- bench -->\n")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "old" not in text
    return text

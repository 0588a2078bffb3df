"""Programs and streams: nothing about stdout fails a finished run or prints a traceback."""

import io
import os
import sys

import pytest

from lr_exp.errors import command
from lr_exp.pipeline import run
from lr_exp.report import terminal


def ascii_only():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def closed_pipe():
    """As after `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def full_disk():
    if not os.path.exists("/dev/full"):
        pytest.skip("only Linux has /dev/full")
    return open("/dev/full", "w", encoding="utf-8")


def absent():
    """As after `>&-`."""


@pytest.mark.parametrize("make", [ascii_only, closed_pipe, full_disk, absent])
@pytest.mark.parametrize("length", [1, 100_000])  # buffered until the end, or not
def test_a_finished_run_stays_finished(program, monkeypatch, make, length):
    monkeypatch.setattr(run, "run", lambda *_: None)
    monkeypatch.setattr(terminal, "summary_table", lambda _: "1 ± 2" * length)
    monkeypatch.setattr(sys, "stdout", make())
    outcome = program("experiment=demo")
    assert (outcome.status, outcome.err) == (0, "")
    assert not (outcome.folder / "failed.json").exists()
    if sys.stdout:
        sys.stdout.close()  # raises if anything is left that cannot be written


@pytest.mark.parametrize("length", [1, 100_000])
def test_a_command_ends_quietly_when_its_reader_does(monkeypatch, capsys, length):
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    assert command(lambda _: print("±" * length) or 0)() == 0
    sys.stdout.close()
    assert capsys.readouterr().err == ""


def test_a_command_reports_a_full_disk(monkeypatch, capsys):
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)
    monkeypatch.setattr(sys, "stdout", full_disk())
    assert command(lambda _: print("a table") or 0)() == 1
    sys.stdout.close()
    assert capsys.readouterr().err.startswith("error: [Errno 28] No space left")


def test_a_command_shows_a_question_mark_for_what_its_stream_lacks(monkeypatch):
    monkeypatch.setattr(sys, "stdout", ascii_only())
    assert command(lambda _: print("82.7 ± 2.2") or 0)() == 0
    assert sys.stdout.buffer.getvalue() == b"82.7 ? 2.2\n"

"""Progress: a bar on a terminal, few lines elsewhere, and errors on separate lines."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from lr_exp import progress
from lr_exp.progress import Progress, duration

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    """A stderr that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True

    @property
    def lines(self):
        """The lines that a terminal shows after the output so far."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells = ""
            for part in line.split("\r"):
                cells = part + cells[len(part) :]
            shown.append(cells.rstrip())
        return shown


@pytest.fixture(autouse=True)
def default_style(monkeypatch):
    monkeypatch.setattr(progress, "_chosen", None)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("tqdm.std.time", lambda: clock.now)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    # Not through `sys`, whose streams pytest replaces between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    return terminal


def test_a_pipe_gets_a_line_every_half_minute_of_a_long_stage(capsys, clock):
    with Progress("rollout", 800, "question", also="token") as shown:
        for _ in range(800):
            clock.now += 0.125
            shown.add(also=2000, note="loss 0.1")
    *lines, last = capsys.readouterr().err.splitlines()
    rate = "questions,  8.00 question/s"
    assert lines == [
        f"rollout: {count}/800 {rate}, {left} left, 16,000.0 tokens/s, loss 0.1"
        for count, left in ((240, "01:10"), (480, "00:40"), (720, "00:10"))
    ]
    ended = "rollout: 800 questions in 01:40,  8.00 question/s, 16,000.0 tokens/s, loss 0.1"
    assert last == ended


def test_rates_exclude_earlier_work(capsys, clock):
    """A resumed run would otherwise show too short a remaining time."""
    with Progress("rollout", 100, "question", found=80) as shown:
        for _ in range(2):
            clock.now += 40
            shown.add(10)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "90/100 questions" in first
    assert "00:40 left" in first
    assert last == "rollout: 100 questions in 01:20,  0.25 question/s"


def test_a_failed_stage_prints_no_final_line(capsys):
    with pytest.raises(ZeroDivisionError), Progress("score", 3, "answer"):
        _ = 1 / 0
    assert capsys.readouterr().err == ""


def test_builds_and_dumb_terminals_get_lines(terminal, monkeypatch):
    assert progress.on_terminal()
    monkeypatch.setenv("CI", "true")
    assert not progress.on_terminal()
    monkeypatch.setenv("CI", "false")
    monkeypatch.setenv("TERM", "dumb")
    assert not progress.on_terminal()


def test_a_piped_sweep_is_silent_about_short_stages_and_models(capsys, clock):
    progress.choose_for_cells(side_by_side=False)
    progress.announce("loading a model")
    with Progress("score", 3, "answer") as shown:
        clock.now += 29
        shown.add(3)
    assert capsys.readouterr().err == ""
    with Progress("distill", 100, "optimizer step") as shown:
        for _ in range(100):
            clock.now += 1
            shown.add()
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_sweep_on_a_terminal_leaves_no_bar_behind(terminal, side_by_side):
    """Cells in several processes draw none, because their bars would overwrite each other."""
    progress.choose_for_cells(side_by_side=side_by_side)
    with Progress("score", 3, "answer") as shown:
        assert ("score" in terminal.getvalue()) != side_by_side
        shown.add(3)
    assert terminal.lines == [""]


def test_a_bar_is_redrawn_in_one_line_and_replaced_by_a_final_one(terminal, clock):
    with Progress("distill", 10, "optimizer step", also="kept step") as shown:
        for _ in range(5):
            clock.now += 1
            shown.add(also=32, note="loss 0.1234")
        (line,) = terminal.lines
        assert "5/10" in line
        assert "32.0 kept steps/s, loss 0.1234" in line
        clock.now += 5
        shown.add(5, also=160, note="loss 0.0312")
    assert terminal.lines == [
        "distill: 10 optimizer steps in 00:10,  1.00 optimizer step/s, 32.0 kept steps/s, "
        "loss 0.0312",
        "",
    ]


def test_a_warning_is_on_a_separate_line(terminal, monkeypatch):
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr("tqdm.contrib.logging.sys", SimpleNamespace(stderr=terminal, stdout=None))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with Progress("score", 3, "answer") as shown:
        shown.add()
        logging.getLogger("tests.progress").warning("odd")
        odd, bar = terminal.lines
        assert odd == "odd"
        assert bar.startswith("score")
    assert logging.root.handlers == [handler]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s")),
        *((245, "4 min 05 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


# The program ------------------------------------------------------------------------------------

TINY = (
    "experiment=demo",
    "data.count=2",
    "sampler.max_new_tokens=4",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=2",
    "evaluator.max_new_tokens=4",
    "distiller.steps=2",
)


@pytest.mark.integration
def test_a_piped_run_prints_one_line_per_stage_and_model(program):
    outcome = program(*TINY, "beta=0")
    assert outcome.status == 0, outcome.err
    assert "\r" not in outcome.err
    assert "\x1b" not in outcome.err
    shown = [re.match(r"loading the \w+|[^:]*", line)[0] for line in outcome.err.splitlines()]
    before = ["loading the expert", "rollout", "loading the amateur", "score"]
    stages = [*before, "distill", "micro_add (expert)", "micro_add (tuned)"]
    assert [name for name in shown if name in stages] == stages
    assert re.search(r"distill: .* optimizer step/s, .* kept steps/s, loss \d", outcome.err)
    again = program(*TINY, "beta=0")  # everything is in the store
    assert not [line for line in again.err.splitlines() if "/s" in line or "loading" in line]


@pytest.mark.integration
def test_on_a_terminal_an_error_is_on_a_separate_line():
    """A real terminal: a failed stage's bar is removed before the error is printed."""
    code = (
        "from lr_exp.progress import Progress; from lr_exp.errors import print_error\n"
        "try:\n"
        "    with Progress('score', 2, 'answer') as shown: shown.add(); raise ValueError('odd')\n"
        "except ValueError as error: print_error(error)"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "TERM": "xterm"},
        stderr=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    output = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    terminal = Terminal(output.replace("\r\n", "\n"))
    assert "0/2" in output  # a bar
    assert terminal.lines == ["error: odd", ""]

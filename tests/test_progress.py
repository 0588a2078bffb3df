"""Progress: a bar on a terminal, few lines elsewhere, and errors on separate lines."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from lr_exp import progress
from lr_exp.progress import Progress, duration, rate

ROOT = Path(__file__).parents[1]
BAR = re.compile(r"[━─]")


class Terminal(io.StringIO):
    """A stderr that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True

    @property
    def screen(self):
        """The visible lines, without erased text."""
        return [line.rpartition(progress._CLEAR)[2] for line in self.getvalue().split("\n")]


class Clock:
    """A clock that the test advances."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    monkeypatch.setattr(progress, "_chosen", None)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    # Not through `sys`, whose streams pytest replaces between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    return terminal


# A pipe -----------------------------------------------------------------------------------------


def test_a_pipe_gets_one_line_of_a_short_stage(capsys, clock):
    with Progress("score", 300, "answer", also="token") as shown:
        for _ in range(300):
            clock.now += 0.01
            shown.add(also=50)
    assert capsys.readouterr().err == "score: 300 answers in 3.0 s, 100 answers/s, 5,000 tokens/s\n"


def test_a_pipe_gets_a_line_every_half_minute_of_a_long_stage(capsys, clock):
    with Progress("rollout", 800, "question") as shown:
        for _ in range(800):
            clock.now += 0.125
            shown.add()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "rollout: 240/800 questions, 8.0 questions/s, 1 min 10 s left",
        "rollout: 480/800 questions, 8.0 questions/s, 40 s left",
        "rollout: 720/800 questions, 8.0 questions/s, 10 s left",
        "rollout: 800 questions in 1 min 40 s, 8.0 questions/s",
    ]


def test_a_slow_stage_prints_a_first_line(capsys, monkeypatch):
    """The first batch of a large model takes minutes."""
    monkeypatch.setattr(progress, "_FIRST_LINE_AFTER", 0.0)
    with Progress("rollout", 40, "question", found=10):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
        assert capsys.readouterr().err == "rollout: 10/40 questions\n"


def test_rates_exclude_earlier_work(capsys, clock):
    """A resumed run would otherwise show too short a remaining time."""
    with Progress("rollout", 100, "question", found=80) as shown:
        clock.now += 40
        shown.add(10)
        assert "90/100 questions, 4.0 s per question, 40 s left" in capsys.readouterr().err
        clock.now += 40
        shown.add(10)
    assert "100 questions in 1 min 20 s, 4.0 s per question\n" in capsys.readouterr().err


def test_a_failed_stage_prints_no_final_line(capsys):
    shown = Progress("score", 3, "answer").__enter__()
    shown.add()
    shown.__exit__(ValueError, ValueError("broken"), None)
    assert capsys.readouterr().err == ""


def test_builds_and_dumb_terminals_get_lines(terminal, monkeypatch):
    assert progress.on_terminal()
    monkeypatch.setenv("CI", "true")
    assert not progress.on_terminal()
    monkeypatch.setenv("CI", "false")
    monkeypatch.setenv("TERM", "dumb")
    assert not progress.on_terminal()


# A sweep ----------------------------------------------------------------------------------------


def test_a_piped_sweep_is_silent_about_short_stages(capsys, clock):
    progress.choose_for_cells(side_by_side=False)
    with Progress("score", 3, "answer") as shown:
        clock.now += 29
        shown.add(3)
    assert capsys.readouterr().err == ""
    with Progress("distill", 100, "optimizer step") as shown:
        for _ in range(100):
            clock.now += 1
            shown.add()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_sweep_on_a_terminal_leaves_no_bar_behind(terminal):
    progress.choose_for_cells(side_by_side=False)
    with Progress("score", 3, "answer") as shown:
        assert BAR.search(terminal.getvalue())
        shown.add(3)
    assert terminal.screen == [""]


def test_cells_in_other_processes_draw_no_bars(terminal):
    progress.choose_for_cells(side_by_side=True)
    with Progress("score", 3, "answer"):
        pass
    assert terminal.getvalue() == ""


# A terminal -------------------------------------------------------------------------------------


def test_a_bar_is_redrawn_in_one_line_and_stays(terminal, clock):
    with Progress("distill", 10, "optimizer step", also="kept step") as shown:
        for _ in range(5):
            clock.now += 1
            shown.add(also=32, note="loss 0.1234")
        assert "5/10 optimizer steps" in terminal.screen[-1]
        assert "5.0 s left, loss 0.1234" in terminal.screen[-1]
        for _ in range(5):
            clock.now += 1
            shown.add(also=32, note="loss 0.0312")
    last, after = terminal.screen
    assert after == ""
    assert "100%" in last
    assert "loss 0.0312" in last


@pytest.mark.parametrize("columns", [10, 30, 60, 80, 100, 300])
def test_a_bar_never_wraps(terminal, clock, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress("micro_subtract (tuned)", 3000, "question", also="token") as shown:
        clock.now += 90
        shown.add(1500, also=999_999)
    assert all(len(line) < columns for line in terminal.screen)


def test_a_narrow_terminal_loses_the_second_rate_first(terminal, clock):
    with Progress("micro_add (tuned)", 3000, "question", also="token") as shown:
        clock.now += 90
        shown.add(1500, also=999_999)
        line = terminal.screen[-1]
    assert "1,500/3,000 questions, 16.7/s, 1 min 30 s left" in line
    assert "tokens" not in line
    assert BAR.search(line)


def test_a_warning_is_on_a_separate_line(terminal):
    log = logging.getLogger("tests.progress")
    log.addHandler(progress.LogHandler(terminal))
    log.propagate = False
    with Progress("score", 3, "answer") as shown:
        shown.add()
        log.warning("odd")
        assert terminal.screen[-2] == "odd"
        assert terminal.screen[-1].startswith("score ")
    log.handlers.clear()


def test_an_error_ends_the_bars_line(terminal):
    try:
        with Progress("score", 3, "answer"):
            raise ValueError("broken")
    except ValueError as error:
        print(f"error: {error}", file=terminal)
    assert terminal.screen[-2] == "error: broken"
    assert progress._current is None


def test_an_encoding_without_line_drawing_gets_ascii(terminal):
    terminal.encoding = "ascii"
    with Progress("score", 2, "answer") as shown:
        shown.add()
    terminal.getvalue().encode("ascii")
    assert "##" in terminal.screen[0]


# Formatting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_rates():
    assert rate(0, 3.0, "token") == ""
    assert rate(10, 0.0, "token") == ""
    assert rate(10, 2.0, "token") == ", 5.0 tokens/s"
    assert rate(2_000_000, 2.0, "token") == ", 1,000,000 tokens/s"
    assert rate(1, 90.0, "question") == ", 1 min 30 s per question"


# The program ------------------------------------------------------------------------------------

TINY = (
    "experiment=demo",
    "data.max_questions=2",
    "sampler.max_new_tokens=4",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=2",
    "evaluator.max_new_tokens=4",
    "distiller.steps=2",
    "beta=0",
)


def test_a_piped_run_prints_one_line_per_stage(program):
    outcome = program(*TINY)
    assert outcome.status == 0, outcome.err
    assert "\r" not in outcome.err
    assert "\x1b" not in outcome.err
    shown = [line.partition(":")[0] for line in outcome.err.splitlines()]
    stages = ["rollout", "score", "distill", "micro_add (expert)", "micro_add (tuned)"]
    assert [name for name in shown if name in stages] == stages
    assert re.search(r"distill: .* optimizer steps/s, .* kept steps/s, loss \d", outcome.err)
    again = program(*TINY)  # everything is in the store
    assert not [line for line in again.err.splitlines() if "/s" in line]


def test_a_piped_sweep_prints_a_headline_and_a_table_per_cell(program):
    outcome = program(*TINY[:-1], "beta=0,0.01", "stages=[sample]", flags=["-m"])
    assert outcome.status == 0, outcome.err
    assert "cell 1 of 2: " in outcome.out
    assert "cell 2 of 2: " in outcome.out
    assert not [line for line in outcome.err.splitlines() if "/s" in line]


def test_on_a_terminal_an_error_is_on_a_separate_line(tmp_path):
    """A real terminal: a failed stage's bar ends before the error is printed."""
    code = (
        "import sys; from lr_exp.progress import Progress; from lr_exp.errors import print_error\n"
        "try:\n"
        "    with Progress('score', 2, 'answer') as shown: shown.add(); raise ValueError('odd')\n"
        "except ValueError as error: print_error(error)"
    )
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stderr=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    *_, bar, error, rest = said.split("\r\n")
    assert bar.startswith(progress._CLEAR)
    assert (error, rest) == ("error: odd", "")


def test_a_resumed_run_counts_earlier_work(program, tmp_path):
    """The rate of a resumed run is of its own work."""
    words = [*TINY[:-1], "beta=0", "stages=[sample]", "sampler.batch_size=1"]
    assert program(*words).status == 0
    (folder,) = (tmp_path / "store" / "rollout").glob("*/")
    (folder / "manifest.json").unlink()
    (folder / "shard-000001.parquet").unlink()
    folder.rename(folder.with_suffix(".part"))
    outcome = program(*words)
    assert outcome.status == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("rollout:")]
    assert line.startswith("rollout: 2 questions in ")
    summary = json.loads((outcome.folder / "summary.json").read_text("utf-8"))
    assert summary["sample"]["questions"] == 2

"""A run killed at any time and resumed ends with the same bytes as an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from lr_exp import distributed
from lr_exp.report.__main__ import main as report
from tests.support.demo import SMALL, contents, go

WORDS = [*SMALL, "distiller.checkpoint_every=2"]
ROOT = Path(__file__).parents[1]


def run_killing(
    folder: Path, kills: int, number: int, *, seed: int = 0, shortest: float = 0.05
) -> dict:
    """Runs `tests.support.killing` in `folder` with signal `number` and returns its result."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(ROOT),
    }
    words = [str(word) for word in (kills, seed, int(number), shortest, 3.0)]
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.support.killing", *words, *WORDS],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of an uninterrupted run and its report."""
    folder = tmp_path_factory.mktemp("whole")
    go(folder, "run", "distiller.checkpoint_every=2")
    return folder


def tables(folder: Path) -> dict[str, bytes]:
    """The report's tables, except for the efficiency table, which holds seconds."""
    assert report([str(folder)]) == 0
    found = {path.name: path.read_bytes() for path in (folder / "report").glob("*.csv")}
    assert "results.csv" in found
    return {name: table for name, table in found.items() if "efficiency" not in name}


def results(folder: Path) -> dict:
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    return {
        "supervision": summary["sample"]["supervision"],
        "kept": summary["sample"]["kept"],
        "loss": summary["distill"]["final_loss"],
        "expert": summary["evaluate"]["expert"],
        "tuned": summary["evaluate"]["tuned"],
    }


def compare(folder: Path, result: dict, whole: Path) -> None:
    """Compares artifacts, results and tables of all finished runs with the uninterrupted one."""
    expected = contents(whole / "store")
    for number in range(result["finished"]):
        found = contents(folder / str(number) / "store")
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        assert results(folder / str(number) / "run") == results(whole / "run")
        assert tables(folder / str(number) / "run") == tables(whole / "run")


@pytest.mark.integration
def test_a_killed_run_resumes_to_the_same_bytes(whole, tmp_path):
    result = run_killing(tmp_path, 5, signal.SIGKILL)
    assert result["kills"] == 5
    assert result["stages"]  # some kills hit a stage, not only the start-up
    compare(tmp_path, result, whole)


@pytest.mark.slow
def test_a_hundred_kills(whole, tmp_path):
    result = run_killing(tmp_path, 100, signal.SIGKILL, seed=1)
    assert result["kills"] == 100
    assert {"rollout", "score", "adapter", "answers"} <= set(result["stages"])
    compare(tmp_path, result, whole)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_its_exit_status(whole, tmp_path, number):
    result = run_killing(tmp_path, 2, number, seed=2, shortest=1.0)  # after the start-up
    assert result["kills"] == 2
    assert [os.waitstatus_to_exitcode(end) for end in result["ends"][:-1]].count(128 + number) == 2
    compare(tmp_path, result, whole)


def test_a_stop_that_python_ignores_is_raised_again():
    class Thing:
        pass

    def callback(_):
        raise distributed.Stopped(signal.SIGTERM)  # Python ignores exceptions here

    things = [Thing()]
    _reference = weakref.ref(things[0], callback)

    def work():
        things.clear()
        time.sleep(10)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with distributed.raise_on_signals(), pytest.raises(distributed.Stopped):
            work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

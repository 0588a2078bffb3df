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
from tests.support.demo import SMALL, contents, go

# SMALL, with checkpoints and fewer questions.
CHANGES = (
    *("distiller.checkpoint_every=2", "data.max_questions=24"),
    *("benchmarks=[micro_add]", "evaluator.max_examples=16", "evaluator.batch_size=4"),
)
ROOT = Path(__file__).parents[1]


def run_killing(
    folder: Path, kills: int, *signals: int, longest: float, seed: int = 0, shortest: float = 0.05
) -> dict:
    """Runs `tests.support.killing` in `folder` and returns its result."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(ROOT),
    }
    numbers = ",".join(str(int(number)) for number in signals)
    words = [str(kills), str(seed), numbers, str(shortest), str(longest)]
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.support.killing", *words, *SMALL, *CHANGES],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of an uninterrupted run, and its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    start = time.monotonic()
    go(folder, "run", *CHANGES)
    return folder, time.monotonic() - start


def results(folder: Path) -> dict:
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    sample = ("supervision", "steps", "kept", "kl_mean", "histogram", "by_position")
    return {
        "sample": {key: summary["sample"][key] for key in sample},
        "loss": summary["distill"]["final_loss"],
        "expert": summary["evaluate"]["expert"],
        "tuned": summary["evaluate"]["tuned"],
    }


def compare(folder: Path, result: dict, whole: Path) -> None:
    """Compares artifacts and results of all finished runs with the uninterrupted one."""
    expected = contents(whole / "store")
    for number in range(result["finished"]):
        found = contents(folder / str(number) / "store")
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        assert results(folder / str(number) / "run") == results(whole / "run")


@pytest.mark.integration
def test_a_killed_or_stopped_run_resumes_to_the_same_bytes(whole, tmp_path):
    folder, seconds = whole
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    # After the start-up.
    result = run_killing(tmp_path, 5, *signals, shortest=seconds / 5, longest=seconds)
    assert result["stages"]  # some kills hit a stage
    assert [end for end in result["ends"] if end] == [-9, 128 + 15, 128 + 2, -9, 128 + 15]
    compare(tmp_path, result, folder)


@pytest.mark.slow
def test_a_hundred_kills(whole, tmp_path):
    folder, seconds = whole
    result = run_killing(tmp_path, 100, signal.SIGKILL, seed=1, longest=seconds)
    assert result["ends"].count(-signal.SIGKILL) == 100
    assert {"rollout", "score", "adapter", "answers"} <= set(result["stages"])
    compare(tmp_path, result, folder)


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

    with distributed.raise_on_signals(), pytest.raises(distributed.Stopped):
        work()

"""A run killed at any time and resumed ends with the same bytes as an uninterrupted run."""

import json
import os
import random
import signal
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from lr_exp import distributed
from tests.support import forked
from tests.support.demo import SMALL, contents

# With checkpoints.
WORDS = [
    *SMALL,
    "store=store",
    "hydra.run.dir=run",
    "distiller.checkpoint_seconds=0",
    "distiller.steps=6",
    "data.count=9",
    "sampler.batch_size=3",
    "sampler.max_new_tokens=96",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=4",
    "evaluator.batch_size=2",
    "evaluator.max_new_tokens=32",
]


def run_killing(
    folder: Path, kills: int, *signals: int, longest: float, seed: int = 0, shortest: float = 0.05
) -> SimpleNamespace:
    """Stops and resumes a run, with the signals in turn, `shortest` to `longest` seconds in.

    If it finishes before there were enough kills, another one starts in the next of the folders
    0, 1, … Returns the exit statuses, the number of finished runs, and the unfinished stages seen.
    """
    rng = random.Random(seed)
    result = SimpleNamespace(ends=[], finished=0, stages=set())
    done = 0
    while result.finished == 0 or done < kills or result.ends[-1]:
        place = folder / str(result.finished)
        place.mkdir(exist_ok=True)
        attempt = forked.start(place, forked.run_program, WORDS)
        number = signals[done % len(signals)]
        if done < kills:
            attempt.process.join(rng.uniform(shortest, longest))
            with suppress(ProcessLookupError):  # it has finished
                os.kill(attempt.process.pid, number)
        status, out, err = attempt.wait()
        result.ends.append(status)
        if status == 0:
            result.finished += 1
        else:
            assert status in (-number, 128 + number), out + err
            done += 1
            result.stages |= {path.parent.name for path in place.glob("store/*/*.part")}
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of an uninterrupted run, and its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    forked.start(folder, forked.run_program, ["--version"]).wait()  # starts what is forked
    start = time.monotonic()
    status, out, err = forked.start(folder, forked.run_program, WORDS).wait()
    assert status == 0, out + err
    return folder, time.monotonic() - start


def results(folder: Path) -> tuple:
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    sample = ("supervision", "steps", "kept", "kl_mean", "histogram", "by_position")
    both = [summary["evaluate"][who] for who in ("expert", "tuned")]
    sampled = [summary["sample"][key] for key in sample]
    return sampled, summary["distill"]["final_loss"], both


def compare(folder: Path, finished: int, whole: Path) -> None:
    """Compares artifacts and results of all finished runs with the uninterrupted one."""
    expected = contents(whole / "store")
    for number in range(finished):
        found = contents(folder / str(number) / "store")
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        assert results(folder / str(number) / "run") == results(whole / "run")


@pytest.mark.integration
def test_a_killed_or_stopped_run_resumes_to_the_same_bytes(whole, tmp_path):
    folder, seconds = whole
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    # After the start-up.
    result = run_killing(tmp_path, 3, *signals, shortest=seconds / 4, longest=0.6 * seconds)
    assert result.stages  # some kills hit a stage
    assert [end for end in result.ends if end] == [-9, 128 + 15, 128 + 2]
    compare(tmp_path, result.finished, folder)


@pytest.mark.slow
def test_a_hundred_kills(whole, tmp_path):
    folder, seconds = whole
    result = run_killing(tmp_path, 100, signal.SIGKILL, seed=1, longest=seconds)
    assert result.ends.count(-signal.SIGKILL) == 100
    assert {"rollout", "score", "adapter", "answers"} <= result.stages
    compare(tmp_path, result.finished, folder)


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

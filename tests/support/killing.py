"""Runs the program repeatedly and kills it at random times until it finishes.

    python -m tests.support.killing KILLS SEED SIGNALS SHORTEST LONGEST WORDS…

Imports everything once and forks for each attempt, so that kills hit the work and not the start-up.
The signals (numbers joined by commas) are sent in turn, SHORTEST to LONGEST seconds after the
start. If a run finishes before there were enough kills, another one starts in the next of the
folders 0, 1, … Prints one JSON object: the exit status of each attempt (negative: the signal that
killed it), the number of finished runs, and the stages that were found unfinished.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lr_exp import __main__ as program

RUN, STORE, OUTPUT = "run", "store", "output"


def main() -> None:
    min_kills, seed = map(int, sys.argv[1:3])
    signals = [int(number) for number in sys.argv[3].split(",")]
    shortest, longest = map(float, sys.argv[4:6])
    words = sys.argv[6:]
    # Imported before forking; torch starts no threads before it computes.
    import lr_exp.distiller.distill
    import lr_exp.pipeline.run  # noqa: F401

    rng, start = random.Random(seed), Path.cwd()
    _enter(start / "0")
    ends: list[int] = []
    stages: set[str] = set()
    kills = finished = 0
    while True:
        delay = rng.uniform(shortest, longest) if kills < min_kills else None
        number = signals[kills % len(signals)]
        status = _attempt(words, delay, number)
        ends.append(status)
        if status == 0:
            finished += 1
            if kills >= min_kills:
                break
            _enter(start / str(finished))
        elif status in (-number, 128 + number):
            kills += 1
            stages |= {path.parent.name for path in Path(STORE).glob("*/*.part")}
        else:
            sys.exit(f"an attempt failed by itself: {status}\n{Path(OUTPUT).read_text()}")
    print(json.dumps({"finished": finished, "ends": ends, "stages": sorted(stages)}))


def _enter(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)


def _attempt(words: list[str], delay: float | None, number: int) -> int:
    """Runs in a forked process, sends the signal after `delay` seconds; returns the exit status."""
    child = os.fork()
    if child == 0:
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        argv = [*words, f"store={STORE}", f"hydra.run.dir={RUN}"]
        os._exit(_run_and_flush(lambda: program.main(argv)))
    end = time.monotonic() + (delay if delay is not None else 600)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run_and_flush(work: Callable[[], int]) -> int:
    status = 1
    try:
        status = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()

"""Runs the program again and again and kills it at random moments, until it comes through.

    python -m tests.killing KILLS SEED SIGNAL SHORTEST LONGEST WORDS…

Imports everything once and forks for each try, so that a kill falls into the work and not into the
start-up. When a run came through before there were enough kills, another begins, in the next of
the folders 0, 1, … Prints one JSON object: kills, how each try ended, how many runs came through,
and the stages that were found half done.
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
    kills_wanted, seed, number = map(int, sys.argv[1:4])
    shortest, longest = map(float, sys.argv[4:6])
    words = sys.argv[6:]
    # What a try needs is imported here; torch starts no thread before it computes.
    import lr_exp.distiller.distill
    import lr_exp.pipeline.run  # noqa: F401

    rng, start = random.Random(seed), Path.cwd()
    _enter(start / "0")
    ends: list[int] = []
    stages: set[str] = set()
    kills = finished = 0
    while True:
        patience = rng.uniform(shortest, longest) if kills < kills_wanted else None
        status = _try(words, patience, number)
        ends.append(status)
        if status == 0:
            finished += 1
            if kills >= kills_wanted:
                break
            _enter(start / str(finished))
        elif os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 128 + number:
            kills += 1
            stages |= {path.parent.name for path in Path(STORE).glob("*/*.part")}
        else:
            sys.exit(f"a try ended by itself: {status}\n{Path(OUTPUT).read_text()}")
    told = {"kills": kills, "finished": finished, "ends": ends, "stages": sorted(stages)}
    print(json.dumps(told))


def _enter(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)


def _try(words: list[str], patience: float | None, number: int) -> int:
    """One try in a forked process, sent the signal after `patience` seconds; its wait status."""
    child = os.fork()
    if child == 0:
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        argv = [*words, f"store={STORE}", f"hydra.run.dir={RUN}"]
        os._exit(_ended(lambda: program.main(argv)))
    end = time.monotonic() + (patience if patience is not None else 600)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    return status


def _ended(work: Callable[[], int]) -> int:
    status = 1
    try:
        status = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()

"""Two sides measured in turns, and child processes measured alone.

Knows clocks, processes and ratios; knows nothing of what is measured.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def alternate(
    first: Callable[[int], float], second: Callable[[int], float], repeats: int
) -> tuple[list[float], list[float]]:
    """Both sides' values, taken in turns, so that what else the machine does meets both alike.

    Every other repeat begins with the second side.
    """
    ones, others = [], []
    for repeat in range(repeats):
        sides = [(ones, first), (others, second)]
        for values, side in sides if repeat % 2 == 0 else reversed(sides):
            gc.collect()
            values.append(side(repeat))
    return ones, others


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, middle and greatest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def comparison(ours: Sequence[float], plain: Sequence[float], unit: str) -> dict[str, Any]:
    """Both sides and their ratios, each from one repeat; above 1 where ours takes less."""
    ratios = [theirs / own for own, theirs in zip(ours, plain, strict=True)]
    return {
        "unit": unit,
        "ours": spread(ours),
        "plain": spread(plain),
        "ratio": spread(ratios),
        "repeats": len(ratios),
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_child(task: str, **arguments: Any) -> dict[str, Any]:
    """Runs a task of `bench.child` in a process of its own; what it found."""
    done = subprocess.run(  # noqa: S603 - this interpreter and this package
        [sys.executable, "-m", "bench.child", task, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the child process of {task} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])

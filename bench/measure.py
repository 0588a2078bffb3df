"""Measures two sides in turns and tasks in child processes."""

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
    """Values of both sides, measured in turns so that other load on the machine affects both.

    Every other repeat begins with the second side.
    """
    sides: list[tuple[list[float], Callable[[int], float]]] = [([], first), ([], second)]
    for repeat in range(repeats):
        for values, side in sides if repeat % 2 == 0 else reversed(sides):
            gc.collect()
            values.append(side(repeat))
    return sides[0][0], sides[1][0]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def comparison(ours: Sequence[float], plain: Sequence[float], unit: str) -> dict[str, Any]:
    """Both sides and their ratios, one per repeat; above 1 where ours is lower."""
    ratios = [other / own for own, other in zip(ours, plain, strict=True)]
    return {
        "unit": unit,
        "ours": spread(ours),
        "plain": spread(plain),
        "ratio": spread(ratios),
        "repeats": len(ratios),
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run_in_child(task: str, **arguments: Any) -> dict[str, Any]:
    """Runs a task of `bench.child` in a process of its own and returns its result."""
    done = subprocess.run(  # noqa: S603 - this interpreter and this package
        [sys.executable, "-m", "bench.child", task, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the child process for {task} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])

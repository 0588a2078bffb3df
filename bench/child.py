"""Measurements that need a process of their own: peak memory and scaling with the questions.

`measure.run_in_child` starts `python -m bench.child TASK ARGUMENTS`, which prints one JSON object.
Memory is the growth of the peak resident set after the models were loaded.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import stages
from bench.pairs import load_pair
from lr_exp.inference.memory import peak_memory_bytes, reset_peak_memory


def sampling(
    pair: str, side: str, rows: int, new_tokens: int, data: str | None
) -> dict[str, float]:
    """Peak memory of sampling with `rows` rows per pass (plain: prefixes; ours: questions)."""
    loaded = load_pair(pair, rows, data)

    def work(folder: Path) -> None:
        if side == "ours":
            stages.sample(loaded, folder, new_tokens=new_tokens, batch_size=rows)
        else:
            (typical,) = loaded.typical(1)
            stages.plain_sample(loaded, [typical], new_tokens=new_tokens, prefixes_per_pass=rows)

    return _growth(work)


def training(
    pair: str, side: str, batch_size: int, new_tokens: int, kept: int, data: str | None
) -> dict[str, float]:
    """Peak memory of two optimizer steps of `batch_size` kept steps."""
    loaded = load_pair(pair, 8, data)
    supervision = stages.synthetic(loaded, new_tokens=new_tokens, kept=kept)

    def work(folder: Path) -> None:
        if side == "ours":
            stages.train(loaded, supervision, steps=1, batch_size=batch_size)
        else:
            stages.plain_train(loaded, supervision, steps=2, batch_size=batch_size)

    return _growth(work)


def evaluation(
    pair: str, side: str, rows: int, new_tokens: int, data: str | None
) -> dict[str, float]:
    """Peak memory of answering `rows` questions at a time (plain: by lm-evaluation-harness)."""
    loaded = load_pair(pair, rows, data)

    def work(folder: Path) -> None:
        if side == "ours":
            stages.evaluate(loaded, folder, new_tokens=new_tokens, batch_size=rows)
        else:
            stages.harness_evaluate(loaded, new_tokens=new_tokens, batch_size=rows)

    return _growth(work)


def scaling(
    pair: str, count: int, new_tokens: int, batch_size: int, data: str | None
) -> dict[str, float]:
    """Seconds per question and peak memory of sampling `count` questions."""
    loaded = load_pair(pair, count, data)
    start = time.perf_counter()
    growth = _growth(
        lambda folder: (
            stages.sample(loaded, folder, new_tokens=new_tokens, batch_size=batch_size) and None
        )
    )
    return {**growth, "seconds": (time.perf_counter() - start) / count}


_TASKS: dict[str, Callable[..., dict[str, float]]] = {
    "sampling": sampling,
    "training": training,
    "evaluation": evaluation,
    "scaling": scaling,
}


def _growth(work: Callable[[Path], None]) -> dict[str, float]:
    reset_peak_memory()
    before = peak_memory_bytes("cpu")
    with tempfile.TemporaryDirectory() as folder:
        work(Path(folder))
    return {"bytes": peak_memory_bytes("cpu") - before}


def main() -> None:
    """Runs the task named on the command line."""
    task, arguments = sys.argv[1:]
    options: dict[str, Any] = json.loads(arguments)
    stages.silence()
    stages.set_threads(options.pop("threads"))
    print(json.dumps(_TASKS[task](**options)))


if __name__ == "__main__":
    main()

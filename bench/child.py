"""What is measured in a process of its own: memory, and how work grows with the questions.

Run by `measure.in_child` as `python -m bench.child TASK ARGUMENTS`; prints one JSON object. Memory
is the growth of the largest resident set over what the process held with its models loaded.
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
    """Peak of sampling with `rows` rows in a pass: questions on our side, prefixes on the other."""
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
    """Peak of two optimizer steps of `batch_size` kept steps."""
    loaded = load_pair(pair, 8, data)
    supervision = stages.synthetic(loaded, new_tokens=new_tokens, kept=kept)

    def work(folder: Path) -> None:
        if side == "ours":
            stages.train(loaded, supervision, steps=1, batch_size=batch_size)
        else:
            stages.plain_train(loaded, supervision, steps=2, batch_size=batch_size)

    return _growth(work)


def scaling(
    pair: str, count: int, new_tokens: int, batch_size: int, data: str | None
) -> dict[str, float]:
    """Sampling of so many questions: seconds a question, and memory."""
    loaded = load_pair(pair, count, data)
    start = time.perf_counter()
    grown = _growth(
        lambda folder: (
            stages.sample(loaded, folder, new_tokens=new_tokens, batch_size=batch_size) and None
        )
    )
    return {**grown, "seconds": (time.perf_counter() - start) / count}


_TASKS: dict[str, Callable[..., dict[str, float]]] = {
    "sampling": sampling,
    "training": training,
    "scaling": scaling,
}


def _growth(work: Callable[[Path], None]) -> dict[str, float]:
    reset_peak_memory()
    before = peak_memory_bytes("cpu")
    with tempfile.TemporaryDirectory() as folder:
        work(Path(folder))
    return {"bytes": peak_memory_bytes("cpu") - before}


def main() -> None:
    """Runs the task that the command line names."""
    task, arguments = sys.argv[1:]
    told: dict[str, Any] = json.loads(arguments)
    stages.quiet()
    stages.threads(told.pop("threads"))
    print(json.dumps(_TASKS[task](**told)))


if __name__ == "__main__":
    main()

"""What several processes gain on this machine, and how much the first one can take from the others.

    python -m bench.ranks [--questions N] [--repeats N]

Runs the micro pair through the program with one process and with as many as there are cores, one
thread each, in turns; then has ranks send shards to the first one, which writes them. Knows
torchrun and the run's record.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.machine import describe
from lr_exp import distributed
from lr_exp.store.shards import write_encoded

_STAGES = ("rollout", "score", "distill", "evaluate")
_SHARD = 4_000_000  # bytes
_SHARDS = 100


def main(words: Sequence[str] | None = None) -> int:
    """Prints Markdown; returns the exit status."""
    if distributed.is_distributed():
        _send()
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.ranks", description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(words)
    most = os.cpu_count() or 2
    counts = (1, most)
    taken: dict[tuple[int, str], list[float]] = {}
    for _ in range(asked.repeats):
        for count in counts:
            for stage, seconds in _run(count, asked.questions).items():
                taken.setdefault((count, stage), []).append(seconds)
    with tempfile.TemporaryDirectory() as place:
        _start(most, "bench.ranks", [], Path(place))
        rate = float((Path(place) / "rate").read_text("ascii"))
    print(_markdown(taken, counts, asked.questions, asked.repeats, rate))
    return 0


def _run(count: int, questions: int) -> dict[str, float]:
    """Seconds of each stage."""
    with tempfile.TemporaryDirectory() as place:
        words = [
            "experiment=demo",
            "benchmarks=[micro_add]",
            f"data.max_questions={questions}",
            "sampler.batch_size=100",
            "evaluator.batch_size=50",
            # Several passes an optimizer step, so that two have something to share.
            "distiller.batch_size=128",
            "distiller.steps=30",
            "wandb.mode=disabled",
            "store=store",
            "hydra.run.dir=run",
        ]
        _start(count, "lr_exp", words, Path(place))
        summary = json.loads((Path(place) / "run" / "summary.json").read_text("utf-8"))
    stages = summary["sample"]["seconds_by_stage"]
    return {
        "rollout": stages["rollout"],
        "score": stages["score"],
        "distill": summary["distill"]["seconds"],
        "evaluate": summary["evaluate"]["seconds"],
    }


def _start(count: int, module: str, words: list[str], folder: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", *(launcher if count > 1 else []), module, *words],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        },
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _send() -> None:
    """On every rank: shards of random bytes to the first one, which writes how fast they came."""
    distributed.join("cpu")
    folder, content = Path.cwd(), os.urandom(_SHARD)
    start = time.perf_counter()
    distributed.distribute_jobs(
        range(_SHARDS),
        lambda number: content,
        lambda number, shard: write_encoded(folder, number, shard),
    )
    seconds = time.perf_counter() - start
    if distributed.is_rank0():
        (folder / "rate").write_text(str(_SHARDS * _SHARD / seconds), "ascii")
    distributed.leave()


def _markdown(
    taken: dict[tuple[int, str], list[float]],
    counts: tuple[int, int],
    questions: int,
    repeats: int,
    rate: float,
) -> str:
    one, most = counts
    machine = describe()
    lines = [
        f"| stage | one process | {most} processes | gain (lowest to highest) |",
        "|---|---:|---:|---:|",
    ]
    for stage in _STAGES:
        alone, shared = taken[one, stage], taken[most, stage]
        gains = sorted(a / b for a, b in zip(alone, shared, strict=True))
        lines.append(
            f"| {stage} | {statistics.median(alone):.1f} s | {statistics.median(shared):.1f} s "
            f"| {statistics.median(gains):.2f}x ({gains[0]:.2f}x to {gains[-1]:.2f}x) |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, torch "
            f"{machine['torch']}, one thread a process; the micro pair, {questions:,} questions, "
            f"128 kept steps an optimizer step; medians of {repeats} repeats in turns. The first "
            f"of {most} ranks takes and writes {rate / 1e6:,.0f} MB/s.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

"""Measures the speedup of several processes on this machine, and how fast rank 0 receives shards.

    python -m bench.ranks [--questions N] [--repeats N]

Runs the program on the micro pair with one process and with one per core, in turns, with one thread
each. Then ranks send shards to rank 0, which writes them.
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
_SHARD_BYTES = 4_000_000
_SHARDS = 100
_ROOT = Path(__file__).resolve().parents[1]


def main(words: Sequence[str] | None = None) -> int:
    """Prints the results as Markdown; returns the exit status."""
    if distributed.is_distributed():
        _send_shards()
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.ranks", description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(words)
    cores = os.cpu_count() or 2
    seconds: dict[tuple[int, str], list[float]] = {}
    for _ in range(args.repeats):
        for count in (1, cores):
            for stage, value in run(count, args.questions).items():
                seconds.setdefault((count, stage), []).append(value)
    with tempfile.TemporaryDirectory() as folder:
        _start(cores, "bench.ranks", [], Path(folder))
        rate = float((Path(folder) / "rate").read_text("ascii"))
    print(_markdown(seconds, cores, args, rate))
    return 0


def run(count: int, questions: int) -> dict[str, float]:
    """Seconds of each stage in a run of `count` processes."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "experiment=demo",
            "benchmarks=[micro_add]",
            f"data.max_questions={questions}",
            "sampler.batch_size=100",
            "evaluator.batch_size=50",
            # Several passes per optimizer step, so that ranks can share them.
            "distiller.batch_size=128",
            "distiller.steps=30",
            "wandb.mode=disabled",
            "store=store",
            "hydra.run.dir=run",
        ]
        _start(count, "lr_exp", words, Path(folder))
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text("utf-8"))
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
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _send_shards() -> None:
    """Sends shards of random bytes to rank 0, which writes them and the bytes per second."""
    distributed.join("cpu")
    folder, content = Path.cwd(), os.urandom(_SHARD_BYTES)
    start = time.perf_counter()
    distributed.distribute_jobs(
        range(_SHARDS),
        lambda number: content,
        lambda number, shard: write_encoded(folder, number, shard),
    )
    seconds = time.perf_counter() - start
    if distributed.is_rank0():
        (folder / "rate").write_text(str(_SHARDS * _SHARD_BYTES / seconds), "ascii")
    distributed.leave()


def _markdown(
    seconds: dict[tuple[int, str], list[float]],
    cores: int,
    args: argparse.Namespace,
    rate: float,
) -> str:
    machine = describe()
    lines = [
        f"| stage | one process | {cores} processes | speedup (lowest to highest) |",
        "|---|---:|---:|---:|",
    ]
    for stage in _STAGES:
        alone, shared = seconds[1, stage], seconds[cores, stage]
        speedups = sorted(a / b for a, b in zip(alone, shared, strict=True))
        lines.append(
            f"| {stage} | {statistics.median(alone):.1f} s | {statistics.median(shared):.1f} s "
            f"| {statistics.median(speedups):.2f}x ({speedups[0]:.2f}x to {speedups[-1]:.2f}x) |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, torch "
            f"{machine['torch']}, one thread per process; the micro pair, {args.questions:,} "
            f"questions, 128 kept steps per optimizer step; medians of {args.repeats} repeats in "
            f"turns. With {cores} ranks, rank 0 receives and writes {rate / 1e6:,.0f} MB/s.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

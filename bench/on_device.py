"""Times the paper's run at its own sizes, with random weights, against the device's peaks."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import cost, stages
from bench.machine import Peaks, describe, peaks, synchronize
from bench.pairs import Pair, load_geometry
from lr_exp.sampler.supervision import Supervision

# Kept steps per answer: the paper's 1000 questions gave about 20,000.
KEPT = 20


@dataclass(frozen=True)
class Sizes:
    """Sizes of the run."""

    questions: int
    steps: int  # optimizer steps
    batch_size: int  # questions per batch
    train_batch_size: int  # kept steps per optimizer step
    tokens_per_pass: int
    new_tokens: int


def run(
    geometry: str, sizes: Sizes, *, device: str, dtype: str, data: str | None
) -> dict[str, Any]:
    """Samples and trains; returns seconds, tokens per second and shares of the peaks by stage."""
    limits = peaks(device, dtype)
    pair = load_geometry(geometry, sizes.questions, data, device=device, dtype=dtype)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = stages.sample(
            pair,
            Path(name),
            new_tokens=sizes.new_tokens,
            batch_size=sizes.batch_size,
            tokens_per_pass=sizes.tokens_per_pass,
            seconds=seconds,
        )
        start = time.perf_counter()
        supervision = stages.supervise(folders, kept_per_answer=KEPT)
        seconds["select"] = time.perf_counter() - start
    start = time.perf_counter()
    stages.train(
        pair,
        supervision,
        steps=sizes.steps - 1,
        batch_size=sizes.train_batch_size,
        device=device,
        tokens_per_pass=sizes.tokens_per_pass,
    )
    synchronize(device)
    seconds["training"] = time.perf_counter() - start
    work = _work(pair, supervision, sizes)
    return {
        "geometry": geometry,
        "machine": describe(device),
        "dtype": dtype,
        "limits": vars(limits),
        "questions": sizes.questions,
        "optimizer_steps": sizes.steps,
        "kept_per_answer": supervision.kept / sizes.questions,
        "seconds": sum(seconds.values()),
        "stages": {name: _shares(seconds[name], *work[name], limits) for name in work},
        "select_seconds": seconds["select"],
    }


def _work(pair: Pair, supervision: Supervision, sizes: Sizes) -> dict[str, tuple[float, cost.Cost]]:
    """Tokens and cost of each stage, where training reads a trajectory once for its kept steps."""
    prompts = [len(prompt) for prompt in pair.prompts()]
    whole = [length + sizes.new_tokens for length in prompts]
    new_tokens = len(prompts) * sizes.new_tokens
    expert = cost.shape_of(pair.expert)
    batches = [
        [(prompt, sizes.new_tokens) for prompt in prompts[start : start + sizes.batch_size]]
        for start in range(0, len(prompts), sizes.batch_size)
    ]
    passes = round(max(1.0, sum(whole) / sizes.tokens_per_pass))
    trained = [len(t.input_ids) for t in supervision.trajectories]
    epochs = sizes.steps * sizes.train_batch_size / supervision.kept
    epoch = cost.training(
        expert, trained, supervision.kept, supervision.kept / sizes.train_batch_size
    )
    return {
        "rollout": (new_tokens, cost.decoding(expert, batches)),
        "score": (
            2 * sum(whole),
            cost.scoring(pair.expert, pair.amateur, whole, new_tokens, passes),
        ),
        "training": (epochs * sum(trained), epoch / (1 / epochs)),
    }


def _shares(seconds: float, tokens: float, work: cost.Cost, limits: Peaks) -> dict[str, float]:
    return {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "share_of_flops": work.flops / seconds / limits.flops,
        "share_of_bandwidth": work.bytes / seconds / limits.bytes,
    }


def report(results: dict[str, Any]) -> str:
    """The results of `run` as text."""
    machine = results["machine"]
    lines = [
        f"{results['geometry']} on {machine.get('gpu', machine['cpu'])}, {results['dtype']}, "
        f"{machine['date']}: {results['questions']:,} questions, {results['optimizer_steps']:,} "
        f"optimizer steps, {results['kept_per_answer']:.1f} kept steps per answer: "
        f"{results['seconds']:.1f} s",
        f"{'stage':<10}{'seconds':>10}{'tokens/s':>12}{'FLOP/s':>9}{'bandwidth':>11}",
    ]
    for name, stage in results["stages"].items():
        lines.append(
            f"{name:<10}{stage['seconds']:>10.1f}{stage['tokens_per_second']:>12,.0f}"
            f"{stage['share_of_flops']:>9.1%}{stage['share_of_bandwidth']:>11.1%}"
        )
    limits = results["limits"]
    lines.append(
        f"shares of {limits['flops'] / 1e12:,.3g} TFLOP/s and {limits['bytes'] / 1e12:,.3g} TB/s "
        f"({limits['source']})"
    )
    return "\n".join(lines)

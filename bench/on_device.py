"""The paper's run in its own sizes with random weights: how long, and how near the device's limits.

Weights do not matter to time. Knows pairs, stages and costs; a GPU is used as `--device` says.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from bench import cost, stages
from bench.machine import Peaks, describe, peaks, synchronize
from bench.pairs import Pair, load_geometry

# Kept steps an answer: the paper's 1000 questions gave about 20,000.
KEPT = 20


def run(
    geometry: str,
    *,
    device: str,
    dtype: str,
    questions: int,
    steps: int,
    batch_size: int,
    tokens_per_pass: int,
    new_tokens: int,
    data: str | None,
    step_size: int = 16,
) -> dict[str, Any]:
    """Samples and trains; seconds, tokens a second and shares of the device's limits by stage."""
    limits = peaks(device, dtype)
    pair = load_geometry(geometry, questions, data, device=device, dtype=dtype)
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = stages.sample(
            pair,
            Path(name),
            new_tokens=new_tokens,
            batch_size=batch_size,
            tokens_per_pass=tokens_per_pass,
            parts=taken,
        )
        start = time.perf_counter()
        supervision = stages.supervise(folders, kept_per_answer=KEPT)
        taken["select"] = time.perf_counter() - start
    start = time.perf_counter()
    stages.train(
        pair,
        supervision,
        steps=steps - 1,
        batch_size=step_size,
        device=device,
        tokens_per_pass=tokens_per_pass,
    )
    synchronize(device)
    taken["training"] = time.perf_counter() - start
    work = _work(pair, supervision, new_tokens, batch_size, tokens_per_pass, steps, step_size)
    return {
        "geometry": geometry,
        "machine": describe(device),
        "dtype": dtype,
        "limits": vars(limits),
        "questions": questions,
        "optimizer_steps": steps,
        "kept_per_answer": supervision.kept / questions,
        "seconds": sum(taken.values()),
        "stages": {name: _shares(taken[name], *work[name], limits) for name in work},
        "select_seconds": taken["select"],
    }


def _work(
    pair: Pair,
    supervision: Any,
    new_tokens: int,
    batch_size: int,
    tokens_per_pass: int,
    steps: int,
    step_size: int,
) -> dict[str, tuple[float, cost.Cost]]:
    """Tokens and cost of each stage. Training reads a trajectory once for its kept steps."""
    lengths = [len(prompt) for prompt in pair.prompts()]
    whole = [length + new_tokens for length in lengths]
    expert = cost.shape(pair.expert)
    trained = [len(t.input_ids) for t in supervision.trajectories]
    rounds = steps * step_size / supervision.kept
    read_once = cost.training(expert, trained, supervision.kept, supervision.kept / step_size)
    passes = max(1.0, sum(whole) / tokens_per_pass)
    return {
        "rollout": (
            len(lengths) * new_tokens,
            cost.decoding(
                expert,
                [
                    [(prompt, new_tokens) for prompt in lengths[start : start + batch_size]]
                    for start in range(0, len(lengths), batch_size)
                ],
            ),
        ),
        "score": (
            2 * sum(whole),
            cost.scoring(
                pair.expert, pair.amateur, whole, len(lengths) * new_tokens, round(passes)
            ),
        ),
        "training": (rounds * sum(trained), read_once / (1 / rounds)),
    }


def _shares(seconds: float, tokens: float, work: cost.Cost, limits: Peaks) -> dict[str, float]:
    return {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "share_of_flops": work.flops / seconds / limits.flops,
        "share_of_bandwidth": work.bytes / seconds / limits.bytes,
    }


def lines(found: dict[str, Any]) -> str:
    """The figures for a terminal."""
    machine = found["machine"]
    told = [
        f"{found['geometry']} on {machine.get('gpu', machine['cpu'])}, {found['dtype']}, "
        f"{machine['date']}: {found['questions']:,} questions, {found['optimizer_steps']:,} "
        f"optimizer steps, {found['kept_per_answer']:.1f} kept steps an answer: "
        f"{found['seconds']:.1f} s",
        f"{'stage':<10}{'seconds':>10}{'tokens/s':>12}{'FLOP/s':>9}{'bandwidth':>11}",
    ]
    for name, one in found["stages"].items():
        told.append(
            f"{name:<10}{one['seconds']:>10.1f}{one['tokens_per_second']:>12,.0f}"
            f"{one['share_of_flops']:>9.1%}{one['share_of_bandwidth']:>11.1%}"
        )
    limits = found["limits"]
    told.append(
        f"shares are of {limits['flops'] / 1e12:,.3g} TFLOP/s and {limits['bytes'] / 1e12:,.3g} "
        f"TB/s ({limits['source']})"
    )
    return "\n".join(told)

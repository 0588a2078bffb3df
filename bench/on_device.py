"""Times the paper's run at its own sizes, with random weights, against the device's peaks."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import cost, stages
from bench.machine import Peaks, describe, peaks, synchronize
from bench.pairs import Pair, load_geometry
from lr_exp.inference.memory import peak_memory_bytes, reset_peak_memory
from lr_exp.sampler.supervision import Supervision

# Kept steps per answer: the paper's 1000 questions gave about 20,000.
KEPT = 20
GSM8K = 1319  # questions of its test set


@dataclass(frozen=True)
class Sizes:
    """Sizes of the run."""

    questions: int
    steps: int  # optimizer steps
    batch_size: int  # questions per batch
    train_batch_size: int  # kept steps per optimizer step
    tokens_per_pass: int
    new_tokens: int
    evaluated: int  # questions, in batches of `batch_size` too
    answer_tokens: int  # new tokens of each of them: random models never stop


def run(
    geometry: str, sizes: Sizes, *, device: str, dtype: str, data: str | None
) -> dict[str, Any]:
    """Samples, trains and evaluates; returns the results of each stage, see `measure`."""
    *_, results = measure(geometry, sizes, device=device, dtype=dtype, data=data)
    return results


def measure(
    geometry: str, sizes: Sizes, *, device: str, dtype: str, data: str | None
) -> Iterator[dict[str, Any]]:
    """Yields the results so far after each stage.

    `stages` has seconds, tokens per second, shares of the peaks and the peak memory of each.
    """
    limits = peaks(device, dtype)
    pair = load_geometry(geometry, sizes.questions, data, device=device, dtype=dtype)
    taken: dict[str, dict[str, float]] = {}
    results: dict[str, Any] = {
        "geometry": geometry,
        "machine": describe(device),
        "dtype": dtype,
        "limits": vars(limits),
        "sizes": vars(sizes),
        "stages": {},
    }

    def report_stage(name: str, tokens: float, work: cost.Cost) -> dict[str, Any]:
        shares = _shares(taken[name]["seconds"], tokens, work, limits)
        results["stages"][name] = taken[name] | shares
        results["seconds"] = sum(stage["seconds"] for stage in taken.values())
        return results

    with tempfile.TemporaryDirectory() as name:
        folders = Path(name, "trajectories"), Path(name, "steps")
        sampled, scored, evaluated = _sampling_work(pair, sizes)
        with _measured("rollout", taken, device):
            options = {"new_tokens": sizes.new_tokens, "batch_size": sizes.batch_size}
            stages.roll_out(pair, folders[0], **options)
        yield report_stage("rollout", *sampled)
        with _measured("score", taken, device):
            stages.score_again(pair, *folders, tokens_per_pass=sizes.tokens_per_pass)
        yield report_stage("score", *scored)
        with _measured("select", taken, device):
            supervision = stages.supervise(folders, kept_per_answer=KEPT)
        results["kept_per_answer"] = supervision.kept / sizes.questions
        results["select_seconds"] = taken["select"]["seconds"]
        with _measured("training", taken, device):
            stages.train(
                pair,
                supervision,
                steps=sizes.steps - 1,
                batch_size=sizes.train_batch_size,
                device=device,
                tokens_per_pass=sizes.tokens_per_pass,
            )
        yield report_stage("training", *_training_work(pair, supervision, sizes))
        some = replace(pair, questions=pair.questions[: sizes.evaluated])
        answers = Path(name, "answers")
        answers.mkdir()
        with _measured("evaluate", taken, device):
            options = {"new_tokens": sizes.answer_tokens, "batch_size": sizes.batch_size}
            stages.evaluate(some, answers, **options)
        # In proportion to the questions, as if every answer had the greatest length.
        seconds = taken["evaluate"]["seconds"] * GSM8K / sizes.evaluated
        results["extrapolated_gsm8k_seconds"] = seconds
        yield report_stage("evaluate", *evaluated)


@contextmanager
def _measured(name: str, taken: dict[str, dict[str, float]], device: str) -> Iterator[None]:
    """Adds `seconds` and `peak_memory_bytes` of a stage, with its models, to `taken`."""
    reset_peak_memory()
    synchronize(device)
    start = time.perf_counter()
    yield
    synchronize(device)
    seconds = time.perf_counter() - start
    taken[name] = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(device)}


Work = tuple[float, cost.Cost]  # tokens and cost of a stage


def _sampling_work(pair: Pair, sizes: Sizes) -> tuple[Work, Work, Work]:
    """Of rollout, score and evaluation."""
    prompts = [len(prompt) for prompt in pair.prompts()]
    whole = [length + sizes.new_tokens for length in prompts]
    new_tokens = len(prompts) * sizes.new_tokens
    passes = round(max(1.0, sum(whole) / sizes.tokens_per_pass))
    return (
        _decoding_work(pair, prompts, sizes.batch_size, sizes.new_tokens),
        (2 * sum(whole), cost.scoring(pair.expert, pair.amateur, whole, new_tokens, passes)),
        _decoding_work(pair, prompts[: sizes.evaluated], sizes.batch_size, sizes.answer_tokens),
    )


def _decoding_work(pair: Pair, prompts: list[int], batch_size: int, new_tokens: int) -> Work:
    batches = [
        [(prompt, new_tokens) for prompt in prompts[start : start + batch_size]]
        for start in range(0, len(prompts), batch_size)
    ]
    return len(prompts) * new_tokens, cost.decoding(cost.shape_of(pair.expert), batches)


def _training_work(pair: Pair, supervision: Supervision, sizes: Sizes) -> Work:
    """Training reads a trajectory once for its kept steps."""
    trained = [len(t.input_ids) for t in supervision.trajectories]
    epochs = sizes.steps * sizes.train_batch_size / supervision.kept
    epoch = cost.training(
        cost.shape_of(pair.expert),
        trained,
        supervision.kept,
        supervision.kept / sizes.train_batch_size,
    )
    return epochs * sum(trained), epoch / (1 / epochs)


def _shares(seconds: float, tokens: float, work: cost.Cost, limits: Peaks) -> dict[str, float]:
    return {
        "tokens_per_second": tokens / seconds,
        "share_of_flops": work.flops / seconds / limits.flops,
        "share_of_bandwidth": work.bytes / seconds / limits.bytes,
    }


def report(results: dict[str, Any]) -> str:
    """The results of `run` as text."""
    machine, sizes = results["machine"], results["sizes"]
    lines = [
        f"{results['geometry']} on {machine.get('gpu', machine['cpu'])}, {results['dtype']}, "
        f"{machine['date']}: {sizes['questions']:,} questions, {sizes['steps']:,} optimizer "
        f"steps, {results['kept_per_answer']:.1f} kept steps per answer: "
        f"{results['seconds']:.1f} s",
        f"{'stage':<10}{'seconds':>10}{'tokens/s':>12}{'FLOP/s':>9}{'bandwidth':>11}{'GiB':>8}",
    ]
    for name, stage in results["stages"].items():
        lines.append(
            f"{name:<10}{stage['seconds']:>10.1f}{stage['tokens_per_second']:>12,.0f}"
            f"{stage['share_of_flops']:>9.1%}{stage['share_of_bandwidth']:>11.1%}"
            f"{stage['peak_memory_bytes'] / 2**30:>8.1f}"
        )
    limits = results["limits"]
    lines += [
        f"shares of {limits['flops'] / 1e12:,.3g} TFLOP/s and {limits['bytes'] / 1e12:,.3g} TB/s "
        f"({limits['source']}); GiB: peak memory",
        f"Evaluated {sizes['evaluated']:,} questions with {sizes['answer_tokens']:,} new tokens "
        f"each; extrapolated, not measured: {results['extrapolated_gsm8k_seconds']:,.0f} s for "
        f"GSM8K's {GSM8K:,}.",
    ]
    return "\n".join(lines)

"""The parts of the benchmark: each measures one quantity and returns JSON-like results."""

import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import cost, stages
from bench.machine import Peaks
from bench.measure import alternate, comparison, run_in_child, spread, timed
from bench.pairs import Pair, has_harness, load_pair
from lr_exp.sampler.step_table import read_columns
from lr_exp.store.shards import read_table, shard_paths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements."""

    questions: int = 32  # per repeat of our side
    plain_questions: int = 1  # per repeat of the plain loop
    batch_size: int = 32  # questions per batch, in sampling and evaluation
    harness_batch_size: int = 8  # against lm-evaluation-harness: several batches of the questions
    harness_tokens: int = 256
    new_tokens: int = 128
    kept: int = 20  # kept steps per trajectory
    optimizer_steps: int = 4  # per repeat of our side
    plain_optimizer_steps: int = 1
    train_batch_size: int = 16  # kept steps per optimizer step
    scaling: tuple[int, ...] = (100, 1_000, 10_000)
    repeats: int = 5


QUICK = Sizes(
    questions=4,
    batch_size=4,
    harness_batch_size=2,
    harness_tokens=6,
    new_tokens=6,
    kept=3,
    optimizer_steps=2,
    train_batch_size=4,
    scaling=(4, 8),
    repeats=2,
)


@dataclass(frozen=True)
class Bench:
    """Options of every part."""

    sizes: Sizes
    data: str | None
    threads: int | None

    def pair(self, name: str) -> Pair:
        return load_pair(name, self.sizes.questions, self.data)


def sampling(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Seconds per question of rollout and scoring, against the plain loop."""
    sizes, by_stage = bench.sizes, []
    batches: list[list[tuple[int, int]]] = []

    def ours(_: int) -> float:
        seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            answers, _steps = stages.sample(
                pair,
                Path(folder),
                new_tokens=sizes.new_tokens,
                batch_size=sizes.batch_size,
                seconds=seconds,
            )
            batches[:] = stages.lengths(answers)  # the same in every repeat
        by_stage.append(seconds)
        return sum(seconds.values()) / len(pair.questions)

    typical = pair.typical(sizes.repeats * sizes.plain_questions)

    def plain(repeat: int) -> float:
        start = repeat * sizes.plain_questions % len(typical)
        chosen = typical[start : start + sizes.plain_questions]
        seconds = timed(lambda: stages.plain_sample(pair, chosen, new_tokens=sizes.new_tokens))
        return seconds / len(chosen)

    result = comparison(*alternate(ours, plain, sizes.repeats), unit="s/question")
    count = len(pair.questions)
    whole = [prompt + new for batch in batches for prompt, new in batch]
    steps = sum(new for batch in batches for _, new in batch)
    floors = {
        "rollout": cost.decoding(cost.shape_of(pair.expert), batches),
        # One pass could hold everything, so weights must be read only once.
        "score": cost.scoring(pair.expert, pair.amateur, whole, steps, passes=1),
    }
    medians = {name: statistics.median(seconds[name] for seconds in by_stage) for name in floors}
    return {**result, "work": _work(floors, medians, count)}


def training(
    bench: Bench, pair: Pair, train_batch_size: int, order: str = "trajectories"
) -> dict[str, Any]:
    """Seconds per kept step, against right-padded rows with full logits and dense labels.

    Args:
        bench: options.
        pair: whose expert is trained.
        train_batch_size: kept steps per optimizer step.
        order: of the kept steps, see `distiller.order`.
    """
    sizes = bench.sizes
    supervision = stages.synthetic(pair, new_tokens=sizes.new_tokens, kept=sizes.kept)

    def ours(_: int) -> float:
        return stages.train(
            pair,
            supervision,
            steps=sizes.optimizer_steps,
            batch_size=train_batch_size,
            order=order,
        )

    def plain(repeat: int) -> float:
        return stages.plain_train(
            pair,
            supervision,
            steps=sizes.plain_optimizer_steps,
            batch_size=train_batch_size,
            seed=repeat,
        )

    result = comparison(*alternate(ours, plain, sizes.repeats), unit="s/kept step")
    # At best each trajectory is read once for all of its kept steps. In the published order, few of
    # them are in one optimizer step, so each prefix is counted.
    lengths = [
        length
        for t in supervision.trajectories
        for length in (
            [t.read_at(k) + 1 for k in range(len(t.steps))]
            if order == "steps"
            else [len(t.input_ids)]
        )
    ]
    floor = cost.training(
        cost.shape_of(pair.expert), lengths, supervision.kept, supervision.kept / train_batch_size
    )
    seconds = {"training": result["ours"]["median"] * supervision.kept}
    work = _work({"training": floor}, seconds, supervision.kept)
    return {**result, "train_batch_size": train_batch_size, "order": order, "work": work}


def memory(bench: Bench, pair_name: str) -> dict[str, Any]:
    """Peak memory above the loaded models, in child processes, at equal rows per pass.

    Evaluation is compared with lm-evaluation-harness, where it is installed.
    """
    sizes, results = bench.sizes, {}
    tasks: dict[str, dict[str, Any]] = {
        "sampling": {"rows": sizes.batch_size, "new_tokens": sizes.new_tokens},
        "training": {
            "batch_size": sizes.train_batch_size,
            "new_tokens": sizes.new_tokens,
            "kept": sizes.kept,
        },
    }
    if has_harness():
        tasks["evaluation"] = {"rows": sizes.batch_size, "new_tokens": sizes.new_tokens}
    for task, options in tasks.items():

        def side(
            name: str, task: str = task, options: dict[str, Any] = options
        ) -> Callable[[int], float]:
            return lambda _: run_in_child(
                task, pair=pair_name, side=name, data=bench.data, threads=bench.threads, **options
            )["bytes"]

        sides = alternate(side("ours"), side("plain"), max(1, sizes.repeats - 1))
        results[task] = comparison(*sides, unit="bytes")
    return results


def evaluation(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Seconds per question of the expert's evaluation, against `generate` one at a time."""
    sizes = bench.sizes

    def ours(_: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds = timed(
                lambda: stages.evaluate(
                    pair, Path(folder), new_tokens=sizes.new_tokens, batch_size=sizes.batch_size
                )
            )
        return seconds / len(pair.questions)

    typical = pair.typical(4)

    def plain(_: int) -> float:
        seconds = timed(lambda: stages.plain_evaluate(pair, typical, new_tokens=sizes.new_tokens))
        return seconds / len(typical)

    return comparison(*alternate(ours, plain, sizes.repeats), unit="s/question")


def harness(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Seconds per question of the expert's evaluation, against lm-evaluation-harness.

    Its Hugging Face backend answers the same questions in batches of the same size.
    """
    sizes = bench.sizes
    limits = {"new_tokens": sizes.harness_tokens, "batch_size": sizes.harness_batch_size}
    answers: dict[str, list[str]] = {}

    def ours(_: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds = timed(lambda: stages.evaluate(pair, Path(folder), **limits))
            rows = read_table(shard_paths(Path(folder)), ["index", "output"]).sort_by("index")
            answers["ours"] = rows["output"].to_pylist()
        return seconds / len(pair.questions)

    def other(_: int) -> float:
        def work() -> None:
            answers["harness"] = stages.harness_evaluate(pair, **limits)

        return timed(work) / len(pair.questions)

    result = comparison(*alternate(ours, other, sizes.repeats), unit="s/question")
    # The library removes spaces at the end of an answer.
    pairs = zip(*answers.values(), strict=True)
    equal = sum(one.strip() == another.strip() for one, another in pairs)
    return {**result, **limits, "equal": equal, "questions": len(pair.questions)}


def scaling(bench: Bench, pair_name: str) -> list[dict[str, float]]:
    """Seconds per question and peak memory by number of questions."""
    sizes = bench.sizes
    return [
        {
            "questions": count,
            **run_in_child(
                "scaling",
                pair=pair_name,
                count=count,
                new_tokens=sizes.new_tokens,
                batch_size=sizes.batch_size,
                data=bench.data,
                threads=bench.threads,
            ),
        }
        for count in sizes.scaling
    ]


def startup(bench: Bench) -> dict[str, Any]:
    """Seconds from starting the program until the micro pair's first answer is written."""

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                *("expert=micro", "amateur=micro", "data=micro", "data.max_questions=1"),
                *("sampler.max_new_tokens=1", "stages=[sample]", "wandb.mode=disabled"),
                *("device=cpu", f"store={folder}/store", f"hydra.run.dir={folder}/run"),
            ]
            start = time.perf_counter()
            program = subprocess.Popen(  # noqa: S603 - this interpreter and this project
                [sys.executable, "-m", "lr_exp", *words],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not any(Path(folder, "store").rglob("shard-*.parquet")):
                if program.poll() is not None:
                    raise RuntimeError(f"python -m lr_exp {' '.join(words)} sampled nothing")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            program.wait()
            return seconds

    return {"unit": "s", **spread([measure() for _ in range(bench.sizes.repeats)])}


def precision(
    bench: Bench, pair: Pair, rounded: Pair | None = None, kept: float | None = None
) -> dict[str, float]:
    """Effect of bf16 weights on the scores of the same answers, with log-softmax in fp32.

    Args:
        bench: options.
        pair: in fp32.
        rounded: the same pair in bf16 (None: it is loaded on the CPU).
        kept: the share of steps that beta keeps in fp32 (None: beta is 0.4).

    Returns:
        `steps`; `kept_otherwise`, the share of steps that only one precision keeps;
        `kl_error_median` and `kl_error_p99`, of the absolute difference in nats; `ratio`, fp32's
        seconds to bf16's.
    """
    if rounded is None:
        rounded = load_pair(pair.name, bench.sizes.questions, bench.data, dtype="bfloat16")
    with tempfile.TemporaryDirectory() as name:
        folder, by_stage = Path(name), {}
        answers, exact = stages.sample(
            pair,
            folder,
            new_tokens=bench.sizes.new_tokens,
            batch_size=bench.sizes.batch_size,
            seconds=by_stage,
        )
        seconds = timed(lambda: stages.score_again(rounded, answers, folder / "rounded"))
        fp32, bf16 = (
            read_columns(shard_paths(place), ["kl"])["kl"] for place in (exact, folder / "rounded")
        )
    error = np.abs(fp32 - bf16)
    beta = stages.BETA if kept is None else float(np.quantile(fp32, 1 - kept))
    return {
        "steps": len(fp32),
        "kept_otherwise": float(((fp32 > beta) != (bf16 > beta)).mean()),
        "kl_error_median": float(np.median(error)),
        "kl_error_p99": float(np.quantile(error, 0.99)),
        "ratio": by_stage["score"] / seconds,
    }


def add_floors(results: dict[str, Any], limits: Peaks) -> None:
    """Adds the minimum time of each stage, and its share of the measured time."""
    for part in COMPARED:
        for result in results.get(part, {}).values():
            for work in result.get("work", {}).values():
                minimum = cost.Cost(work["gflop"] * 1e9, work["gigabytes"] * 1e9)
                work["floor_seconds"] = minimum.floor_seconds(limits)
                work["share"] = work["floor_seconds"] / work["seconds"]


def _work(
    floors: dict[str, cost.Cost], seconds: dict[str, float], count: int
) -> dict[str, dict[str, float]]:
    """Minimum work and measured time of each stage, per question or kept step (`count`)."""
    return {
        name: {
            "gflop": floor.flops / count / 1e9,
            "gigabytes": floor.bytes / count / 1e9,
            "seconds": seconds[name] / count,
        }
        for name, floor in floors.items()
    }


PARTS: Sequence[str] = (
    *("sampling", "training", "evaluation", "harness"),
    *("precision", "memory", "scaling", "startup"),
)
# Comparisons on a pair, in the order in which they run and appear.
COMPARED: Sequence[str] = (
    *("sampling", "training", "training_whole", "training_order", "evaluation", "harness"),
)


def _pair_measurements(bench: Bench, name: str) -> dict[str, Callable[[Pair], dict[str, Any]]]:
    """Measurements of a loaded pair.

    In `training_whole` an optimizer step has as many kept steps as a trajectory, so that each
    trajectory is read once; `training_order` is the published order.
    """
    sizes = bench.sizes
    measurements: dict[str, Callable[[Pair], dict[str, Any]]] = {
        "sampling": partial(sampling, bench),
        "training": partial(training, bench, train_batch_size=sizes.train_batch_size),
        "training_whole": partial(training, bench, train_batch_size=sizes.kept),
        "training_order": partial(
            training, bench, train_batch_size=sizes.train_batch_size, order="steps"
        ),
        "evaluation": partial(evaluation, bench),
        "harness": partial(harness, bench),
        "precision": partial(precision, bench),
    }
    if name == "micro" or not has_harness():
        del measurements["harness"]  # the library decodes words to a text with other tokens
    return measurements


def run(bench: Bench, pair_names: Sequence[str], only: Sequence[str]) -> dict[str, Any]:
    """Runs the parts in `only`: results by part and pair; those of `startup` have no pair."""
    results: dict[str, Any] = {}
    for name in pair_names:
        selected = {
            part: measure
            for part, measure in _pair_measurements(bench, name).items()
            if part.partition("_")[0] in only
        }
        if selected:
            loaded = bench.pair(name)
            for part, measure in selected.items():
                log.info("%s of %s", part, name)
                results.setdefault(part, {})[name] = measure(loaded)
            del loaded
        if "memory" in only:
            log.info("memory of %s", name)
            results.setdefault("memory", {})[name] = memory(bench, name)
    if "scaling" in only:
        log.info("scaling")
        results["scaling"] = {"micro": scaling(bench, "micro")}
    if "startup" in only:
        log.info("start-up")
        results["startup"] = startup(bench)
    return results

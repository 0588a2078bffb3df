"""The parts of the benchmark: each measures one thing on both sides and returns plain figures.

Knows what is compared with what and at which sizes; knows nothing of tables.
"""

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
from bench.measure import alternate, comparison, in_child, spread, timed
from bench.pairs import Pair, load_pair
from lr_exp.sampler.step_table import read_columns
from lr_exp.store.shards import shard_paths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    questions: int = 32  # ours, a repeat
    plain_questions: int = 1  # of the plain loop, a repeat
    batch_size: int = 32  # questions of a batch, in sampling and in evaluation
    new_tokens: int = 128
    kept: int = 20  # kept steps a trajectory
    optimizer_steps: int = 4  # ours, a repeat
    plain_optimizer_steps: int = 1
    step_size: int = 16  # kept steps of an optimizer step
    scaling: tuple[int, ...] = (100, 1_000, 10_000)
    repeats: int = 5


QUICK = Sizes(
    questions=4,
    batch_size=4,
    new_tokens=6,
    kept=3,
    optimizer_steps=2,
    step_size=4,
    scaling=(4, 8),
    repeats=2,
)


@dataclass(frozen=True)
class Bench:
    """What every part is given."""

    sizes: Sizes
    data: str | None
    threads: int | None

    def pair(self, name: str) -> Pair:
        return load_pair(name, self.sizes.questions, self.data)


def sampling(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Seconds a question: rollout and scoring, against the plain loop."""
    sizes, parts = bench.sizes, []
    batches: list[list[tuple[int, int]]] = []

    def ours(_: int) -> float:
        told: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            answers, _steps = stages.sample(
                pair,
                Path(folder),
                new_tokens=sizes.new_tokens,
                batch_size=sizes.batch_size,
                parts=told,
            )
            batches[:] = stages.lengths(answers)  # the same in every repeat
        parts.append(told)
        return sum(told.values()) / len(pair.questions)

    places = pair.typical(sizes.repeats * sizes.plain_questions)

    def plain(repeat: int) -> float:
        start = repeat * sizes.plain_questions % len(places)
        chosen = places[start : start + sizes.plain_questions]
        work = timed(lambda: stages.plain_sample(pair, chosen, new_tokens=sizes.new_tokens))
        return work / len(chosen)

    compared = comparison(*alternate(ours, plain, sizes.repeats), unit="s/question")
    count = len(pair.questions)
    whole = [prompt + written for batch in batches for prompt, written in batch]
    steps = sum(written for batch in batches for _, written in batch)
    floors = {
        "rollout": cost.decoding(cost.shape(pair.expert), batches),
        # A pass could hold all: weights must be read once.
        "score": cost.scoring(pair.expert, pair.amateur, whole, steps, passes=1),
    }
    taken = {name: statistics.median(told[name] for told in parts) for name in floors}
    return {**compared, "work": _work(floors, taken, count)}


def training(bench: Bench, pair: Pair, step_size: int) -> dict[str, Any]:
    """Seconds a kept step, against right-padded rows with full logits and dense labels.

    Args:
        step_size: kept steps of an optimizer step.
    """
    sizes = bench.sizes
    supervision = stages.synthetic(pair, new_tokens=sizes.new_tokens, kept=sizes.kept)

    def ours(_: int) -> float:
        return stages.train(pair, supervision, steps=sizes.optimizer_steps, batch_size=step_size)

    def plain(repeat: int) -> float:
        return stages.plain_train(
            pair,
            supervision,
            steps=sizes.plain_optimizer_steps,
            batch_size=step_size,
            seed=repeat,
        )

    compared = comparison(*alternate(ours, plain, sizes.repeats), unit="s/kept step")
    # At best every trajectory is read once for all of its kept steps.
    lengths = [len(t.input_ids) for t in supervision.trajectories]
    floor = cost.training(
        cost.shape(pair.expert), lengths, supervision.kept, supervision.kept / step_size
    )
    taken = {"training": compared["ours"]["median"] * supervision.kept}
    work = _work({"training": floor}, taken, supervision.kept)
    return {**compared, "step_size": step_size, "work": work}


def memory(bench: Bench, pair_name: str) -> dict[str, Any]:
    """Peak memory over the loaded models in child processes, at the same rows a pass."""
    sizes, found = bench.sizes, {}
    tasks: dict[str, dict[str, Any]] = {
        "sampling": {"rows": sizes.batch_size, "new_tokens": sizes.new_tokens},
        "training": {
            "batch_size": sizes.step_size,
            "new_tokens": sizes.new_tokens,
            "kept": sizes.kept,
        },
    }
    for task, told in tasks.items():

        def side(name: str, task: str = task, told: dict[str, Any] = told) -> Callable[..., float]:
            return lambda _: in_child(
                task, pair=pair_name, side=name, data=bench.data, threads=bench.threads, **told
            )["bytes"]

        sides = alternate(side("ours"), side("plain"), max(1, sizes.repeats - 1))
        found[task] = comparison(*sides, unit="bytes")
    return found


def evaluation(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Seconds a question of the expert's evaluation, against `generate` one at a time."""
    sizes = bench.sizes

    def ours(_: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            work = timed(
                lambda: stages.evaluate(
                    pair, Path(folder), new_tokens=sizes.new_tokens, batch_size=sizes.batch_size
                )
            )
        return work / len(pair.questions)

    places = pair.typical(4)

    def plain(_: int) -> float:
        work = timed(lambda: stages.plain_evaluate(pair, places, new_tokens=sizes.new_tokens))
        return work / len(places)

    return comparison(*alternate(ours, plain, sizes.repeats), unit="s/question")


def scaling(bench: Bench, pair_name: str) -> list[dict[str, float]]:
    """Seconds a question and memory at growing numbers of questions."""
    sizes = bench.sizes
    return [
        {
            "questions": count,
            **in_child(
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
    """Seconds from calling the program until the first answer of the micro pair is on the disk."""

    def once() -> float:
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

    return {"unit": "s", **spread([once() for _ in range(bench.sizes.repeats)])}


def precision(bench: Bench, pair: Pair) -> dict[str, float]:
    """What bf16 weights change in the scores of the same answers, log-softmax in fp32 both times.

    Returns:
        `steps`, `kept_otherwise` (share of steps that one of both keeps), `kl_error` (nats: median
        and 99th percentile of the difference), `ratio` (fp32's seconds to bf16's).
    """
    rounded = load_pair(pair.name, bench.sizes.questions, bench.data, dtype="bfloat16")
    with tempfile.TemporaryDirectory() as name:
        folder, told = Path(name), {}
        answers, exact = stages.sample(
            pair,
            folder,
            new_tokens=bench.sizes.new_tokens,
            batch_size=bench.sizes.batch_size,
            parts=told,
        )
        seconds = timed(lambda: stages.score_again(rounded, answers, folder / "rounded"))
        one, other = (
            read_columns(shard_paths(place), ["kl"])["kl"] for place in (exact, folder / "rounded")
        )
    error = np.abs(one - other)
    return {
        "steps": len(one),
        "kept_otherwise": float(((one > stages.BETA) != (other > stages.BETA)).mean()),
        "kl_error_median": float(np.median(error)),
        "kl_error_p99": float(np.quantile(error, 0.99)),
        "ratio": told["score"] / seconds,
    }


def with_floors(found: dict[str, Any], limits: Peaks) -> None:
    """Adds to the work of every stage the least time that it needs, and the share reached."""
    for part in COMPARED:
        for figures in found.get(part, {}).values():
            for one in figures.get("work", {}).values():
                need = cost.Cost(one["gflop"] * 1e9, one["gigabytes"] * 1e9)
                one["floor_seconds"] = need.floor_seconds(limits)
                one["share"] = one["floor_seconds"] / one["seconds"]


def _work(
    floors: dict[str, cost.Cost], taken: dict[str, float], count: int
) -> dict[str, dict[str, float]]:
    """What each stage must do and the time it takes, for each of `count` questions or steps."""
    return {
        name: {
            "gflop": floor.flops / count / 1e9,
            "gigabytes": floor.bytes / count / 1e9,
            "seconds": taken[name] / count,
        }
        for name, floor in floors.items()
    }


PARTS: Sequence[str] = (
    *("sampling", "training", "evaluation", "precision", "memory", "scaling", "startup"),
)
# Parts that have a pair, in the order in which they are measured and shown.
COMPARED: Sequence[str] = ("sampling", "training", "training_whole", "evaluation")


def _of_pair(bench: Bench) -> dict[str, Callable[[Pair], dict[str, Any]]]:
    """What is measured on a loaded pair.

    Training twice: the second time an optimizer step has as many kept steps as a trajectory, so
    that each is read once.
    """
    sizes = bench.sizes
    return {
        "sampling": partial(sampling, bench),
        "training": partial(training, bench, step_size=sizes.step_size),
        "training_whole": partial(training, bench, step_size=sizes.kept),
        "evaluation": partial(evaluation, bench),
        "precision": partial(precision, bench),
    }


def _named(part: str) -> str:
    return part.partition("_")[0]


def run(bench: Bench, pair_names: Sequence[str], only: Sequence[str]) -> dict[str, Any]:
    """The parts asked for, on each pair: `{part: {pair: figures}}`, and what has no pair."""
    found: dict[str, Any] = {}
    for name in pair_names:
        asked = {part: work for part, work in _of_pair(bench).items() if _named(part) in only}
        if asked:
            loaded = bench.pair(name)
            for part, work in asked.items():
                log.info("%s of %s", part, name)
                found.setdefault(part, {})[name] = work(loaded)
            del loaded
        if "memory" in only:
            log.info("memory of %s", name)
            found.setdefault("memory", {})[name] = memory(bench, name)
    if "scaling" in only:
        log.info("scaling")
        found["scaling"] = {"micro": scaling(bench, "micro")}
    if "startup" in only:
        log.info("start-up")
        found["startup"] = startup(bench)
    return found

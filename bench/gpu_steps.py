"""The steps of `bench.gpu`, each in a process of its own.

`python -m bench.gpu_steps STEP OPTIONS FILE` takes the options as JSON. A step yields its results
so far, and each replaces the JSON in FILE: a step that is stopped leaves what it has measured.
"""

import copy
import csv
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from bench import kernels, on_device, parts, ranks, stages
from bench.machine import data_sheet, describe, measured_peaks
from bench.pairs import GEOMETRY, Pair, device_dtype, load_geometry, load_pair
from lr_exp.config.settings import ATTENTIONS, DistillerSettings
from lr_exp.distiller.adapter_files import ADAPTER
from lr_exp.errors import first_line
from lr_exp.inference.decoding import PromptedModel, decode
from lr_exp.inference.memory import free_memory
from lr_exp.inference.strategies import greedy
from lr_exp.models.loading import LanguageModel
from lr_exp.models.probing import probe
from lr_exp.models.random_models import random_model
from lr_exp.sampler.step_table import read_columns
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import write_atomically
from lr_exp.store.shards import read_shard, shard_paths

Results = Iterator[dict[str, Any]]

_REPORTED = (  # columns of the ablation's table, accuracies in percent
    *("variant", "benchmark", "accuracy", "accuracy_low", "accuracy_high"),
    *("gain", "gain_low", "gain_high", "n", "seeds"),
)


@dataclass(frozen=True)
class Options:
    """What a step needs."""

    device: str
    scratch: Path  # a folder for files; kept if the step fails, so that it can resume
    toy: bool  # tiny models and few questions

    @property
    def geometry(self) -> str:
        return "tiny" if self.toy else "qwen_math_1_5b"

    def size(self, real: int, toy: int) -> int:
        return toy if self.toy else real

    def load(self, geometry: str, questions: int, dtype: str | None = None) -> Pair:
        dtype = dtype or device_dtype(self.device)
        return load_geometry(geometry, questions, None, device=self.device, dtype=dtype)


def environment(options: Options) -> Results:
    """The device, its software, its usable attention and its peaks beside those published."""
    device = options.device
    on_gpu = torch.device(device).type == "cuda"
    machine = describe(device) | {"python": sys.version.split()[0]}
    machine["peft"] = importlib.metadata.version("peft")
    results: dict[str, Any] = {"machine": machine}
    if on_gpu:
        properties = torch.cuda.get_device_properties(device)
        results["gpu"] = {
            "count": torch.cuda.device_count(),
            "memory_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            **_attempt(lambda: {"driver": _driver_version()}),
        }
    yield results
    results["attention"] = {
        name: _attempt(lambda name=name: _probe_attention(name, device)) for name in ATTENTIONS
    }
    yield results
    results["peaks"] = {
        dtype: vars(measured_peaks(device, dtype, size=options.size(8192, 256)))
        for dtype in ("float32", "bfloat16")
    }
    if on_gpu:
        sheet = _attempt(lambda: vars(data_sheet(machine["gpu"])))
        results["peaks"]["bfloat16, dense"] = sheet
    yield results


def micro(options: Options) -> Results:
    """The micro pair in fp32 on the device against the CPU, on the same questions."""
    devices, count = ("cpu", options.device), options.size(200, 6)
    pairs = [load_pair("micro", count, None, device=device) for device in devices]
    sizes: Any = {"new_tokens": options.size(128, 48), "batch_size": options.size(100, 3)}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, place) for place in ("cpu", "device")]
        for folder in folders:
            folder.mkdir()
        answers, steps = stages.sample(pairs[0], folders[0], **sizes)
        other_answers, _ = stages.sample(pairs[1], folders[1], **sizes)
        equal = [a == b for a, b in zip(_answers(answers), _answers(other_answers), strict=True)]
        # The device scores the CPU's answers, so that every token position has a counterpart.
        rescored = Path(name, "rescored")
        stages.score_again(pairs[1], answers, rescored)
        kl, other_kl = (
            read_columns(shard_paths(table), ["kl"])["kl"] for table in (steps, rescored)
        )
        supervision = stages.supervise((answers, steps))
        labels = _labels(supervision), _labels(stages.supervise((answers, rescored)))
        results: dict[str, Any] = {
            "answers": len(equal),
            "equal_answers": sum(equal),
            "steps": len(kl),
            "kept": int((kl > stages.BETA).sum()),
            "kept_on_one_device_only": int(((kl > stages.BETA) != (other_kl > stages.BETA)).sum()),
            "kl_difference_nats": _spread(np.abs(kl - other_kl)),
            "label_weight_difference": _spread(
                [
                    abs(labels[0][step].get(token, 0.0) - labels[1][step].get(token, 0.0))
                    for step in labels[0].keys() & labels[1].keys()
                    for token in labels[0][step].keys() | labels[1][step].keys()
                ]
            ),
        }
        yield results
        losses, adapters = zip(
            *(
                _tuned(pair, supervision, folder, device, options.size(20, 3))
                for pair, folder, device in zip(pairs, folders, devices, strict=True)
            ),
            strict=True,
        )
    results |= {
        "optimizer_steps": len(losses[0]),
        "final_loss": {"cpu": losses[0][-1], "device": losses[1][-1]},
        "loss_difference_nats": _spread(np.abs(np.subtract(*losses))),
        "adapter_relative_difference": float(
            (adapters[0] - adapters[1]).norm() / adapters[0].norm()
        ),
    }
    yield results


def _tuned(
    pair: Pair, supervision: Supervision, folder: Path, device: str, steps: int
) -> tuple[list[float], torch.Tensor]:
    """The loss of each optimizer step, and the B matrices, which start at zero.

    Without dropout, whose masks differ between devices.
    """
    losses: list[float] = []
    stages.tune(
        pair,
        supervision,
        folder,
        DistillerSettings(steps=steps, log_every=1, lora_dropout=0.0, tokens_per_pass=1024),
        device=device,
        on_log=lambda _, entry: losses.append(entry["loss"]),
    )
    weights = load_file(folder / ADAPTER / "adapter_model.safetensors")
    return losses, torch.cat([weights[name].flatten() for name in weights if "lora_B" in name])


def papers_run(geometry: str, options: Options) -> Results:
    """The paper's run with random weights of an expert's size."""
    sizes = on_device.Sizes(
        questions=options.size(1000, 6),
        steps=options.size(1000, 3),
        batch_size=options.size(500, 3),
        train_batch_size=16,
        tokens_per_pass=4096,
        new_tokens=options.size(128, 24),
        evaluated=options.size(256, 4),
        answer_tokens=options.size(512, 8),
    )
    yield from on_device.measure(
        options.geometry if options.toy else geometry,
        sizes,
        device=options.device,
        dtype=device_dtype(options.device),
        data=None,
    )


def compiled(options: Options) -> Results:
    """A decoding step and a training pass, eager and with `torch.compile`, on fixed shapes."""
    pair = options.load(options.geometry, 64)
    batch = kernels.training_batch(pair, options.size(128, 12), on_device.KEPT)
    sizes = {"rows": options.size(256, 4), "prompt": options.size(128, 8)}
    results: dict[str, Any] = {**sizes, "train_tokens": batch["input_ids"].numel()}
    results |= {"decode": {}, "train": {}}
    variants: dict[str, kernels.Variant] = {
        "eager": None,
        "compiled, CUDA graphs": "reduce-overhead",
        "compiled": "default",
    }
    steps, passes = options.size(32, 3), options.size(20, 2)
    for name, variant in variants.items():
        measures = {
            "decode": partial(kernels.decoding_seconds, pair, variant, steps=steps, **sizes),
            "train": partial(kernels.training_seconds, pair, variant, batch, passes=passes),
        }
        for part, measure in measures.items():
            torch._dynamo.reset()
            free_memory()
            found = results[part][name] = _attempt(measure)
            eager = results[part]["eager"]
            if "seconds" in found and "seconds" in eager:
                found["speedup"] = eager["seconds"] / found["seconds"]
            yield results


def precision(options: Options) -> Results:
    """Scores in bf16 against fp32: the micro pair, and random weights of the paper's size."""
    results: dict[str, Any] = {
        "note": "Random weights show how far bf16 moves the KL at this size, not how often a "
        "trained model's steps cross beta; beta keeps as many as in the paper's run."
    }
    sizes = parts.Sizes(
        questions=options.size(200, 4),
        batch_size=options.size(100, 4),
        new_tokens=options.size(128, 24),
    )
    bench = parts.Bench(sizes, None, None)
    pair = load_pair("micro", sizes.questions, None, device=options.device)
    results["micro"] = parts.precision(bench, pair, _rounded(pair))
    yield results
    kept = min(0.5, on_device.KEPT / sizes.new_tokens)

    def geometry() -> dict[str, float]:
        pair = options.load(options.geometry, sizes.questions, "float32")
        return parts.precision(bench, pair, _rounded(pair), kept=kept)

    results[f"{options.geometry}, random weights"] = _attempt(geometry)
    yield results


def _rounded(pair: Pair) -> Pair:
    """The same two models with their weights in bf16."""

    def rounded(model: LanguageModel) -> LanguageModel:
        return replace(model, model=copy.deepcopy(model.model).to(torch.bfloat16))

    return replace(pair, expert=rounded(pair.expert), amateur=rounded(pair.amateur))


def ablation(options: Options) -> Results:
    """The micro world's ablation on the device, and its report's tables."""
    runs, report = options.scratch / "runs", options.scratch / "report"
    words = ["-m", "+sweep=micro_ablation", f"device={options.device}", "wandb.mode=disabled"]
    words += [f"hydra.sweep.dir={runs}", f"store={options.scratch / 'store'}"]
    if options.toy:
        words += ["method=lightreasoner,neither", "seed=0", "benchmarks=[micro_add]"]
        words += ["data.max_questions=20", "distiller.steps=2", "evaluator.max_examples=4"]
    start = time.perf_counter()
    _run_module("lr_exp", *words)
    results: dict[str, Any] = {"seconds": time.perf_counter() - start}
    _run_module("lr_exp.report", str(runs), "--out", str(report))
    with (report / "micro_ablation.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: _number(row[name]) for name in _REPORTED} for row in csv.DictReader(file)]
    yield results | {"micro_ablation": rows}


def ranks_of_two(options: Options) -> Results:
    """The micro pair's run by one process and by two, where there are two GPUs."""
    on_gpu = torch.device(options.device).type == "cuda"
    if not on_gpu or torch.cuda.device_count() < 2:
        yield {"note": "one device"}
        return
    questions = options.size(2000, 20)
    results: dict[str, Any] = {"questions": questions}
    for count in (1, 2):
        results[f"{count}"] = ranks.run(count, questions)
        yield results


def profile(options: Options) -> Results:
    """Kernels, launches and idle time of decoding steps and of training passes."""
    pair = options.load(options.geometry, options.size(256, 4))
    batch = kernels.training_batch(pair, options.size(128, 12), on_device.KEPT)
    results: dict[str, Any] = {
        "rows": len(pair.questions),
        "train_tokens": batch["input_ids"].numel(),
        "pass": {},
    }
    count, prompts = options.size(16, 3), [PromptedModel(pair.expert, pair.prompts())]

    def train(model: Any) -> None:
        for _ in range(count):
            kernels.training_pass(pair, model, batch)

    def add(name: str, work: Callable[[], Any]) -> dict[str, Any]:
        facts, longest = kernels.profile(work, count, options.device)
        results["pass"][name], results[f"kernels, {name}"] = facts, longest
        return results

    yield add("decode", lambda: decode(prompts, greedy, max_new_tokens=count))
    with stages.lora(pair) as model:
        yield add("train", lambda: train(model))


STEPS: dict[str, Callable[[Options], Results]] = {
    "environment": environment,
    "micro": micro,
    "qwen_math_1_5b": partial(papers_run, "qwen_math_1_5b"),
    "qwen_math_7b": partial(papers_run, "qwen_math_7b"),
    "compiled": compiled,
    "precision": precision,
    "ablation": ablation,
    "ranks": ranks_of_two,
    "profile": profile,
}


def _attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result, or the error in one line."""
    try:
        return measure()
    except Exception as error:  # libraries fail with their own
        return {"error": first_line(error.__cause__ or error)[:200]}  # pyright: ignore


def _probe_attention(name: str, device: str) -> dict[str, Any]:
    """Whether a model with this attention can read packed sequences and padded rows."""
    model = random_model(GEOMETRY / "tiny", device, device_dtype(device), name, "expert")
    packs, caches = probe(model.eval().requires_grad_(False), name)
    return {"packs": packs, "caches": caches}


def _driver_version() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.split()[0]


def _answers(trajectories: Path) -> list[list[int]]:
    """Token ids of the answers, in the questions' order."""
    rows = [row for path in shard_paths(trajectories) for row in read_shard(path)]
    return [row["token_ids"] for row in sorted(rows, key=lambda row: row["index"])]


def _labels(supervision: Supervision) -> dict[tuple[int, int], dict[int, float]]:
    """The weights by token of each kept step: an answer and a token position."""
    return {
        (one.index, step): label
        for one in supervision.trajectories
        for step, label in zip(one.steps, one.labels, strict=True)
    }


def _spread(values: Any) -> dict[str, float]:
    return {"median": float(np.median(values)), "max": float(np.max(values))}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _run_module(*words: str) -> None:
    """Runs a module; its output goes to this process's."""
    subprocess.run([sys.executable, "-m", *words], check=True)  # noqa: S603 - our own


def main() -> None:
    """Runs the step named on the command line."""
    name, options, path = sys.argv[1:]
    given = json.loads(options)
    stages.silence()
    for results in STEPS[name](Options(given["device"], Path(given["scratch"]), given["toy"])):
        write_atomically(Path(path), json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

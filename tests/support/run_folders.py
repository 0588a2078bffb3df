"""Writes run folders as the pipeline does, for tests of reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.report.names import HUB_IDS
from lr_exp.store.run_folder import answers_file

Right = dict[str, Sequence[int]]  # benchmark: each question's grade, 0 or 1


def write_run(
    folder: Path,
    *,
    method: str | None = "lightreasoner",
    expert: str = "micro",
    amateur: str | None = "micro",
    data: str = "micro",
    alpha: float | None = 0.2,
    beta: float | None = 0.4,
    seed: int = 0,
    sweep: str | None = None,
    decoder: str = "greedy",
    before: Right | None = None,
    after: Right | None = None,
    prompts: dict[str, tuple[Right, Right]] | None = None,
    answers: bool = True,
    **changed: Any,
) -> Path:
    """A finished run's folder. `changed` replaces keys: `settings__seed=3` is settings.seed.

    Args:
        before, after: grades with the prompt `chat`.
        prompts: grades before and after with other prompts.
    """
    before = {"micro_add": [0, 0, 0, 1]} if before is None else before
    after = {"micro_add": [1, 1, 0, 1]} if after is None else after
    asked = {"chat": (before, after), **(prompts or {})}
    results = {
        prompt: {
            who: {name: result(sum(right), len(right)) for name, right in own.items()}
            for who, own in zip(("expert", "tuned"), pair, strict=True)
        }
        for prompt, pair in asked.items()
    }
    model = {"path": None, "revision": None}
    counts = [700, 50, 30, 20, *[4] * 40, *[40, 0] * 3]
    nats = [count * (0.05 + 0.1 * i) for i, count in enumerate(counts)]
    summary: dict[str, Any] = {
        "method": method,
        "expert": expert,
        "amateur": amateur,
        "data": data,
        "alpha": alpha,
        "beta": beta,
        "seed": seed,
        "sweep": sweep,
        "stages": ["sample", "distill", "evaluate"],
        "provenance": {
            "expert": {**model, "fingerprint": f"of {expert}"},
            "amateur": {**model, "fingerprint": f"of {amateur}"} if amateur else None,
            "data": f"of {data}",
            "questions": f"{data} drawn by {seed}",
            "benchmarks": {name: f"of {name}" for name in before},
            "device": "cpu",
            "device_name": "a CPU",
            "dtype": "float32",
        },
        "settings": {
            "expert": {"name": expert, "path": HUB_IDS.get(expert)},
            "amateur": {"name": amateur or "micro", "path": HUB_IDS.get(amateur or "micro")},
            "data": {"name": data, "path": None, "max_questions": 20},
            "method": {"name": method, "select": "all"},
            "sampler": {"max_new_tokens": 128, "batch_size": 16, "export": None},
            "distiller": {"steps": 100, "learning_rate": 1e-4},
            "evaluator": {"max_new_tokens": 2048, "batch_size": 32, "decoder": decoder},
            "wandb": {"name": f"run {seed}"},
            "benchmarks": list(before),
            "alpha": alpha or 0.2,
            "beta": beta or 0.4,
            "seed": seed,
            "store": str(folder / "store"),
        },
        "versions": {"lr_exp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "sample": {
            "questions": 20,
            "steps": 1000,
            "kept": 200,
            "kept_share": 0.2,
            "kl_mean": 0.3,
            "kl_mean_same_top1": 0.1,
            "kl_mean_other_top1": 2.0,
            "share_same_top1": 0.9,
            "share_below_0.1": 0.7,
            "share_above_0.4": 0.2,
            "expert_entropy_mean": 0.3,
            "amateur_entropy_mean": 0.6,
            "histogram": {"bin_nats": 0.1, "counts": counts, "nats": nats},
            "generated_tokens": 1000,
            "seconds": 3.0,
            "seconds_by_stage": {"rollout": 2.0, "score": 1.0},
        },
        "distill": {
            "optimizer_steps": 100,
            "tuned_tokens": 1600,
            "kept_steps": 200,
            "final_loss": 0.1,
            "seconds": 5.0,
        },
        "evaluate": {"decoder": decoder, **results["chat"], "prompts": results, "seconds": 2.0},
        "peak_memory_bytes": 2**30,
    }
    for path, value in changed.items():
        *above, key = path.split("__")
        inner = summary
        for name in above:
            inner = inner[name]
        inner[key] = value
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for prompt, pair in asked.items() if answers else ():
        for who, graded in zip(("expert", "tuned"), pair, strict=True):
            for name, right in graded.items():
                path = folder / answers_file(who, name, None if prompt == "chat" else prompt)
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = [{"id": f"{name}/{i}", "correct": bool(r)} for i, r in enumerate(right)]
                text = "".join(json.dumps(line) + "\n" for line in lines)
                path.write_text(text, encoding="utf-8")
    return folder


def write_metrics(folder: Path, entropies: dict[int, float]) -> None:
    lines = [
        {"family": "distill", "step": step, "loss": 0.1, "entropy": entropy}
        for step, entropy in entropies.items()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_failed(folder: Path, error: str, **choices: Any) -> Path:
    names = ("expert", "amateur", "method", "data", "alpha", "beta", "seed", "sweep")
    folder.mkdir(parents=True)
    record = {"error": error, **dict.fromkeys(names), "learning_rate": 1e-4, "overrides": []}
    record |= choices
    (folder / "failed.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def result(correct: int, total: int) -> dict[str, Any]:
    """One model on one benchmark, as in `summary.json`."""
    p = correct / total
    stderr = (p * (1 - p) / total) ** 0.5
    return {"accuracy": p, "correct": correct, "total": total, "stderr": stderr}


def _share(value: float) -> dict:
    return {"share": value, "stderr": 0.1, "ci95": [value - 0.2, value + 0.1], "total": 4}


def _sampled(k: int, avg: float, passed: float, maj: float) -> dict:
    passes = {"1": _share(avg), str(k): _share(passed)}
    return {"micro_add": {"avg": _share(avg), "pass_at": passes, "maj": _share(maj)}}


# Eight samples a question, as `evaluate.samples` of `summary.json`.
SAMPLES = {
    "samples": 8,
    "temperature": 0.7,
    "expert": _sampled(8, 0.3, 0.7, 0.25),
    "tuned": _sampled(8, 0.5, 0.8, 0.6),
    "coverage": {
        "micro_add": {"won": 2, "had_right": 1, "both_wrong": 1, "both_wrong_had_right": 0}
    },
    "seconds": 12.0,
}


def write_hydra(folder: Path, overrides: str = "- seed=3\n- +sweep=mine\n") -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(overrides, encoding="utf-8")
    return folder


THREE = {name: [0, 0, 1, 1] for name in ("micro_add", "micro_long", "micro_plain")}
BETTER = {name: [1, 0, 1, 1] for name in THREE}


def everything(folder: Path) -> Path:
    """Runs with the data for every figure."""
    for method, seconds in (("lightreasoner", 5.0), ("no_contrast", 500.0)):
        for seed in (0, 1):
            run = write_run(
                folder / f"{method} {seed}",
                method=method,
                seed=seed,
                sweep="micro_ablation",
                before=THREE,
                after=BETTER,
                distill__seconds=seconds,
                evaluate__curve=[{"step": 50, "results": {name: result(2, 4) for name in THREE}}],
            )
            write_metrics(run, {1: 0.5, 50: 0.4 + 0.1 * seed, 100: 0.3})
    for alpha in (0.1, 0.2):
        for beta in (0.4, 0.8):
            run = folder / f"{alpha} {beta}"
            write_run(run, alpha=alpha, beta=beta, sweep="alpha_beta")
    for amateur, correct in (("micro", 1), ("micro_master", 4)):
        gap = {
            "decoder": "greedy",
            "expert": {"micro_add": result(2, 4)},
            "amateur": {"micro_add": result(correct, 4)},
        }
        write_run(folder / amateur, amateur=amateur, sweep="micro_expertise_gap", evaluate__gap=gap)
    return folder

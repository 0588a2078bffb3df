"""The paper's numbers (arXiv 2510.07962) from the CSV files in `published/`.

Runs with other models, methods, data, alpha or beta have no published number. Runs in which only
other settings differ have one, with a list of the differences. Accuracies are in percent, gains in
points.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lr_exp.report.names import AMATEURS, AVERAGE, BASELINE, BENCHMARKS, HUB_IDS, Setup

_FOLDER = Path(__file__).parent / "published"
_TABLES = ("main_results", "ablation", "expertise_gap", "efficiency")  # overlaps agree
_KEYS = {"expert", "amateur", "method"}
_DATA, _ALPHA, _BETA = "gsm8k", 0.2, 0.4  # of every published run
GAP_BENCHMARK = "gsm8k"  # of the paper's expertise gap
_GAIN_BENCHMARKS = set(BENCHMARKS) - {"math500"}  # behind the gain beside the paper's costs

_TUNING = {
    "distiller.steps": 1000,
    "distiller.batch_size": 16,
    "distiller.order": "steps",
    "distiller.learning_rate": 5e-5,
    "distiller.lora_r": 8,
    "distiller.lora_alpha": 16,
    "distiller.lora_dropout": 0.05,
    "distiller.target_modules": ["q_proj", "v_proj"],
}
_STEP_BY_STEP = "Please reason step by step"
_PROMPT = {"sampler.prompt": "chat", "sampler.system_prompt": f"{_STEP_BY_STEP}."}
ROLLOUTS = {"data.max_questions": 1000, "sampler.max_new_tokens": 128, **_PROMPT}
_EVALUATION = {
    "evaluator.max_examples": None,
    "evaluator.max_new_tokens": 2048,
    "evaluator.system_prompt": (f"{_STEP_BY_STEP}, and put your final answer within \\boxed{{}}."),
}
# Training data of the methods without greedy rollouts. For rejection SFT, our interpretation of
# the published numbers of problems: one answer to each training question.
_ANSWERS = {
    "rejection_sft": {"data.max_questions": None, "method.samples": 1, **_PROMPT},
    "gt_sft": _PROMPT,
}

# Published divergences (shares and nats); the paper gives the first two as "about".
KL_PROFILE = {
    "share_below_0.1": 0.60,
    "share_above_0.4": 0.20,
    "kl_mean_other_top1": 1.99,
    "kl_mean_same_top1": 0.166,
}


def has_papers_models(setup: Setup, settings: Mapping[str, Any]) -> bool:
    """Whether the models in a run's settings are the paper's checkpoints of these names."""
    for role, name in (("expert", setup.expert), ("amateur", setup.amateur)):
        model = settings.get(role) or {}
        replaced = model.get("init", "pretrained") != "pretrained" or any(
            map(model.get, ("drop_layers", "adapter"))
        )
        if name is not None and (replaced or model.get("path") != HUB_IDS.get(name, "")):
            return False
    return True


def differences(setup: Setup, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that differ from the paper's, as `data.max_questions is 8 (paper: 1000)`."""
    wanted: dict[str, Any] = dict(_EVALUATION)
    if setup.method != BASELINE:
        wanted |= _ANSWERS.get(setup.method or "", ROLLOUTS) | _TUNING
    headline = settings.get("evaluator", {}).get("prompts", ["chat"])[0]
    found = differing(wanted, settings)
    if headline != "chat":
        found = (f"evaluator.prompts starts with {headline} (paper: chat)", *found)
    return found


def differing(wanted: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings whose values are not the `wanted` ones, as `differences`."""
    differences = []
    for name, papers in wanted.items():
        group, _, key = name.partition(".")
        value = (settings.get(group) or {}).get(key, papers)
        if key in ("target_modules", "order") and value is None:
            continue  # the paper's, in the paper's models; of supervised fine-tuning, whole answers
        if value != papers:
            differences.append(f"{name} is {_shown(value)} (paper: {_shown(papers)})")
    return tuple(differences)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "all" if value is None else str(value)


def numbers(setup: Setup, benchmarks: Sequence[str]) -> dict[str, float]:
    """The published numbers of a setup; empty if one of its choices is not the paper's.

    Accuracies in percent by benchmark, and AVG if it is over exactly these benchmarks; `gap` on
    GAP_BENCHMARK and `gain` of AVG in points; `hours`, `problems`, `solved` and `tuned_tokens`.
    """
    found: dict[str, float] = {}
    if setup.decoder != "greedy" or setup.amateur not in (None, *AMATEURS):
        return found
    choices = zip((setup.data, setup.alpha, setup.beta), (_DATA, _ALPHA, _BETA), strict=True)
    if setup.method != BASELINE and any(own not in (None, papers) for own, papers in choices):
        return found
    for row in (row for table in _TABLES for row in _read(table)):
        same = (row["expert"], row["method"]) == (setup.expert, setup.method)
        if same and row["amateur"] in ("", setup.amateur):
            known = {key: float(row[key]) for key in row.keys() - _KEYS if row[key]}
            average = known.pop("average", None)
            found |= known
            if average is not None and known.keys() & BENCHMARKS.keys() == set(benchmarks):
                found[AVERAGE] = average
    if set(benchmarks) != _GAIN_BENCHMARKS:
        found.pop("gain", None)
    return found


def has_pair(setup: Setup) -> bool:
    """Whether the paper has this expert with this amateur on this data."""
    if setup.amateur is None or setup.data not in (None, _DATA):
        return False
    rows = [*_read("main_results"), *_read("expertise_gap")]
    return any((row["expert"], row["amateur"]) == (setup.expert, setup.amateur) for row in rows)


@cache
def _read(table: str) -> tuple[dict[str, str], ...]:
    with (_FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))

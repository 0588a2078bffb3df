"""The paper's numbers (arXiv 2510.07962) from the CSV files in `published/`.

Runs with other models, methods, data, alpha or beta have no published number. Runs in which only
other settings differ have one, with a list of the differences. Accuracies are in percent, gains in
points.
"""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lr_exp.report.names import AMATEURS, BASELINE, BENCHMARKS, Setup

_FOLDER = Path(__file__).parent / "published"
_TABLES = ("main_results", "ablation", "expertise_gap")  # with accuracies; overlaps agree
_DATA, _ALPHA, _BETA = "gsm8k", 0.2, 0.4  # of every published run
GAP_BENCHMARK = "gsm8k"  # of the paper's expertise gap

HUB_IDS = {
    "qwen_math_1_5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen_math_1_5b_instruct": "Qwen/Qwen2.5-Math-1.5B-Instruct",
    "deepseek_r1_distill_qwen_1_5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "qwen_math_7b": "Qwen/Qwen2.5-Math-7B",
    "qwen_math_7b_instruct": "Qwen/Qwen2.5-Math-7B-Instruct",
    "qwen_0_5b": "Qwen/Qwen2.5-0.5B",
    "qwen_1_5b": "Qwen/Qwen2.5-1.5B",
}
_EVALUATION = {"evaluator.max_examples": None}
_TUNING = {
    "distiller.steps": 1000,
    "distiller.batch_size": 16,
    "distiller.learning_rate": 5e-5,
    "distiller.lora_r": 8,
    "distiller.lora_alpha": 16,
    "distiller.lora_dropout": 0.05,
    "distiller.target_modules": ["q_proj", "v_proj"],
}
_ROLLOUTS = {"data.max_questions": 1000, "sampler.max_new_tokens": 128}
# Training data of the methods without greedy rollouts. For rejection SFT, our interpretation of
# the published numbers of problems: one answer to each training question.
_ANSWERS = {
    "rejection_sft": {"data.max_questions": None, "method.samples": 1},
    "gt_sft": {},
}

# Published divergences (shares and nats); the paper gives the first two as "about".
KL_PROFILE = {
    "share_below_0.1": 0.60,
    "share_above_0.4": 0.20,
    "kl_mean_other_top1": 1.99,
    "kl_mean_same_top1": 0.166,
}


def paper_setup(setup: Setup, settings: Mapping[str, Any]) -> Setup | None:
    """The setup, or None if one of its models is not the paper's checkpoint of that name.

    Args:
        setup: of a row.
        settings: of one of the row's runs.
    """
    roles = {"expert": setup.expert, "amateur": setup.amateur}
    for role, name in roles.items():
        model = settings.get(role) or {}
        replaced = model.get("init", "pretrained") != "pretrained" or model.get("drop_layers")
        if name is not None and (replaced or model.get("path") != HUB_IDS.get(name, "")):
            return None
    return setup


def differences(setup: Setup, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that differ from the paper's, as `data.max_questions is 8 (paper: 1000)`."""
    wanted: dict[str, Any] = dict(_EVALUATION)
    if setup.method != BASELINE:
        wanted |= _ANSWERS.get(setup.method or "", _ROLLOUTS) | _TUNING
    return _differing_settings(wanted, settings)


def sampling_differences(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """`differences` in the settings that determine which token positions are scored."""
    return _differing_settings(_ROLLOUTS, settings)


def _differing_settings(wanted: dict[str, Any], settings: Mapping[str, Any]) -> tuple[str, ...]:
    differences = []
    for name, papers in wanted.items():
        group, _, key = name.partition(".")
        own = settings.get(group) or {}
        if key in own and own[key] != papers:
            differences.append(f"{name} is {_shown(own[key])} (paper: {_shown(papers)})")
    return tuple(differences)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "all" if value is None else str(value)


def accuracies(setup: Setup | None) -> dict[str, float]:
    """Published accuracies of this setup by benchmark, in percent."""
    published: dict[str, float] = {}
    for table in _TABLES:
        for row in _matching(table, setup):
            published |= {name: float(row[name]) for name in BENCHMARKS if row.get(name)}
    return published


def average(setup: Setup | None, benchmarks: list[str]) -> float | None:
    """The published average in percent, if it is over exactly these benchmarks."""
    for table in _TABLES:
        for row in _matching(table, setup):
            if {name for name in BENCHMARKS if row.get(name)} == set(benchmarks):
                return float(row["average"])
    return None


def gap(setup: Setup | None, benchmark: str) -> float | None:
    """The published expertise gap of this pair on `benchmark`, in points."""
    rows = _matching("expertise_gap", setup) if benchmark == GAP_BENCHMARK else []
    return next((float(row["gap"]) for row in rows if row["gap"]), None)


def efficiency(setup: Setup | None) -> dict[str, float]:
    """Published hours, problems, tuned_tokens and gain (points); empty if there are none."""
    for row in _matching("efficiency", setup):
        return {key: float(row[key]) for key in ("hours", "problems", "tuned_tokens", "gain")}
    return {}


def has_pair(setup: Setup | None) -> bool:
    """Whether the paper has this expert with this amateur on this data."""
    if setup is None or setup.amateur is None or setup.data not in (None, _DATA):
        return False
    rows = [*_read("main_results"), *_read("expertise_gap")]
    return any((row["expert"], row["amateur"]) == (setup.expert, setup.amateur) for row in rows)


def _matches_paper(setup: Setup) -> bool:
    """Whether every choice that the run made is the paper's."""
    if setup.decoder != "greedy" or setup.amateur not in (None, *AMATEURS):
        return False
    return setup.method == BASELINE or (
        setup.data in (None, _DATA)
        and setup.alpha in (None, _ALPHA)
        and setup.beta in (None, _BETA)
    )


def _matching(table: str, setup: Setup | None) -> list[dict[str, str]]:
    if setup is None or not _matches_paper(setup):
        return []
    return [
        row
        for row in _read(table)
        if (row["expert"], row["method"]) == (setup.expert, setup.method)
        and row["amateur"] in ("", setup.amateur)
    ]


@cache
def _read(table: str) -> tuple[dict[str, str], ...]:
    with (_FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))

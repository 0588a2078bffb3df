"""The paper's numbers (arXiv 2510.07962), read from the CSV files beside this module.

Knows the paper's own experts, amateurs, methods, benchmarks and settings. A run of other models,
methods, data, alpha or beta has no published number; one with other settings has, and what differs
is told. Accuracies and gains are in percent and points.
"""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lr_exp.report.names import AMATEURS, BASELINE, BENCHMARKS, Setup

_FOLDER = Path(__file__).parent / "published"
_TABLES = (
    "main_results",
    "ablation",
    "expertise_gap",
)  # with accuracies; they agree where they meet
_DATA, _ALPHA, _BETA = "gsm8k", 0.2, 0.4  # of every published run
GAP_BENCHMARK = "gsm8k"  # what the paper's expertise gap is measured on

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
# Of what the methods that roll nothing out learn from. Of rejection SFT, our reading of the
# published counts of problems: one answer to each training question.
_ANSWERS = {
    "rejection_sft": {"data.max_questions": None, "method.samples": 1},
    "gt_sft": {},
}

# Observations on divergences. The first two are given as "about".
KL_PROFILE = {
    "share_below_0.1": 0.60,
    "share_above_0.4": 0.20,
    "kl_mean_other_top1": 1.99,
    "kl_mean_same_top1": 0.166,
}


def papers_own(setup: Setup, settings: Mapping[str, Any]) -> Setup | None:
    """The setup, if its models are what their names say: the paper's, from where the paper's lie.

    Args:
        setup: what a row is of.
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
    """`data.max_questions 8, paper 1000`: each setting of a run that the paper has otherwise."""
    wanted: dict[str, Any] = dict(_EVALUATION)
    if setup.method != BASELINE:
        wanted |= _ANSWERS.get(setup.method or "", _ROLLOUTS) | _TUNING
    return _other(wanted, settings)


def sampling_differences(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The same of those settings alone that decide which steps are scored."""
    return _other(_ROLLOUTS, settings)


def _other(wanted: dict[str, Any], settings: Mapping[str, Any]) -> tuple[str, ...]:
    told = []
    for name, papers in wanted.items():
        group, _, key = name.partition(".")
        own = settings.get(group) or {}
        if key in own and own[key] != papers:
            told.append(f"{name} {_shown(own[key])}, paper {_shown(papers)}")
    return tuple(told)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "all" if value is None else str(value)


def accuracies(setup: Setup | None) -> dict[str, float]:
    """The published accuracy of each benchmark that the paper gives for this setup, in percent."""
    found: dict[str, float] = {}
    for table in _TABLES:
        for row in _matching(table, setup):
            found |= {name: float(row[name]) for name in BENCHMARKS if row.get(name)}
    return found


def average(setup: Setup | None, benchmarks: list[str]) -> float | None:
    """The published average, in percent, where it is over exactly these benchmarks."""
    for table in _TABLES:
        for row in _matching(table, setup):
            if {name for name in BENCHMARKS if row.get(name)} == set(benchmarks):
                return float(row["average"])
    return None


def gap(setup: Setup | None, benchmark: str) -> float | None:
    """The published expertise gap of this pair, in points, if measured on `benchmark`."""
    rows = _matching("expertise_gap", setup) if benchmark == GAP_BENCHMARK else []
    return next((float(row["gap"]) for row in rows if row["gap"]), None)


def efficiency(setup: Setup | None) -> dict[str, float]:
    """hours, problems, tuned_tokens and gain (points), or nothing."""
    if setup is None or not _is_papers(setup):
        return {}
    if setup.method == "lightreasoner" and setup.amateur != AMATEURS[0]:
        return {}
    for row in _read("efficiency"):
        if (row["expert"], row["method"]) == (setup.expert, setup.method):
            return {key: float(row[key]) for key in ("hours", "problems", "tuned_tokens", "gain")}
    return {}


def has_pair(setup: Setup | None) -> bool:
    """Whether the paper ran this expert with this amateur on this data."""
    tables = ("main_results", "expertise_gap")
    pairs = {(row["expert"], row["amateur"]) for table in tables for row in _read(table)}
    if setup is None or setup.amateur is None or setup.data not in (None, _DATA):
        return False
    return (setup.expert, setup.amateur) in pairs


def _is_papers(setup: Setup) -> bool:
    """Whether the paper's choices were made, where the run made a choice at all."""
    return (
        setup.decoder == "greedy"
        and setup.amateur in (None, *AMATEURS)
        and (
            setup.method == BASELINE
            or (
                setup.data in (None, _DATA)
                and setup.alpha in (None, _ALPHA)
                and setup.beta in (None, _BETA)
            )
        )
    )


def _matching(table: str, setup: Setup | None) -> list[dict[str, str]]:
    if setup is None or not _is_papers(setup):
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

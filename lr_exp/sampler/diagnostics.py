"""Warnings about a pair of models whose contrast is unlikely to help.

A warning requires a value to exceed its limit by more than two standard errors, so that a few
positions or answers do not trigger it.
"""

import math
from collections.abc import Mapping
from typing import Any

# Share of positions above 0.4 nats, the paper's beta. The paper has about 20 %. Micro pairs that
# gain have 16 % (`micro`) and 22 % (`micro_near`); those that do not have 1.8 % (`micro_master`),
# 1.3 % (`micro_early_exit`) and 0 % (`micro_peer`). The pair that gains most has 2.3 %
# (`micro_large_careless`): few positions are enough where most of their labels move.
_MIN_HIGH_KL_SHARE = 0.03
_MOSTLY_MOVING = 0.5  # share of the kept steps
# SmolLM2-135M against itself without one layer has 18 % above 0.4 and 48 % below 0.1; plain SmolLM2
# against a copy tuned on solutions 34 % and 44 %. Without two or three layers the output is
# incoherent: 50 to 67 % above and 20 to 24 % below.
_MAX_HIGH_KL_SHARE = 0.42
_MIN_LOW_KL_SHARE = 0.33
# The amateur's mean entropy over the expert's, on the expert's answers: 23 for `micro`, 12 for
# `micro_near`, 1.05 for `micro_peer`, an equal, and 0.55 for `micro_master`, which is stronger.
_MIN_ENTROPY_RATIO = 0.8
# Share of the kept steps whose label moves the expert: 11.5 % for `micro`, 42 % for SmolLM2-135M
# without one layer.
_MIN_MOVING_SHARE = 0.01
_MAX_PASSES = 20  # over the kept steps: the demo makes 1.3, the paper less than 1

_PAPER_SHARES = "the paper's pairs: about 20 % above 0.4 nats and 60 % below 0.1"


def diagnose_pair(profile: Mapping[str, Any], gap: Mapping[str, Any] | None = None) -> list[str]:
    """Warnings, each with the finding, its numbers and what to change.

    Args:
        profile: `sample` of a `summary.json`, or the facts of a selection.
        gap: `evaluate.gap` of a `summary.json`; None where it was not measured.
    """
    by_gap = _check_accuracies(gap) if gap else None
    # The measured accuracies are better evidence than the entropies.
    by_entropy = None if by_gap else _check_entropies(profile)
    warnings = (by_gap, _check_divergences(profile), by_entropy, _check_labels(profile))
    return [warning for warning in warnings if warning]


def _check_divergences(profile: Mapping[str, Any]) -> str | None:
    high, low = profile.get("share_above_0.4"), profile.get("share_below_0.1")
    steps, mean = profile.get("steps") or 0, profile.get("kl_mean")
    if high is None or low is None or mean is None or not steps:
        return None
    numbers = (
        f"the KL divergence is above 0.4 nats at {100 * high:.1f} % of token positions and below "
        f"0.1 at {100 * low:.0f} %, mean {mean:.3f} ({_PAPER_SHARES})"
    )
    is_low = high + _margin(high, steps) < _MIN_HIGH_KL_SHARE
    if is_low and (profile.get("moving_of_kept") or 0.0) <= _MOSTLY_MOVING:
        return f"The amateur hardly differs from the expert: {numbers}. Choose a weaker amateur."
    too_high = high - _margin(high, steps) > _MAX_HIGH_KL_SHARE
    if too_high or low + _margin(low, steps) < _MIN_LOW_KL_SHARE:
        return (
            f"The amateur differs from the expert nearly everywhere: {numbers}. Choose an amateur "
            "closer to the expert (a larger model of its family, fewer layers in "
            "amateur.drop_layers), or raise beta."
        )
    return None


def _check_labels(profile: Mapping[str, Any]) -> str | None:
    kept, moving = profile.get("kept") or 0, profile.get("moving_of_kept")
    if not kept or moving is None or not profile.get("choice"):  # hard labels have no choice
        return None
    if moving + _margin(moving, kept) >= _MIN_MOVING_SHARE:
        return None
    return (
        f"The labels hardly move the expert: at {100 * moving:.1f} % of the {kept:,} kept steps "
        "the label's most probable token is not the expert's. Choose a weaker amateur, or raise "
        "beta."
    )


def diagnose_training(kept_steps: int, tuned_tokens: int) -> list[str]:
    passes = tuned_tokens / kept_steps
    if passes <= _MAX_PASSES:
        return []
    return [
        f"Training repeats few steps: {passes:,.0f} passes over {kept_steps:,} distinct kept "
        "steps. Use more questions (data.max_questions), or lower distiller.steps."
    ]


def _check_entropies(profile: Mapping[str, Any]) -> str | None:
    expert, amateur = profile.get("expert_entropy_mean"), profile.get("amateur_entropy_mean")
    if expert is None or amateur is None or amateur >= _MIN_ENTROPY_RATIO * expert:
        return None
    return (
        f"The amateur is more certain of the expert's answers than the expert: mean entropy "
        f"{amateur:.3f} against {expert:.3f} nats. A weaker model rarely is. Measure both with "
        "evaluator.gap=sampled, and choose an amateur that is weaker than the expert."
    )


def _check_accuracies(gap: Mapping[str, Any]) -> str | None:
    (benchmark, expert), *_ = gap["expert"].items()
    amateur = gap["amateur"][benchmark]
    difference = expert["accuracy"] - amateur["accuracy"]
    margin = math.hypot(*(_margin(who["accuracy"], who["total"]) for who in (expert, amateur)))
    if difference > margin:
        return None
    measured = (
        f"{100 * amateur['accuracy']:.1f} % of {benchmark} right against "
        f"{100 * expert['accuracy']:.1f} % ({expert['total']:,} questions, {gap['decoder']})"
    )
    if difference < -margin:
        return (
            f"The amateur is stronger than the expert: {measured}. The contrast then favors wrong "
            "tokens. Choose a weaker amateur, or make it the expert."
        )
    advice = "Choose a weaker amateur, or evaluate more questions (evaluator.max_examples)."
    if expert["correct"] == 0 and gap["decoder"] == "greedy":
        advice = "evaluator.gap=sampled also counts right answers that greedy decoding misses."
    return f"Expert and amateur do not differ measurably: {measured}. {advice}"


def _margin(share: float, count: int) -> float:
    """Two standard errors of a share of `count`: above 0 also at 0 and 1, adding one of each."""
    share = (share * count + 1) / (count + 2)
    return 2 * math.sqrt(share * (1 - share) / (count + 2))

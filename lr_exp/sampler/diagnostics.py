"""Whether an expert and an amateur look like a pair that can teach, and what to change if not.

Knows the profile of their divergences and, where it was measured, their accuracies; knows no
models. A limit speaks only where a number lies beyond it by more than two standard errors, so that
a handful of steps or answers accuses nobody.
"""

import math
from collections.abc import Mapping
from typing import Any

_ERRORS = 2  # standard errors

# Share of steps above 0.4 nats, the paper's beta. Too few: the paper sees about 20 %; of the micro
# pairs those that teach have 15 % (`micro`) and 5.8 % (`micro_near`), those that teach nothing
# 1.8 % (`micro_master`), 1.3 % (`micro_early_exit`) and 0 % (`micro_peer`). 3 % lies between.
_FEWEST_LOUD = 0.03
# Too many: SmolLM2-135M without one layer has 18 % above 0.4 and 48 % below 0.1, plain SmolLM2
# against one tuned on solutions 34 % and 44 %; without two or three layers it babbles: 50 to 67 %
# above and 20 to 24 % below. The limits lie between.
_MOST_LOUD = 0.42
_FEWEST_QUIET = 0.33
# The amateur's mean entropy over the expert's, on the expert's own answers. A weaker model is less
# sure there: 23 times as much for `micro`, 12 for `micro_near`, 1.05 for `micro_peer`, an equal;
# `micro_master`, which is better than the expert, has 0.55.
_LEAST_UNSURE = 0.8

_PAPERS = "the paper's pairs: about 20 % above 0.4 nats and 60 % below 0.1"


def diagnose_pair(profile: Mapping[str, Any], gap: Mapping[str, Any] | None = None) -> list[str]:
    """What looks wrong, one warning each: what is odd, the numbers, what to change.

    Args:
        profile: `sample` of a `summary.json`, or the facts of a selection. Without the measures of
            an amateur nothing is said about it.
        gap: `evaluate.gap` of a `summary.json`; None where it was not measured.
    """
    told = [_accuracies(gap) if gap else None, _divergences(profile), _entropies(profile)]
    if told[0]:  # what was measured says it better than a sign of it
        told[2] = None
    return [one for one in told if one]


def _divergences(profile: Mapping[str, Any]) -> str | None:
    loud, quiet = profile.get("share_above_0.4"), profile.get("share_below_0.1")
    steps, mean = profile.get("steps") or 0, profile.get("kl_mean")
    if loud is None or quiet is None or mean is None or not steps:
        return None
    numbers = (
        f"{100 * loud:.1f} % of the steps are above 0.4 nats and {100 * quiet:.0f} % below 0.1, "
        f"mean KL {mean:.3f} ({_PAPERS})"
    )
    if loud + _ERRORS * _error(loud, steps) < _FEWEST_LOUD:
        return (
            f"The amateur hardly differs from the expert: {numbers}. It has little to teach: "
            "choose a weaker amateur."
        )
    too_loud = loud - _ERRORS * _error(loud, steps) > _MOST_LOUD
    if too_loud or quiet + _ERRORS * _error(quiet, steps) < _FEWEST_QUIET:
        return (
            f"The amateur differs from the expert nearly everywhere: {numbers}. Steps of reasoning "
            "do not stand out: choose an amateur nearer to the expert (a larger one of its family, "
            "fewer layers in amateur.drop_layers), or raise beta."
        )
    return None


def _entropies(profile: Mapping[str, Any]) -> str | None:
    expert, amateur = profile.get("expert_entropy_mean"), profile.get("amateur_entropy_mean")
    if expert is None or amateur is None or amateur >= _LEAST_UNSURE * expert:
        return None
    return (
        f"The amateur is surer than the expert of the expert's own answers: mean entropy "
        f"{amateur:.3f} against {expert:.3f} nats. A weaker model seldom is: measure both with "
        "evaluator.gap=sampled, and choose an amateur that is below the expert."
    )


def _accuracies(gap: Mapping[str, Any]) -> str | None:
    (benchmark, expert), *_ = gap["expert"].items()
    amateur = gap["amateur"][benchmark]
    difference = expert["accuracy"] - amateur["accuracy"]
    error = math.hypot(*(_error(who["accuracy"], who["total"]) for who in (expert, amateur)))
    if difference > _ERRORS * error:
        return None
    measured = (
        f"{100 * amateur['accuracy']:.1f} % of {benchmark} right against "
        f"{100 * expert['accuracy']:.1f} % ({expert['total']:,} questions, {gap['decoder']})"
    )
    if difference < -_ERRORS * error:
        return (
            f"The amateur is stronger than the expert: {measured}. The contrast then points away "
            "from what is right: choose a weaker amateur, or make it the expert."
        )
    change = "choose a weaker amateur, or measure more questions (evaluator.max_examples)"
    if expert["correct"] == 0 and gap["decoder"] == "greedy":
        change = "evaluator.gap=sampled shows what a model can do beside what it prefers"
    return f"The amateur cannot be told from the expert: {measured}. To change: {change}."


def _error(share: float, count: int) -> float:
    """The standard error of a share of `count`, not 0 where the share is 0 or 1.

    One more of each outcome is counted than was seen.
    """
    share = (share * count + 1) / (count + 2)
    return math.sqrt(share * (1 - share) / (count + 2))

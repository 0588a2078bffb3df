"""Targets: what the student learns at a kept position (`method.target`).

A target takes one answer's kept positions as a mapping from column names to tensors: `index`,
`step` and `token_id` `(n,)`, and the declared columns. Those of the step table's support are padded
to `(n, support)`: `support_ids` with 0, `support_expert` and `support_amateur` (log-probabilities)
with -inf. It returns token ids and weights, `(n, k)` each with weights that sum to 1 in a row
(entries of weight 0 are dropped), or None for a method whose loss needs no target.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from lr_exp import contrast as equations
from lr_exp.config.method import register

Columns = Mapping[str, Tensor]
Target = tuple[Tensor, Tensor]

_SUPPORT = ("support_ids", "support_expert", "support_amateur")


@register("target", columns=_SUPPORT)
def contrast(
    steps: Columns,
    *,
    alpha: float,
    a: Annotated[float, "[-100, 100]"] = 1.0,
    b: Annotated[float, "[-100, 100]"] = 1.0,
    mix: Annotated[float, "(0, 1]"] = 1.0,
    clip: Annotated[float | None, "(0, inf)"] = None,
) -> Target:
    """Weights proportional to expert^a / amateur^b on the plausible tokens.

    The defaults give the soft label v_C (arXiv 2510.07962, Eq. 4-6), a=1 and b=0 the expert's own
    distribution on the mask, a=0 and b=1 the inverse of the amateur's.

    Args:
        clip: bound on the absolute value of log(expert / amateur), in nats; None for no bound.
        mix: share of this target; the rest is the expert's distribution over its support.
    """
    expert, mask = steps["support_expert"], _mask(steps, alpha)
    score = equations.contrast_score(expert, steps["support_amateur"])
    if clip is not None:
        score = score.clamp(-clip, clip)
    # expert^a / amateur^b is expert^(a-b) (expert / amateur)^b.
    label = equations.soft_label((a - b) * expert + b * score, mask)
    return steps["support_ids"], mix * label + (1 - mix) * expert.softmax(-1)


@register("target", columns=_SUPPORT)
def extrapolation(
    steps: Columns, *, alpha: float, lambda_: Annotated[float, "[1, 100]"] = 1.25
) -> Target:
    """Reward extrapolation: expert (expert / amateur)^(lambda - 1) on the plausible tokens.

    Source: arXiv 2602.12125. lambda=1 is the expert's own distribution on the mask.
    """
    return contrast(steps, alpha=alpha, a=lambda_, b=lambda_ - 1)


@register("target", columns=_SUPPORT)
def sharpened(steps: Columns, *, alpha: float) -> Target:
    """The expert's distribution on the mask, sharpened or flattened to the entropy of v_C.

    Control: the label is as confident as v_C but keeps the order of the expert's probabilities, so
    that it never prefers another token. Equals v_C where one token is plausible.
    """
    ids, label = contrast(steps, alpha=alpha)
    expert, mask = steps["support_expert"], _mask(steps, alpha)
    return ids, equations.with_entropy(expert, mask, equations.weights_entropy_nats(label))


@register("target", columns=_SUPPORT)
def permuted_amateur(steps: Columns, *, alpha: float, seed: int) -> Target:
    """v_C from an amateur whose log-probabilities changed places among the plausible tokens.

    Control: the label has the true selection and the amateur's values, but not its opinion on each
    token.
    """
    amateur = permute_plausible(steps, alpha, seed)
    return contrast({**steps, "support_amateur": amateur}, alpha=alpha)


@register("target", columns=_SUPPORT)
def runner_up(steps: Columns, *, alpha: float) -> Target:
    """A hard label: the expert's second choice, or its first where no other token is plausible.

    Control: is it enough to move away from the expert's first choice?
    """
    expert = steps["support_expert"].masked_fill(~_mask(steps, alpha), -math.inf)
    top, places = expert.topk(min(2, expert.shape[-1]), dim=-1)
    second = torch.where(top[:, -1] > -math.inf, places[:, -1], places[:, 0])
    return _hard(steps["support_ids"].gather(-1, second[:, None]))


@register("target")
def token(steps: Columns) -> Target:
    """A hard label: the token that the trajectory has at the position."""
    return _hard(steps["token_id"][:, None])


@register("target")
def none(steps: Columns) -> None:
    """No target, for losses of the student's own distribution."""


def permute_plausible(steps: Columns, alpha: float, seed: int) -> Tensor:
    """The amateur's log-probabilities `(n, support)`, permuted within each position's mask.

    All permutations are equally likely, that which changes nothing included. The seed and the
    position determine it.
    """
    amateur = steps["support_amateur"].clone()
    positions = zip(steps["index"].tolist(), steps["step"].tolist(), strict=True)
    for row, mask, position in zip(amateur, _mask(steps, alpha), positions, strict=True):
        places = mask.nonzero()[:, 0]
        order = np.random.default_rng((seed, *position)).permutation(len(places))
        row[places] = row[places[torch.from_numpy(order)]]
    return amateur


def _mask(steps: Columns, alpha: float) -> Tensor:
    """The plausible tokens (Eq. 4); False for padding, which is at -inf."""
    return equations.plausible(steps["support_expert"], alpha)


def _hard(ids: Tensor) -> Target:
    return ids, torch.ones(ids.shape)

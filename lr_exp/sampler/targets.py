"""Targets: what the student learns at a kept position (`method.target`).

A target takes one answer's kept positions as a mapping from column names to tensors: `token_id`
`(n,)` and the declared columns. Those of the step table's support are padded to `(n, support)`:
`support_ids` with 0, `support_expert` and `support_amateur` (log-probabilities) with -inf. It
returns token ids and weights, `(n, k)` each with weights that sum to 1 in a row (entries of weight
0 are dropped), or None for a method whose loss needs no target.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lr_exp import contrast as equations
from lr_exp.config.method import register

Columns = Mapping[str, Tensor]


@register("target", columns=("support_ids", "support_expert", "support_amateur"))
def contrast(steps: Columns, *, alpha: float) -> tuple[Tensor, Tensor]:
    """The contrastive soft label v_C on the plausible tokens (arXiv 2510.07962, Eq. 4-6)."""
    expert, amateur = steps["support_expert"], steps["support_amateur"]
    mask = equations.plausible(expert, alpha)  # False for padding, which is at -inf
    score = equations.contrast_score(expert, amateur)
    return steps["support_ids"], equations.soft_label(score, mask)


@register("target")
def token(steps: Columns) -> tuple[Tensor, Tensor]:
    """A hard label: the token that the trajectory has at the position."""
    ids = steps["token_id"][:, None]
    return ids, torch.ones(ids.shape)


@register("target")
def none(steps: Columns) -> None:
    """No target, for losses of the student's own distribution."""

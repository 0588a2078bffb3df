"""Step rules: which token positions a method keeps (`method.select`).

A rule takes the positions' columns, a mapping from names to arrays `(n,)`: `index` (the answer's
place among the questions), `step` (tokens generated before it), `token_id`, and the columns of the
step table that it declares. It returns a bool array `(n,)`, True where the position is kept.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.config.method import register

Columns = Mapping[str, NDArray[Any]]
Keep = NDArray[np.bool_]

_SUPPORT = ("support_ids", "support_expert", "support_amateur")
_AMATEUR_TOP = "amateur_top_amateur"  # log-probabilities of `amateur_top_ids`, in order


@register("select", columns=("kl",))
def kl_above_beta(steps: Columns, *, beta: float) -> Keep:
    """Informative step selection (arXiv 2510.07962, Eq. 3)."""
    return contrast.informative(torch.from_numpy(steps["kl"].copy()), beta).numpy()


@register("select", columns=("kl", "expert_top1", *_SUPPORT, "amateur_top_ids", _AMATEUR_TOP))
def kl_no_conflict(
    steps: Columns, *, alpha: float, beta: float, conflict: Annotated[float, "[0.5, 1)"] = 0.9
) -> Keep:
    """`kl_above_beta` without positions at which the models may be confidently in conflict.

    Those are where v_C (Eq. 6) confirms the expert's first choice, and the amateur gives another
    token a probability above `conflict`: where the expert is wrong and the amateur right, the label
    would make the expert surer of its error.
    """
    keep = kl_above_beta(steps, beta=beta)
    for row in np.flatnonzero(keep):
        other, first = steps["amateur_top_ids"][row][0], steps["expert_top1"][row]
        if other == first or steps[_AMATEUR_TOP][row][0] <= np.log(conflict):
            continue
        expert, amateur = (torch.tensor(steps[name][row]) for name in _SUPPORT[1:])
        score = contrast.contrast_score(expert, amateur)
        score[~contrast.plausible(expert, alpha)] = -torch.inf
        keep[row] = score.max() > score[torch.from_numpy(steps["support_ids"][row] == first)]
    return keep


@register("select")
def all_(steps: Columns) -> Keep:
    return np.ones(len(steps["step"]), dtype=bool)


@register("select")
def first(steps: Columns, *, first: Annotated[int, "[1, 2147483647]"] = 8) -> Keep:
    """The first tokens of each answer."""
    return steps["step"] < first


@register("select", columns=("kl",), compares_all=True)
def kl_top(steps: Columns, *, share: Annotated[float, "(0, 1]"] = 0.2) -> Keep:
    """The share of all positions with the highest divergence."""
    return _highest(steps, steps["kl"], round(share * len(steps["kl"])))


@register("select", columns=("kl",), compares_all=True)
def random(steps: Columns, *, beta: float, seed: int) -> Keep:
    """As many positions as `kl_above_beta` keeps, drawn at random."""
    order = _by_question(steps)
    count = int(kl_above_beta(steps, beta=beta).sum())
    drawn = np.random.default_rng(seed).choice(len(order), size=count, replace=False)
    return _mask(len(order), order[drawn])


@register("select", columns=("kl", "expert_entropy"), compares_all=True)
def entropy_top(steps: Columns, *, beta: float) -> Keep:
    """As many positions as `kl_above_beta` keeps, those with the highest expert entropy."""
    count = int(kl_above_beta(steps, beta=beta).sum())
    return _highest(steps, steps["expert_entropy"], count)


@register("select", columns=("kl", "expert_entropy"), compares_all=True)
def kl_to_uniform_top(steps: Columns, *, beta: float) -> Keep:
    """As many positions as `kl_above_beta` keeps, those with the highest KL to a uniform amateur.

    That divergence is log V - H(expert) for V tokens in the vocabulary, so they are the positions
    with the lowest expert entropy. A threshold of beta would keep almost every position.
    """
    count = int(kl_above_beta(steps, beta=beta).sum())
    return _highest(steps, -steps["expert_entropy"], count)


def _by_question(steps: Columns) -> NDArray[np.intp]:
    """Indices by question and position: the table's own order depends on the batch size."""
    return np.lexsort((steps["step"], steps["index"]))


def _highest(steps: Columns, values: NDArray[Any], count: int) -> Keep:
    """The `count` highest values; of equal ones the first by question and position."""
    order = _by_question(steps)
    return _mask(len(order), order[np.argsort(-values[order], kind="stable")[:count]])


def _mask(length: int, kept: NDArray[np.intp]) -> Keep:
    mask = np.zeros(length, dtype=bool)
    mask[kept] = True
    return mask

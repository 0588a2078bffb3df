"""Losses of the kept positions (`method.loss`).

A loss takes the student's log-probabilities `(n, vocabulary)` at the kept positions, normalized, in
fp32, with gradient, and the targets: ids `(n, k)` int64 and weights `(n, k)`, padded with weight 0
(k is 0 without a target). It returns `(n,)` losses in nats. The trainer averages them over the
positions of an optimizer step.
"""

from torch import Tensor

from lr_exp import contrast
from lr_exp.config.method import register


@register("loss", needs=("target",))
def kl(student_log_probs: Tensor, target_ids: Tensor, target_weights: Tensor) -> Tensor:
    """KL(target || student), Eq. 7-8; for a hard label it is the cross-entropy."""
    return contrast.distillation_loss(student_log_probs, target_ids, target_weights)


@register("loss")
def entropy_min(student_log_probs: Tensor, target_ids: Tensor, target_weights: Tensor) -> Tensor:
    """Entropy minimization (arXiv 2505.15134): the student's own entropy over the vocabulary.

    The gradient passes through both factors of - sum_a pi(a) log pi(a).
    """
    return contrast.entropy_nats(student_log_probs)

"""The equations of LightReasoner (arXiv 2510.07962), one pure tensor function each.

Imports torch and nothing of the project. Probabilities are handled as fp32 log-probabilities
without epsilons (fp64 stays fp64); all divergences and entropies are in nats. The last dimension is
the vocabulary or, where said, the *support*: the few tokens of it that were kept.

| paper            | here                                       |
|------------------|--------------------------------------------|
| pi_E, pi_A       | `expert_log_probs`, `amateur_log_probs`    |
| D_t              | `kl_nats`                                  |
| beta             | threshold of `informative`                 |
| alpha, A_mask    | `plausible`                                |
| v'_C, v_C        | `contrast_score`, `soft_label`             |
"""

import math

import torch
from torch import Tensor


def log_probs(logits: Tensor) -> Tensor:
    """Log-softmax over the last dimension, in fp32 whatever the logits' dtype (fp64 stays fp64)."""
    return torch.log_softmax(logits, dim=-1, dtype=_at_least_fp32(logits.dtype))


def kl_nats(expert_log_probs: Tensor, amateur_log_probs: Tensor) -> Tensor:
    """Divergence of a step, Eq. 1-2: KL(expert || amateur), summed over the whole vocabulary.

    Args:
        expert_log_probs: `(..., vocabulary)`, normalized. The expert weights the sum.
        amateur_log_probs: `(..., vocabulary)`, normalized over the same tokens.

    Returns:
        `(...)` in nats, 0 or more but for rounding.
    """
    return (expert_log_probs.exp() * (expert_log_probs - amateur_log_probs)).sum(-1)


def entropy_nats(log_probs: Tensor) -> Tensor:
    """Shannon entropy `(...)` in nats of normalized `(..., vocabulary)` log-probabilities."""
    return -(log_probs.exp() * log_probs).sum(-1)


def informative(kl_nats: Tensor, beta: float) -> Tensor:
    """Informative step selection, Eq. 3: True where strictly above `beta` nats."""
    return kl_nats > beta


def plausible(expert_log_probs: Tensor, alpha: float) -> Tensor:
    """Plausibility mask, Eq. 4: True where a token has at least `alpha` times the top probability.

    Works on the vocabulary and on a support alike, as long as it holds the expert's top token. The
    top token is always plausible. `alpha` is in (0, 1].
    """
    return expert_log_probs >= expert_log_probs.amax(-1, keepdim=True) + math.log(alpha)


def contrast_score(expert_log_probs: Tensor, amateur_log_probs: Tensor) -> Tensor:
    """Contrast score, Eq. 5: the log-ratio expert : amateur of each token, in nats."""
    return expert_log_probs - amateur_log_probs


def soft_label(score: Tensor, mask: Tensor) -> Tensor:
    """Contrastive soft label, Eq. 6: softmax of the score over the mask, exactly 0 off it.

    Args:
        score: `(..., support)` floating point; its values off the mask do not matter.
        mask: `(..., support)` bool, at least one True in each row.

    Returns:
        `(..., support)` weights in [0, 1] that sum to 1.
    """
    return score.masked_fill(~mask, -math.inf).softmax(-1)


def distillation_loss(
    student_log_probs: Tensor, target_ids: Tensor, target_weights: Tensor
) -> Tensor:
    """Loss of each kept step, Eq. 7-8: KL(v_C || pi_E), from sparse soft labels.

    The label's entropy is part of it, so that 0 means that the student equals the label; the
    gradient is that of the cross-entropy - sum_a v_C(a) log pi_E(a).

    Args:
        student_log_probs: `(steps, vocabulary)` of the model being tuned, normalized.
        target_ids: `(steps, support)` int64; ids of padding entries are any valid id.
        target_weights: `(steps, support)` summing to 1 in each row; padding entries weigh 0.

    Returns:
        `(steps,)` in nats, 0 or more but for rounding.
    """
    student = student_log_probs.gather(-1, target_ids)
    weights = target_weights.to(student.dtype)
    # xlogy(0, 0) is 0: a padding entry adds nothing to the label's negative entropy.
    return (torch.xlogy(weights, weights) - weights * student).sum(-1)


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32

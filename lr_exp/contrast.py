"""The equations of LightReasoner (arXiv 2510.07962), one pure tensor function each.

Probabilities are fp32 log-probabilities without epsilons (fp64 stays fp64); divergences and
entropies are in nats. The last dimension is the vocabulary or, where the docstring says so, the
*support*: the few tokens of the vocabulary that were kept.

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
    """Log-softmax over the last dimension, always in fp32 (fp64 stays fp64)."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits, dim=-1, dtype=dtype)


def kl_nats(expert_log_probs: Tensor, amateur_log_probs: Tensor) -> Tensor:
    """Divergence at a token position, Eq. 1-2: KL(expert || amateur) over the whole vocabulary.

    Args:
        expert_log_probs: `(..., vocabulary)`, normalized. Its probabilities weight the sum.
        amateur_log_probs: `(..., vocabulary)`, normalized over the same tokens.

    Returns:
        `(...)` in nats, non-negative up to rounding.
    """
    return (expert_log_probs.exp() * (expert_log_probs - amateur_log_probs)).sum(-1)


def entropy_nats(log_probs: Tensor) -> Tensor:
    """Shannon entropy `(...)` in nats of normalized `(..., vocabulary)` log-probabilities."""
    return -(log_probs.exp() * log_probs).sum(-1)


def informative(kl_nats: Tensor, beta: float) -> Tensor:
    """Informative step selection, Eq. 3: True where the divergence exceeds `beta` nats."""
    return kl_nats > beta


def plausible(expert_log_probs: Tensor, alpha: float) -> Tensor:
    """Plausibility mask, Eq. 4: True where a token has at least `alpha` times the top probability.

    Accepts the vocabulary or any support that includes the expert's top token, which is always
    plausible. `alpha` is in (0, 1].
    """
    return expert_log_probs >= expert_log_probs.amax(-1, keepdim=True) + math.log(alpha)


def contrast_score(expert_log_probs: Tensor, amateur_log_probs: Tensor) -> Tensor:
    """Contrast score, Eq. 5: log(expert / amateur) of each token, in nats."""
    return expert_log_probs - amateur_log_probs


def soft_label(score: Tensor, mask: Tensor) -> Tensor:
    """Contrastive soft label, Eq. 6: softmax of the score over the mask, exactly 0 elsewhere.

    Args:
        score: `(..., support)` floating point; values outside the mask are ignored.
        mask: `(..., support)` bool, at least one True in each row.

    Returns:
        `(..., support)` weights in [0, 1] that sum to 1.
    """
    return score.masked_fill(~mask, -math.inf).softmax(-1)


def weights_entropy_nats(weights: Tensor) -> Tensor:
    """Shannon entropy `(...)` in nats of weights `(..., support)` that sum to 1; some may be 0."""
    return -torch.xlogy(weights, weights).sum(-1)


def with_entropy(log_probs: Tensor, mask: Tensor, entropy: Tensor) -> Tensor:
    """The distribution proportional to p^s on the mask whose exponent s >= 0 gives this entropy.

    Args:
        log_probs: `(n, support)` log p; values outside the mask are ignored.
        mask: `(n, support)` bool, at least one True in each row.
        entropy: `(n,)` in nats, at most the log of the number of tokens in the mask. Where it is
            below that of s -> inf, the result is that limit: several tokens share the highest p.

    Returns:
        `(n, support)` weights that sum to 1, exactly 0 outside the mask, in the dtype of log_probs.
    """
    # The entropy falls as s grows. Halving the interval of s / (1 + s) converges for every s; fp64,
    # because s is large where two tokens are almost equally probable.
    scaled = log_probs.double() - log_probs.double().amax(-1, keepdim=True)
    low, high = torch.zeros_like(scaled[:, :1]), torch.ones_like(scaled[:, :1])
    for _ in range(60):
        middle = (low + high) / 2
        weights = soft_label(scaled * middle / (1 - middle), mask)
        too_flat = weights_entropy_nats(weights)[:, None] > entropy.double()[:, None]
        low, high = torch.where(too_flat, middle, low), torch.where(too_flat, high, middle)
    return soft_label(scaled * low / (1 - low), mask).to(log_probs.dtype)


def distillation_loss(
    student_log_probs: Tensor, target_ids: Tensor, target_weights: Tensor
) -> Tensor:
    """Loss at each kept token position, Eq. 7-8: KL(v_C || pi_E), from sparse soft labels.

    Includes the label's entropy, so the loss is 0 where the student equals the label; the gradient
    is that of the cross-entropy - sum_a v_C(a) log pi_E(a).

    Args:
        student_log_probs: `(positions, vocabulary)` of the model being tuned, normalized.
        target_ids: `(positions, support)` int64; padding entries hold any valid id.
        target_weights: `(positions, support)`, each row sums to 1; padding entries are 0.

    Returns:
        `(positions,)` in nats, non-negative up to rounding.
    """
    student = student_log_probs.gather(-1, target_ids)
    weights = target_weights.to(student.dtype)
    # xlogy(0, 0) is 0, so padding entries add nothing to the negative entropy.
    return (torch.xlogy(weights, weights) - weights * student).sum(-1)

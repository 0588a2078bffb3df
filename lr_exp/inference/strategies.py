"""Decoding strategies: each chooses the next token of every row from the models' logits.

A `Strategy` takes a sequence with each model's raw logits `(rows, ids)`, without ids that have no
token, and returns the chosen ids, int64 `(rows,)`. Any valid id will do for a row with NaN or
infinity: it has finished. Strategies with settings are closures.
`generation.py` has a decoding function for each, and `evaluator/answer.py` selects one by
`evaluator.decoder`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lr_exp import contrast
from lr_exp.models.vocabulary import SharedVocabulary

Strategy = Callable[[Sequence[Tensor]], Tensor]


def greedy(logits: Sequence[Tensor]) -> Tensor:
    """The most probable token of the only model."""
    (model_logits,) = logits
    return model_logits.max(-1).indices


def sampled(temperature: float, top_p: float, generator: torch.Generator) -> Strategy:
    """Samples from the only model's softmax(logits / temperature), in fp32.

    Args:
        temperature: above 0; approaches greedy decoding towards 0.
        top_p: in (0, 1]. Samples from the nucleus: the smallest set of most probable tokens with
            at least this total probability (arXiv 1904.09751, section 3.1).
        generator: on the logits' device.
    """

    def choose(logits: Sequence[Tensor]) -> Tensor:
        (model_logits,) = logits
        scores = model_logits.float()
        # Subtract the maximum first: dividing by a tiny temperature would overflow.
        probabilities = ((scores - scores.amax(-1, keepdim=True)) / temperature).softmax(-1)
        probabilities.nan_to_num_(nan=1.0)  # multinomial would fail for the whole batch
        if top_p == 1:
            return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
        ordered, ids = torch.sort(probabilities, stable=True, dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # total probability of more probable tokens
        # multinomial accepts unnormalized weights.
        nucleus = ordered.masked_fill(before >= top_p, 0.0)
        return ids.gather(-1, torch.multinomial(nucleus, 1, generator=generator)).squeeze(-1)

    return choose


def contrastive(shared: SharedVocabulary, alpha: float) -> Strategy:
    """The expert's plausible token (Eq. 4) with the highest contrast score (Eq. 5).

    Contrastive decoding (arXiv 2210.15097) with greedy search instead of beams. Takes the expert's
    and the amateur's logits and normalizes both over the shared ids. Ties go to the token that the
    expert finds more probable. If the expert's top token is not a shared id, it is chosen: such
    control tokens have no contrast score, and without them some answers would never end.
    """
    ids = shared.ids()
    is_shared = torch.zeros(shared.size, dtype=torch.bool)
    is_shared[ids] = True

    def choose(logits: Sequence[Tensor]) -> Tensor:
        nonlocal ids, is_shared
        expert_logits, amateur_logits = logits
        # Moves them once; later calls find them on the device.
        ids, is_shared = ids.to(expert_logits.device), is_shared.to(expert_logits.device)
        expert = contrast.log_probs(shared.restrict(expert_logits, ids))
        amateur = contrast.log_probs(shared.restrict(amateur_logits, ids))
        score = contrast.contrast_score(expert, amateur)
        score = score.masked_fill(~contrast.plausible(expert, alpha), -math.inf)
        best = score == score.amax(-1, keepdim=True)
        chosen = ids[expert.masked_fill(~best, -math.inf).max(-1).indices]
        top = expert_logits.max(-1).indices
        top_is_shared = is_shared[top.clamp(max=shared.size - 1)] & (top < shared.size)
        return torch.where(top_is_shared, chosen, top)

    return choose

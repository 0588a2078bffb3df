"""The next token of each row, from the logits of the models that read it: one function a way.

Pure functions of tensors; they know no models, prompts or texts. `Choose` gets one `(rows, ids)`
of raw logits a model, ids that have no token left out, and returns the chosen ids, int64 `(rows,)`.
The ways that have settings are made by a function of those settings.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lr_exp import contrast
from lr_exp.models.vocabulary import SharedVocabulary

Choose = Callable[[Sequence[Tensor]], Tensor]


def greedy(logits: Sequence[Tensor]) -> Tensor:
    """The only model's most probable token."""
    (own,) = logits
    return own.max(-1).indices


def sampled(temperature: float, top_p: float, generator: torch.Generator) -> Choose:
    """A token drawn from the only model's softmax(logits / temperature), in fp32.

    Args:
        temperature: above 0; towards 0 the choice becomes the greedy one.
        top_p: in (0, 1]. Only the nucleus is drawn from: the smallest set of most probable tokens
            that hold at least this probability together (arXiv 1904.09751, section 3.1); 1 is all.
        generator: on the logits' device; every call takes the next numbers of it.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}: a number above 0 is needed")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: a number in (0, 1] is needed")

    def choose(logits: Sequence[Tensor]) -> Tensor:
        (own,) = logits
        own = own.float()
        # The top is taken off first: logits over a tiny temperature would not be finite.
        probabilities = ((own - own.amax(-1, keepdim=True)) / temperature).softmax(-1)
        if top_p == 1:
            return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
        ordered, ids = torch.sort(probabilities, stable=True, dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # what more probable tokens hold; 0 for the first
        # multinomial takes weights: they need not sum to 1 again.
        nucleus = ordered.masked_fill(before >= top_p, 0.0)
        return ids.gather(-1, torch.multinomial(nucleus, 1, generator=generator)).squeeze(-1)

    return choose


def contrastive(shared: SharedVocabulary, alpha: float) -> Choose:
    """Of the expert's plausible tokens (Eq. 4) the one with the greatest contrast score (Eq. 5).

    Contrastive decoding (arXiv 2210.15097) with greedy search in place of beams; both models'
    logits are normalized over the shared ids. Of equal scores the expert's more probable token is
    chosen. Where the expert's first choice is an id that the models do not share, it stands: such
    control tokens have no contrast, and without them some answers could never end.

    Args:
        shared: the ids that both models know; the logits come as expert's, amateur's.
        alpha: in (0, 1]; 1 leaves the expert's own choice.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}: a number in (0, 1] is needed")
    ids = shared.ids()
    is_shared = torch.zeros(shared.size, dtype=torch.bool)
    is_shared[ids] = True

    def choose(logits: Sequence[Tensor]) -> Tensor:
        nonlocal ids, is_shared
        expert_logits, amateur_logits = logits
        # Moved once: at the next token they are there.
        ids, is_shared = ids.to(expert_logits.device), is_shared.to(expert_logits.device)
        expert = contrast.log_probs(shared.restrict(expert_logits))
        amateur = contrast.log_probs(shared.restrict(amateur_logits))
        score = contrast.contrast_score(expert, amateur)
        score = score.masked_fill(~contrast.plausible(expert, alpha), -math.inf)
        best = score == score.amax(-1, keepdim=True)
        chosen = ids[expert.masked_fill(~best, -math.inf).max(-1).indices]
        own = expert_logits.max(-1).indices
        known = is_shared[own.clamp(max=shared.size - 1)] & (own < shared.size)
        return torch.where(known, chosen, own)

    return choose

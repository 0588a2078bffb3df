"""Batched greedy decoding on raw logits. Knows causal models and token ids, no prompts or texts.

The project decodes by a loop of its own because `generate` fills whatever a caller leaves open from
the model repository's generation config (temperature, top-p, repetition penalty). Here nothing but
the arguments decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError
from lr_exp.kv_cache import roomy_cache

# Rows that ended are taken out of the batch once they are this share of it: each removal copies
# the cache, each row left in costs a row of every further pass.
_COMPACT_SHARE = 0.25


@dataclass(frozen=True)
class Decoded:
    """What one prompt was continued with; the stop token, where one came, is the last id."""

    token_ids: list[int]
    finished: bool  # ended by a stop token, not by a limit


@torch.inference_mode()
def decode_greedily(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    vocabulary_size: int,
    context: int | None = None,
) -> list[Decoded]:
    """Continues each prompt with its most probable tokens.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids, one or more each; of similar lengths to waste little.
        max_new_tokens: at most so many per prompt, the stop token included.
        stop_ids: any of these ends a continuation.
        vocabulary_size: ids at and above it (rows without a token) are never chosen.
        context: the model's limit on prompt and continuation together, if it has one.

    Raises:
        UserError: the model gave NaN.
    """
    if model.training:
        raise ValueError("the model is in training mode: its dropout would decide the answers")
    device = next(model.parameters()).device
    width = max(len(prompt) for prompt in prompts)
    # Left padding, so that every row's next token stands in the same column. The pad id never
    # matters: its positions are masked by place, not by value.
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros(len(prompts), width, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)

    room = [max_new_tokens] * len(prompts)
    if context is not None:
        room = [min(max_new_tokens, context - len(prompt)) for prompt in prompts]
    stops = torch.tensor(sorted(stop_ids), device=device)
    outputs: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    rows = list(range(len(prompts)))  # which prompt each row of the batch belongs to
    alive = torch.ones(len(prompts), dtype=torch.bool)
    cache = roomy_cache(model.config, width + max(room))
    while True:
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1, :vocabulary_size]
        best, chosen = logits.max(-1)
        ended = torch.isin(chosen, stops)
        _check_finite(best[alive.to(device)])
        for row, (token, end) in enumerate(zip(chosen.tolist(), ended.tolist(), strict=True)):
            if not alive[row]:
                continue
            prompt = rows[row]
            outputs[prompt].append(token)
            finished[prompt] = end
            alive[row] = not end and len(outputs[prompt]) < room[prompt]
        count = int(alive.sum())
        if count == 0:
            break
        if count <= len(rows) * (1 - _COMPACT_SHARE):
            keep = alive.nonzero().squeeze(-1)
            cache.batch_select_indices(keep.to(device))
            mask, chosen = mask[keep.to(device)], chosen[keep.to(device)]
            positions = positions[keep.to(device)]
            rows = [rows[row] for row in keep.tolist()]
            alive = alive[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [Decoded(tokens, end) for tokens, end in zip(outputs, finished, strict=True)]


def _check_finite(best: Tensor) -> None:
    if not torch.isfinite(best).all():
        raise UserError(
            "the model's logits are not finite (NaN or infinite) while decoding: its weights are "
            "damaged, or the precision is too low; try dtype=float32."
        )

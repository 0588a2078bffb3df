"""Finds out how a loaded model may be run: packed, in cached batches, or one sequence at a time.

An architecture that mixes packed sequences, or misreads padding or a cache, raises no error: its
numbers are plausible and wrong. So each property is tested once after loading.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lr_exp import contrast
from lr_exp.errors import UserError, first_line
from lr_exp.models.packing import Pack, pack, read_logits

PROBE = [2, 7, 1, 8, 2, 8]  # token ids that every model has
_LONGER = [3, 1, 4, 1, 5, 9, 2, 6, 5]


def probe(model: Any, name: str) -> tuple[bool, bool]:
    """Tests a model in evaluation mode whose weights need no gradient.

    Returns:
        Whether a call may have several sequences in a row (`packing`), and whether it may have
        left-padded rows and a cache of the tokens before.

    Raises UserError: its logits are not finite, or it is not a causal language model.
    """
    device = next(model.parameters()).device
    one = pack([PROBE], [range(len(PROBE))]).to(device)
    try:
        with torch.no_grad():
            plain = model(input_ids=one.input_ids, use_cache=False).logits[0]
            read = read_logits(model, one)
        if not torch.isfinite(plain).all():
            raise UserError(
                f"{name}: the logits are not finite (NaN or infinite); "
                "its weights are damaged, or try dtype=float32."
            )
        later = _influence(model, Pack(one.input_ids, one.position_ids, one.read_at[2:3]))[3:]
    except NotImplementedError as error:
        raise UserError(
            f"{name}: its attention has no gradient on this device ({first_line(error)}): set "
            "attention=sdpa or attention=eager."
        ) from error
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{name}: this architecture cannot read a plain sequence of tokens "
            f"({first_line(error)}); choose a decoder-only causal language model."
        ) from error
    if later.any() or read.shape != plain.shape or not torch.allclose(read, plain, atol=1e-3):
        why = "reads later tokens" if later.any() else "does not count positions from 0"
        raise UserError(
            f"{name}: this architecture {why}; choose a decoder-only causal language model."
        )
    return _packs(model, plain), _caches(model)


def _packs(model: Any, alone: Tensor) -> bool:
    """Whether no packed sequence influences another, and each counts positions from 0."""
    packed = pack([_LONGER, PROBE, _LONGER], [[], range(len(PROBE)), []]).to(alone.device)
    influence = _influence(model, packed)
    influence[len(_LONGER) : len(_LONGER) + len(PROBE)] = 0
    if influence.any():
        return False
    with torch.no_grad():
        return same_but_for_rounding(alone, read_logits(model, packed), model.dtype)


def _influence(model: Any, packed: Pack) -> Tensor:
    """For each token `(tokens,)` the largest gradient of the read logits by its embedding.

    A token that attention masks has exactly 0 in every precision. Changing the token and comparing
    logits would not do: a mixture of experts then multiplies other shapes, which round differently.
    """
    embedded: list[Tensor] = []

    def watch(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some models change it in place

    handle = model.get_input_embeddings().register_forward_hook(watch)
    try:
        with torch.enable_grad():
            logits = read_logits(model, packed)
            # Unequal weights: a layer norm makes the plain sum of some models' logits constant.
            weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).to(logits.device)
            total = (logits * weights.view_as(logits)).sum()
            (gradient,) = torch.autograd.grad(total, embedded[0])
    finally:
        handle.remove()
    return gradient[0].abs().amax(-1)


def cache_argument(model: Any) -> str | None:
    """The name of the argument that takes a cache; None for models like Mamba.

    transformers 5.24 renamed `past_key_values` to `cache` and warns about the old name.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # of peft
    taken = signature(plain.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), None)


@torch.no_grad()
def _caches(model: Any) -> bool:
    """Whether padded rows read in three calls give the logits of each whole sequence alone."""
    argument = cache_argument(model)
    if argument is None:
        return False  # the model would ignore a cache
    device = next(model.parameters()).device
    padding = len(_LONGER) - len(PROBE)
    ids = torch.tensor([_LONGER, [0] * padding + PROBE], device=device)
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, read = DynamicCache(config=model.config.get_text_config()), []
    try:
        for start, end in ((0, -2), (-2, -1), (-1, None)):
            logits = model(
                input_ids=ids[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                use_cache=True,
                logits_to_keep=1,
                **{argument: cache},
            ).logits
            read.append(logits[:, -1])
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False  # the model has a cache of its own kind
    whole = [
        model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0, -3:]
        for row in (_LONGER, PROBE)
    ]
    return same_but_for_rounding(torch.cat(whole), torch.stack(read, 1).flatten(0, 1), model.dtype)


def same_but_for_rounding(expected: Tensor, found: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits `(positions, rows)` differ only by rounding in the model's `dtype`.

    Passes of other shapes differ by 0.001 to 0.02 nats in half precision (SmolLM2-135M in bfloat16;
    an outlier reached 2, hence the median), also where the logits are in fp32.
    """
    divergences = contrast.kl_nats(contrast.log_probs(expected), contrast.log_probs(found))
    if dtype.itemsize < 4:
        return bool(divergences.median() < 0.05)
    return bool(divergences.max() < 1e-5)

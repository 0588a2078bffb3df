"""`torch.compile` for passes of few fixed shapes, which launch fewer kernels."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TOKENS, _READS = 256, 16  # sizes are rounded up to multiples of these


def compiled(model: torch.nn.Module, mode: str) -> Callable[..., Any]:
    """The model's forward pass, compiled for each shape of its inputs."""
    # Beyond its limit of 8, torch would run further shapes without compiling them.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    run = torch.compile(model, mode=mode, dynamic=False)

    def forward(**inputs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # CUDA graphs may overwrite earlier results
        return run(**inputs)

    return forward


def compiled_passes(model: torch.nn.Module, mode: str) -> Callable[..., Any]:
    """The forward pass of `packing.read_logits`, padded to few shapes and compiled.

    The padding is a sequence of its own at the end of the row, so it changes no logits. Gradients
    are allocated here, as CUDA graphs would overwrite their own: never set them to None.
    """
    for one in model.parameters():
        one.grad = torch.zeros_like(one) if one.requires_grad else None
    run = compiled(model, mode)

    def forward(
        *, input_ids: Tensor, position_ids: Tensor, logits_to_keep: Tensor, use_cache: bool
    ) -> SimpleNamespace:
        padding, reads = -input_ids.shape[1] % _TOKENS, len(logits_to_keep)
        positions = torch.arange(padding, device=input_ids.device)[None]
        logits = run(
            input_ids=functional.pad(input_ids, (0, padding)),
            position_ids=torch.cat([position_ids, positions], 1),
            logits_to_keep=functional.pad(logits_to_keep, (0, -reads % _READS)),
            use_cache=use_cache,
        ).logits
        return SimpleNamespace(logits=logits[:, :reads])

    return forward


def rounded_up(tokens: int) -> int:
    """The next length for which a pass is compiled."""
    return tokens + -tokens % _TOKENS

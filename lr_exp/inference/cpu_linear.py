"""Speeds up linear layers on the CPU by storing their weights in oneDNN's layout.

With few rows, as in decoding, a matrix product is bound by reading its weight. torch's default
kernels reorder a weight at every call; prepacking does it once. Measured with SmolLM2-135M's shapes
on one core, in GFLOP/s without and with prepacking: 45 and 82 at 16 rows, 78 and 102 at 64, 97 and
108 at 256. The results differ only by rounding.
"""

import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

# Smaller models fit in the processor's cache and gain nothing.
_MIN_PARAMETERS = 20_000_000
_ARCHITECTURES = ("x86_64", "AMD64")  # measured on these only


@contextmanager
def prepacked_linear(*models: torch.nn.Module, copy_shared: bool = False) -> Iterator[None]:
    """Prepacks the models' linear layers for inference within the context; restores them after.

    Affects only large fp32 models on a CPU. Weights are moved, not copied: `weight` is empty
    meanwhile, and memory use stays the same.

    Args:
        copy_shared: also prepack a copy of weights that another module shares (the embedding of
            tied models: 113 MB in SmolLM2). Its output layer then runs at 85 instead of 51 GFLOP/s
            with 16 rows, and at 101 instead of 96 with 256.
    """
    modules = {id(module): module for model in models for module in model.modules()}.values()
    uses = Counter(id(p) for module in modules for p in module._parameters.values())
    prepacked: list[tuple[torch.nn.Linear, Tensor, bool]] = []
    try:
        for layer in _layers(models):
            weight = layer.weight.detach()
            unshared = uses[id(layer.weight)] == 1
            if unshared or copy_shared:
                weight = torch.ops.mkldnn._reorder_linear_weight(weight)
            if unshared:
                layer.weight.data = layer.weight.data.new_empty(0)
            vars(layer)["forward"] = partial(_forward, weight, layer.bias)  # overrides the class's
            prepacked.append((layer, weight, unshared))
        yield
    finally:
        while prepacked:  # one by one, so that only one weight is in memory twice
            layer, weight, unshared = prepacked.pop()
            del vars(layer)["forward"]
            if unshared:
                with torch.inference_mode(False):
                    layer.weight.data = weight.to_dense()  # bit for bit the original


def _forward(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`torch.nn.Linear.forward` for a weight in either layout."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def _layers(models: tuple[torch.nn.Module, ...]) -> list[torch.nn.Linear]:
    """The linear layers worth prepacking, each once."""
    if platform.machine() not in _ARCHITECTURES or not torch.backends.mkldnn.is_available():
        return []
    large = [one for one in models if sum(p.numel() for p in one.parameters()) >= _MIN_PARAMETERS]
    return [
        module
        for module in dict.fromkeys(module for model in large for module in model.modules())
        # An outer call has already prepacked layers with an overridden forward.
        if type(module) is torch.nn.Linear and "forward" not in vars(module)
        if module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
    ]

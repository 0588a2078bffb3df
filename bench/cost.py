"""Minimum computation and memory traffic of each stage, from model shapes and token counts.

Counts the operations of matrix products with weights and of attention, and the bytes of weights
and, in decoding, of the keys and values that every token reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.machine import Peaks
from lr_exp.models.loading import LanguageModel


@dataclass(frozen=True)
class Cost:
    """Work of a stage: floating point operations and bytes read."""

    flops: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __truediv__(self, count: float) -> "Cost":
        return Cost(self.flops / count, self.bytes / count)

    def floor_seconds(self, limits: Peaks) -> float:
        """Minimum time on a device: the slower of computation and memory traffic."""
        return max(self.flops / limits.flops, self.bytes / limits.bytes)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    layers: int
    layer_weights: float  # in the matrices of one layer
    head_weights: int  # in the output projection
    attention_width: int  # heads x head width
    cache_width: int  # cached numbers per token and layer
    item_bytes: int


def shape_of(model: LanguageModel) -> Shape:
    """Sizes of a loaded model."""
    config: Any = model.model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = model.model.get_decoder().layers
    matrices = sum(p.numel() for p in layers.parameters() if p.dim() == 2)
    head = model.model.get_output_embeddings().weight
    return Shape(
        layers=len(layers),
        layer_weights=matrices / len(layers),
        head_weights=head.numel(),
        attention_width=config.num_attention_heads * head_dim,
        cache_width=2 * config.num_key_value_heads * head_dim,
        item_bytes=head.element_size(),
    )


def forward(shape: Shape, lengths: Sequence[int], reads: int, passes: float) -> Cost:
    """Forward passes over sequences of these lengths, with logits at `reads` positions."""
    tokens = sum(lengths)
    # A token attends to half of its sequence on average, in two matrix products.
    attention = sum(4 * shape.attention_width * n * n / 2 for n in lengths) * shape.layers
    weights = shape.layers * shape.layer_weights
    return Cost(
        flops=2 * weights * tokens + attention + 2 * shape.head_weights * reads,
        bytes=passes * shape.item_bytes * (weights + shape.head_weights),
    )


def decoding(shape: Shape, batches: Sequence[Sequence[tuple[int, int]]]) -> Cost:
    """Decoding of batches, one token of every row at a time.

    Args:
        shape: of the model.
        batches: each row's prompt length and number of new tokens, by batch.
    """
    rows = [row for batch in batches for row in batch]
    passes = sum(max(new for _, new in batch) for batch in batches)
    new_tokens = sum(new for _, new in rows)
    read = forward(shape, [prompt + new for prompt, new in rows], new_tokens, passes)
    per_token = shape.layers * shape.cache_width * shape.item_bytes
    cache = sum(per_token * (prompt * new + new**2 / 2) for prompt, new in rows)
    return read + Cost(0.0, cache)


def scoring(
    expert: LanguageModel, amateur: LanguageModel, lengths: Sequence[int], steps: int, passes: int
) -> Cost:
    """Both models read every trajectory; layers that they share count once."""
    own_layers = shape_of(amateur)
    if amateur.shared_with is expert.model:
        own_layers = replace(own_layers, layers=own_layers.layers - amateur.shared_layers)
    return forward(shape_of(expert), lengths, steps, passes) + forward(
        own_layers, lengths, steps, passes
    )


def training(shape: Shape, lengths: Sequence[int], reads: int, passes: float) -> Cost:
    """Forward and backward passes with frozen weights.

    The backward pass repeats each product once, for the gradient of its input.
    """
    once = forward(shape, lengths, reads, passes)
    return once + once

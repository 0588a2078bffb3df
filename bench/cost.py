"""What each stage must compute and move at least, from sizes alone.

Knows models' shapes and counts of tokens. Operations are those of the matrix products with weights
and of attention; bytes are weights and, in decoding, the keys and values that every token reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.machine import Peaks
from lr_exp.models.loading import LanguageModel


@dataclass(frozen=True)
class Cost:
    """Work of a stage."""

    flops: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __truediv__(self, count: float) -> "Cost":
        return Cost(self.flops / count, self.bytes / count)

    def floor_seconds(self, limits: Peaks) -> float:
        """The least time that the device needs: the slower of computing and moving."""
        return max(self.flops / limits.flops, self.bytes / limits.bytes)


@dataclass(frozen=True)
class Shape:
    """A model's sizes."""

    layers: int
    layer_weights: float  # of one layer's matrices
    head_weights: int  # of the projection to the vocabulary
    attention_width: int  # heads x their width
    cache_width: int  # numbers that a token keeps in a layer
    item_bytes: int


def shape(model: LanguageModel) -> Shape:
    """The sizes of a loaded model."""
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


def reading(one: Shape, lengths: Sequence[int], reads: int, passes: float) -> Cost:
    """Forward passes over sequences of these lengths, with logits at `reads` places."""
    tokens = sum(lengths)
    # A token attends to half of its sequence on average: two products of that width.
    attention = sum(4 * one.attention_width * n * n / 2 for n in lengths) * one.layers
    weights = one.layers * one.layer_weights
    return Cost(
        flops=2 * weights * tokens + attention + 2 * one.head_weights * reads,
        bytes=passes * one.item_bytes * (weights + one.head_weights),
    )


def decoding(one: Shape, batches: Sequence[Sequence[tuple[int, int]]]) -> Cost:
    """Batches that read their prompts and then write, a token of every row at a time.

    Args:
        batches: of each the rows' lengths: of the prompt, and of what was written.
    """
    rows = [row for batch in batches for row in batch]
    passes = sum(max(written for _, written in batch) for batch in batches)
    written = sum(written for _, written in rows)
    ops = reading(one, [prompt + new for prompt, new in rows], written, passes)
    per_token = one.layers * one.cache_width * one.item_bytes
    cache = sum(per_token * (prompt * new + new**2 / 2) for prompt, new in rows)
    return ops + Cost(0.0, cache)


def scoring(
    expert: LanguageModel, amateur: LanguageModel, lengths: Sequence[int], steps: int, passes: int
) -> Cost:
    """Both models read every trajectory; layers that they share are read once."""
    whole = reading(shape(expert), lengths, steps, passes)
    other = shape(amateur)
    alone = other.layers - (amateur.shared_layers if amateur.shared_with is expert.model else 0)
    rest = Shape(**{**vars(other), "layers": alone})
    return whole + reading(rest, lengths, steps, passes)


def training(one: Shape, lengths: Sequence[int], reads: int, passes: float) -> Cost:
    """Forward and backward through frozen weights: each product once more for its input."""
    forward = reading(one, lengths, reads, passes)
    return forward + forward

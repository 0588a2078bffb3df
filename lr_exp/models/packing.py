"""Packs sequences end to end in one row, so that one causal pass serves many without padding.

Each sequence starts again at position 0, by which `transformers` separates packed sequences: a
token attends to its own sequence only. `probing` finds the models that do not separate them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MAX_CPU_PASS = 512  # tokens


@dataclass(frozen=True)
class Pack:
    """Several sequences as one row, and the positions whose logits are wanted."""

    input_ids: Tensor  # (1, tokens) int64
    position_ids: Tensor  # (1, tokens) int64, from 0 in each sequence
    read_at: Tensor  # (reads,) int64, indices into the row, ascending

    def to(self, device: torch.device | str) -> "Pack":
        return Pack(*(tensor.to(device) for tensor in vars(self).values()))


def pack(sequences: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> Pack:
    """Concatenates sequences of token ids, at least one each.

    Args:
        reads: for each sequence the indices into it whose next-token logits are wanted.

    Raises ValueError: an empty sequence, or an index outside its sequence.
    """
    row, positions, read_at = [], [], []
    for sequence, indices in zip(sequences, reads, strict=True):
        outside = [index for index in indices if not 0 <= index < len(sequence)]
        if outside or not sequence:
            raise ValueError(
                f"a sequence of {len(sequence)} tokens cannot be read at {outside or 'any index'}"
            )
        read_at += [len(row) + index for index in indices]
        row += sequence
        positions += range(len(sequence))
    return Pack(torch.tensor([row]), torch.tensor([positions]), torch.tensor(read_at))


def read_logits(model: Callable[..., Any], packed: Pack) -> Tensor:
    """Logits `(reads, rows)` at `read_at`; other positions skip the output layer."""
    logits = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        logits_to_keep=packed.read_at,
        use_cache=False,
    ).logits
    return logits[0]


def groups_within(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Groups consecutive indices so that lengths sum to at most `budget`; a longer one is alone."""
    group: list[int] = []
    used = 0
    for index, length in enumerate(lengths):
        if group and used + length > budget:
            yield group
            group, used = [], 0
        group.append(index)
        used += length
    if group:
        yield group


def pass_size(tokens_per_pass: int, device: str, *, packs: bool) -> int:
    """Tokens per pass on this kind of device: at most `tokens_per_pass`.

    Without `packs` (see `probing`) it is 1: `groups_within` then leaves each sequence alone.

    Packing masks the whole row, so attention is quadratic in its length. GPUs need long rows to be
    busy, CPUs do not. Measured on one core: SmolLM2-135M scores at 1.9 s a question with 1024
    tokens per pass and at 1.6 s with 256; a tiny model, dominated by overhead per pass, trains at
    109 ms an optimizer step with 256 tokens and at 88 ms with 512.
    """
    if not packs:
        return 1
    return min(tokens_per_pass, _MAX_CPU_PASS) if device == "cpu" else tokens_per_pass

"""Sequences laid end to end in one row, so that one causal pass serves many and nothing is padded.

Knows token ids and causal models; knows neither experts nor losses. Each sequence starts again at
position 0, which is how `transformers` tells packed sequences apart: a token attends to its own
sequence only. Where there is no padding, no pad id, padding side or mask can be wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lr_exp import contrast
from lr_exp.errors import UserError

_CPU_PASS = 512  # tokens


@dataclass(frozen=True)
class Pack:
    """Several sequences as one row, and the places in it whose logits are wanted."""

    input_ids: Tensor  # (1, tokens) int64
    position_ids: Tensor  # (1, tokens) int64, from 0 in each sequence
    read_at: Tensor  # (reads,) int64, indices into the row, ascending

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack on another device."""
        return Pack(
            self.input_ids.to(device), self.position_ids.to(device), self.read_at.to(device)
        )


def pack(sequences: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> Pack:
    """Lays sequences end to end.

    Args:
        sequences: token ids of each sequence, one or more each.
        reads: for each sequence the indices into it whose next-token logits are wanted.

    Raises:
        ValueError: an empty sequence, or an index outside its own sequence.
    """
    starts, total = [], 0
    for sequence, indices in zip(sequences, reads, strict=True):
        outside = [index for index in indices if not 0 <= index < len(sequence)]
        if outside or not sequence:
            raise ValueError(
                f"a sequence of {len(sequence)} tokens cannot be read at {outside or 'any place'}"
            )
        starts.append(total)
        total += len(sequence)
    row = [token for sequence in sequences for token in sequence]
    positions = [index for sequence in sequences for index in range(len(sequence))]
    read_at = [
        start + index for start, indices in zip(starts, reads, strict=True) for index in indices
    ]
    return Pack(torch.tensor([row]), torch.tensor([positions]), torch.tensor(read_at))


def read_logits(model: torch.nn.Module, packed: Pack) -> Tensor:
    """Logits `(reads, rows)` at the wanted places; no other position meets the vocabulary."""
    logits = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        logits_to_keep=packed.read_at,
        use_cache=False,
    ).logits
    return logits[0]


def groups_within(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Consecutive indices whose lengths sum to at most `budget`; a longer one goes alone."""
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


def pass_size(tokens_per_pass: int, device: str) -> int:
    """How many tokens a pass should have on this kind of device: `tokens_per_pass` at most.

    Keeping packed sequences apart takes a mask over the whole row, so attention costs its square,
    and a GPU needs long rows to be busy. A CPU does not: SmolLM2-135M scores at 1.9 s a question in
    passes of 1024 tokens, at 1.6 s in passes of 256; a tiny model, whose passes cost by their
    number, trains at 109 ms a step in passes of 256, at 88 ms in passes of 512 (one core).
    """
    return min(tokens_per_pass, _CPU_PASS) if device == "cpu" else tokens_per_pass


@torch.inference_mode()
def check_packing(model: torch.nn.Module, name: str) -> None:
    """Raises unless this model keeps packed sequences apart and honours `logits_to_keep`.

    Run once after loading: an architecture that ignores either would give plausible wrong numbers.
    """
    device = next(model.parameters()).device
    first, second = [3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7, 1, 8, 2, 8, 1, 8]
    try:
        # What leaks, leaks into the second. Its first token attends to itself alone either way.
        together = read_logits(model, pack([first, second], [[], list(range(1, 8))]).to(device))
        apart = model(input_ids=torch.tensor([second], device=device)).logits[0, 1:]
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{name}: this architecture does not take position_ids and logits_to_keep ({error}); "
            "choose a decoder-only causal language model."
        ) from error
    if not torch.isfinite(apart).all():
        raise UserError(
            f"{name}: the model gives logits that are not finite (NaN or infinite); "
            "its weights are damaged, or try dtype=float32."
        )
    divergences = contrast.kl_nats(contrast.log_probs(apart), contrast.log_probs(together))
    # Differently shaped passes round differently: with SmolLM2-135M in bfloat16 that is 0.001 to
    # 0.02 nats (and 2 at one odd place of another sequence, hence the median), while a leak
    # between the sequences is 1 to 4.
    half = next(model.parameters()).dtype.itemsize < 4
    divergence = divergences.median() if half else divergences.max()
    if not divergence < (0.2 if half else 1e-5):
        raise UserError(
            f"{name}: this architecture does not keep packed sequences apart ({divergence:.2g} "
            "nats), so its numbers could not be trusted; choose a model with sdpa or eager "
            "attention."
        )

"""Packs sequences end to end in one row, so that one causal pass serves many without padding.

Each sequence starts again at position 0, by which `transformers` separates packed sequences: a
token attends to its own sequence only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lr_exp import contrast
from lr_exp.errors import UserError

_MAX_CPU_PASS = 512  # tokens


@dataclass(frozen=True)
class Pack:
    """Several sequences as one row, and the positions whose logits are wanted."""

    input_ids: Tensor  # (1, tokens) int64
    position_ids: Tensor  # (1, tokens) int64, from 0 in each sequence
    read_at: Tensor  # (reads,) int64, indices into the row, ascending

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack on another device."""
        return Pack(
            self.input_ids.to(device), self.position_ids.to(device), self.read_at.to(device)
        )


def pack(sequences: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> Pack:
    """Concatenates sequences.

    Args:
        sequences: token ids of each sequence, at least one each.
        reads: for each sequence the indices into it whose next-token logits are wanted.

    Raises:
        ValueError: an empty sequence, or an index outside its sequence.
    """
    starts, total = [], 0
    for sequence, indices in zip(sequences, reads, strict=True):
        outside = [index for index in indices if not 0 <= index < len(sequence)]
        if outside or not sequence:
            raise ValueError(
                f"a sequence of {len(sequence)} tokens cannot be read at {outside or 'any index'}"
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


def pass_size(tokens_per_pass: int, device: str) -> int:
    """Tokens per pass on this kind of device: at most `tokens_per_pass`.

    Packing masks the whole row, so attention is quadratic in its length. GPUs need long rows to be
    busy, CPUs do not. Measured on one core: SmolLM2-135M scores at 1.9 s a question with 1024
    tokens per pass and at 1.6 s with 256; a tiny model, dominated by overhead per pass, trains at
    109 ms an optimizer step with 256 tokens and at 88 ms with 512.
    """
    return min(tokens_per_pass, _MAX_CPU_PASS) if device == "cpu" else tokens_per_pass


@torch.inference_mode()
def check_packing(model: torch.nn.Module, name: str) -> None:
    """Raises UserError unless the model separates packed sequences and honours `logits_to_keep`.

    Run once after loading: an architecture that ignores either gives plausible but wrong numbers.
    """
    device = next(model.parameters()).device
    first, second = [3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7, 1, 8, 2, 8, 1, 8]
    try:
        # A leak changes the second sequence; its first token, which sees only itself, is skipped.
        together = read_logits(model, pack([first, second], [[], list(range(1, 8))]).to(device))
        apart = model(input_ids=torch.tensor([second], device=device)).logits[0, 1:]
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{name}: this architecture does not accept position_ids and logits_to_keep ({error}); "
            "choose a decoder-only causal language model."
        ) from error
    if not torch.isfinite(apart).all():
        raise UserError(
            f"{name}: the logits are not finite (NaN or infinite); "
            "its weights are damaged, or try dtype=float32."
        )
    divergences = contrast.kl_nats(contrast.log_probs(apart), contrast.log_probs(together))
    # Passes of different shapes round differently. For SmolLM2-135M in bfloat16 that is 0.001 to
    # 0.02 nats (an outlier of another sequence reached 2, hence the median); a leak is 1 to 4 nats.
    half = next(model.parameters()).dtype.itemsize < 4
    divergence = divergences.median() if half else divergences.max()
    if not divergence < (0.2 if half else 1e-5):
        raise UserError(
            f"{name}: this architecture does not keep packed sequences apart ({divergence:.2g} "
            "nats), so its results would be wrong; choose a model with sdpa or eager attention."
        )

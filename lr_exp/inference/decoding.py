"""Batched decoding on raw logits. Knows causal models and token ids, no prompts' texts.

The project decodes by a loop of its own because `generate` fills whatever a caller leaves open from
the model repository's generation config (temperature, top-p, repetition penalty). Here nothing but
the arguments decides.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError
from lr_exp.inference.kv_cache import preallocated_cache
from lr_exp.inference.strategies import Choose, greedy

# Rows that ended are taken out of the batch once they are this share of it: each removal copies
# the cache, each row left in costs a row of every further pass.
_COMPACT_SHARE = 0.25


@dataclass(frozen=True)
class Decoded:
    """What one prompt was continued with; the stop token, where one came, is the last id."""

    token_ids: list[int]
    finished: bool  # ended by a stop token, not by a limit


@dataclass(frozen=True)
class Reader:
    """A model that reads the continuations, each after its own prompt for it."""

    model: Any  # a causal language model in evaluation mode
    prompts: Sequence[Sequence[int]]  # token ids, one or more each; of similar lengths
    vocabulary_size: int  # ids at and above it (rows without a token) are never looked at
    context: int | None = None  # limit on prompt and continuation together, if it has one
    # The ids that mean to this model what they mean to the others; it passes over the rest of a
    # continuation, as if they were not there (None: it reads all).
    reads: Container[int] | None = None
    name: str = "the model"  # for messages


def decode_greedily(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    vocabulary_size: int,
    context: int | None = None,
) -> list[Decoded]:
    """Continues each prompt with the model's most probable tokens: `decode` with one reader."""
    reader = Reader(model, prompts, vocabulary_size, context)
    return decode([reader], greedy, max_new_tokens=max_new_tokens, stop_ids=stop_ids)


@torch.inference_mode()
def decode(
    readers: Sequence[Reader],
    choose: Choose,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
) -> list[Decoded]:
    """Writes one continuation a row, which every reader reads after its own prompt of that row.

    Args:
        readers: one or more, on one device, with a prompt for each row.
        choose: the next token of each row from the readers' logits, in their order.
        max_new_tokens: at most so many per row, the stop token included; the shortest room that
            any reader's context leaves is a limit too.
        stop_ids: any of these ends a continuation.

    Raises:
        UserError: a model gave logits that are not finite.
        ValueError: a model in training mode, or a prompt that leaves no room.
    """
    room = _room(readers, max_new_tokens)
    readings = [_Reading(reader, max(room)) for reader in readers]
    stops = frozenset(stop_ids)
    outputs: list[list[int]] = [[] for _ in room]
    finished = [False] * len(room)
    rows = list(range(len(room)))  # which continuation each row of the batch belongs to
    alive = [True] * len(room)
    while True:
        chosen = choose([reading.logits(alive) for reading in readings])
        tokens = chosen.tolist()
        for row, token in enumerate(tokens):
            if not alive[row]:
                continue
            place = rows[row]
            outputs[place].append(token)
            finished[place] = token in stops
            alive[row] = not finished[place] and len(outputs[place]) < room[place]
        count = sum(alive)
        if count == 0:
            break
        if count <= len(rows) * (1 - _COMPACT_SHARE):
            keep = [row for row in range(len(rows)) if alive[row]]
            indices = torch.tensor(keep, device=chosen.device)
            for reading in readings:
                reading.keep(indices)
            chosen = chosen[indices]
            tokens, rows = [tokens[row] for row in keep], [rows[row] for row in keep]
            alive = [True] * count
        for reading in readings:
            reading.append(chosen, tokens)
    return [Decoded(tokens, end) for tokens, end in zip(outputs, finished, strict=True)]


def _room(readers: Sequence[Reader], max_new_tokens: int) -> list[int]:
    """How many tokens each row may get: the least that any reader has room for."""
    room = [max_new_tokens] * len(readers[0].prompts)
    for reader in readers:
        if len(reader.prompts) != len(room):
            raise ValueError(f"{len(reader.prompts)} prompts for {len(room)} rows")
        if reader.context is not None:
            left = [reader.context - len(prompt) for prompt in reader.prompts]
            room = [min(pair) for pair in zip(room, left, strict=True)]
    if min(room) < 1:
        raise ValueError("a prompt or max_new_tokens leaves no room for a single token")
    return room


class _Reading:
    """One reader's place in a batch: its cache, and the token of each row that it reads next."""

    def __init__(self, reader: Reader, room: int) -> None:
        if reader.model.training:
            raise ValueError("the model is in training mode: its dropout would decide the answers")
        device = next(reader.model.parameters()).device
        self._reader = reader
        self._length = max(len(prompt) for prompt in reader.prompts)  # columns so far
        # Left padding, so that every row's next token stands in the same column. The pad id never
        # matters: its positions are masked by place, not by value. The mask has room for all that
        # is still to come.
        ids = torch.zeros(len(reader.prompts), self._length, dtype=torch.int64)
        mask = torch.ones(len(reader.prompts), self._length + room, dtype=torch.int64)
        for row, prompt in enumerate(reader.prompts):
            ids[row, self._length - len(prompt) :] = torch.tensor(prompt)
            mask[row, : self._length - len(prompt)] = 0
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask[:, : self._length].cumsum(-1) - 1).clamp(min=0)
        self._next = self._positions[:, -1:] + 1  # the position of each row's next token
        self._cache = preallocated_cache(reader.model.config, self._length + room)
        # Kept for rows whose newest token is passed over: what the reader expects stays the same.
        self._logits: Tensor | None = None
        self._passed: Tensor | None = None  # (rows,) bool; None: no row

    def logits(self, alive: Sequence[bool]) -> Tensor:
        """Reads each row's next token; `(rows, vocabulary_size)` that predict the one after it."""
        logits = self._reader.model(
            input_ids=self._ids,
            attention_mask=self._mask[:, : self._length],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1, : self._reader.vocabulary_size]
        if self._passed is not None and self._logits is not None:
            logits = torch.where(self._passed[:, None], self._logits, logits)
        logits = _finite(logits, alive, self._reader.name)
        if self._reader.reads is not None:
            self._logits = logits
        return logits

    def keep(self, indices: Tensor) -> None:
        """Goes on with these rows only."""
        self._cache.batch_select_indices(indices)
        self._mask, self._next = self._mask[indices], self._next[indices]
        if self._logits is not None:
            self._logits = self._logits[indices]

    def append(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """Takes each row's new token, int64 `(rows,)` and the same as a list, to be read next."""
        self._ids, self._positions = chosen[:, None], self._next
        self._next = self._next + 1
        self._passed = None
        reads = self._reader.reads
        if reads is not None and not all(token in reads for token in tokens):
            self._passed = torch.tensor([token not in reads for token in tokens]).to(chosen.device)
            # The column stays, so that rows keep step, but nothing will look at it, and the next
            # token takes its position. The id may have no row in this model: 0 stands in for it.
            self._mask[:, self._length].masked_fill_(self._passed, 0)
            self._ids = self._ids.masked_fill(self._passed[:, None], 0)
            self._next = self._next - self._passed[:, None].long()
        if self._reader.context is not None:
            # Rows that ended are read until they are taken out: not past the last position.
            self._positions = self._positions.clamp(max=self._reader.context - 1)
        self._length += 1


def _finite(logits: Tensor, alive: Sequence[bool], name: str) -> Tensor:
    """The logits, once no living row has NaN or plus infinity; minus infinity excludes a token."""
    finite = torch.isfinite(logits.amax(-1))
    if finite.all():
        return logits
    if not finite[torch.tensor(alive, device=finite.device)].all():
        raise UserError(
            f"{name}'s logits are not finite (NaN or infinite) while decoding: its weights are "
            "damaged, or the precision is too low; try dtype=float32."
        )
    # Rows that ended go on with anything; a draw from NaN would fail for the whole batch.
    return logits.masked_fill(~finite[:, None], 0.0)

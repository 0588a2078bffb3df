"""Decodes batches of prompts with one or more models and a strategy.

The project has its own decoding loop because `generate` fills in any setting that the caller does
not pass from the model repository's generation config (temperature, top-p, repetition penalty).
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import StaticCache

from lr_exp.errors import UserError
from lr_exp.inference.kv_cache import BufferedLayer, buffered_cache
from lr_exp.inference.strategies import Strategy
from lr_exp.models.compiling import compiled, rounded_up
from lr_exp.models.loading import LanguageModel
from lr_exp.models.probing import cache_argument
from lr_exp.models.vocabulary import count_within, text_of

# Finished rows are replaced or removed once they are this share of the batch: either copies the
# cache, and a remaining row costs compute in every further pass.
_COMPACT_SHARE = 0.25


@dataclass(frozen=True)
class Decoded:
    """One continuation; the stop token, if any, is the last id."""

    token_ids: list[int]
    finished: bool  # ended by a stop token, not by a limit


class StopStrings:
    """Texts that end an answer; the answer excludes the tokens from the first of them on."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._tokenizer, self._texts = tokenizer, tuple(texts)
        # A token is at least one byte, except for the halves of a character that it may start with.
        self._tail = max((len(text.encode()) for text in texts), default=0) + 4

    def end(self, token_ids: Sequence[int]) -> bool:
        """Whether one of the texts is at the end of an unfinished answer."""
        return self._start(token_ids[-self._tail :]) is not None

    def truncated(self, answer: Decoded) -> Decoded:
        """The answer up to the token in which the first of the texts begins."""
        ids, start = answer.token_ids, self._start(answer.token_ids)
        if start is None:
            return answer
        return Decoded(ids[: count_within(self._tokenizer, ids, start)], finished=True)

    def _start(self, token_ids: Sequence[int]) -> int | None:
        """Where the first of the texts begins in the text of these ids."""
        text = text_of(self._tokenizer, token_ids) if self._texts else ""
        starts = [start for one in self._texts if (start := text.find(one)) >= 0]
        return min(starts, default=None)


@dataclass(frozen=True)
class PromptedModel:
    """A model that reads every continuation, after its own prompts."""

    language_model: LanguageModel  # in evaluation mode
    prompts: Sequence[Sequence[int]]  # token ids, at least one each; similar lengths pad less
    # Ids with the same meaning as in the other models; other ids of a continuation are skipped as
    # if they were not there (None: none are skipped).
    known_ids: Container[int] | None = None


@torch.inference_mode()
def decode(
    models: Sequence[PromptedModel],
    strategy: Strategy,
    *,
    max_new_tokens: int,
    max_rows: int | None = None,
    is_end: Callable[[Sequence[int]], bool] = lambda _: False,
) -> list[Decoded]:
    """Decodes one continuation of each prompt, which all models read after their own prompt.

    Args:
        models: one or more, on one device, with as many prompts each. The first one's stop tokens
            end a continuation.
        strategy: chooses the next tokens from the models' logits, in the order of `models`.
        max_new_tokens: per continuation, including the stop token; the shortest remaining context
            of the models is also a limit.
        max_rows: how many are decoded at a time, in the order of the prompts; further ones replace
            those that are finished (None: all at once).
        is_end: whether a continuation's token ids so far end it, as a stop token does.

    Raises:
        UserError: a model's logits are not finite.
        ValueError: a model is in training mode, or a prompt fills the context.
    """
    limits = _new_token_limits(models, max_new_tokens)
    max_rows = max_rows or len(limits)
    stops = frozenset(models[0].language_model.stop_ids)
    outputs: list[list[int]] = [[] for _ in limits]
    finished = [False] * len(limits)
    waiting = list(range(len(limits)))
    longest = max(limits)
    states: list[_WholeRows | _CachedRows] = []
    rows: list[int] = []  # the continuation to which each row of the batch belongs
    active: list[bool] = []  # whether each row's continuation goes on
    while True:
        free = max_rows - len(rows)
        if waiting and free and all(state.can_add for state in states):
            new, waiting = waiting[:free], waiting[free:]
            for place, model in enumerate(models):
                prompts = [model.prompts[index] for index in new]
                if rows:
                    states[place].add(prompts)
                else:
                    kind = _CachedRows if model.language_model.caches else _WholeRows
                    states.append(kind(model, prompts, longest))
            rows, active = rows + new, active + [True] * len(new)
        if not rows:
            break
        logits = [state.next_logits() for state in states]
        chosen = strategy(logits)
        checks = [torch.isfinite(one.amax(-1)) for one in logits]
        # One transfer for each token, because the host waits for the device in it.
        tokens, *finite_rows = torch.stack([chosen, *checks]).tolist()
        for model, finite in zip(models, finite_rows, strict=True):
            _check_finite(finite, active, model.language_model.name)
        for row, token in enumerate(tokens):
            if not active[row]:
                continue
            index = rows[row]
            outputs[index].append(token)
            finished[index] = token in stops or is_end(outputs[index])
            active[row] = not finished[index] and len(outputs[index]) < limits[index]
        kept = [row for row in range(len(rows)) if active[row]]
        if not kept:
            states, rows, active = [], [], []
            continue
        if len(kept) <= len(rows) * (1 - _COMPACT_SHARE) and all(one.can_keep for one in states):
            indices = torch.tensor(kept, device=chosen.device)
            for state in states:
                state.keep(kept, indices)
            chosen = chosen[indices]
            tokens, rows = [tokens[row] for row in kept], [rows[row] for row in kept]
            active = [True] * len(kept)
        for state in states:
            state.append(chosen, tokens)
    return [Decoded(tokens, end) for tokens, end in zip(outputs, finished, strict=True)]


def _new_token_limits(models: Sequence[PromptedModel], max_new_tokens: int) -> list[int]:
    """The maximum number of new tokens of each row, for all models' contexts."""
    limits = [max_new_tokens] * len(models[0].prompts)
    for model in models:
        if len(model.prompts) != len(limits):
            raise ValueError(f"{len(model.prompts)} prompts for {len(limits)} rows")
        if model.language_model.model.training:
            raise ValueError("the model is in training mode, so dropout would change the answers")
        if (context := model.language_model.context) is not None:
            left = [context - len(prompt) for prompt in model.prompts]
            limits = [min(pair) for pair in zip(limits, left, strict=True)]
    if min(limits) < 1:
        raise ValueError("a prompt or max_new_tokens leaves no room for a new token")
    return limits


class _WholeRows:
    """One model's rows in a batch, for a model that cannot read padded rows with a cache."""

    can_keep = can_add = True

    def __init__(
        self, prompted: PromptedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> None:
        self._model, self._known_ids = prompted.language_model, prompted.known_ids
        self._device = next(self._model.model.parameters()).device
        self._rows = [list(prompt) for prompt in prompts]

    def next_logits(self) -> Tensor:
        """Reads each row from its start; returns next-token logits `(rows, vocabulary_size)`."""
        logits = [
            self._model.model(
                input_ids=torch.tensor([row], device=self._device), use_cache=False
            ).logits[0, -1, : self._model.vocabulary_size]
            for row in self._rows
        ]
        return torch.stack(logits)

    def keep(self, rows: Sequence[int], indices: Tensor) -> None:
        self._rows = [self._rows[row] for row in rows]

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        self._rows += [list(prompt) for prompt in prompts]

    def append(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """Appends a token to each row, unless the model skips it."""
        context = self._model.context
        for row, token in zip(self._rows, tokens, strict=True):
            fits = context is None or len(row) < context  # a finished row may not
            if fits and (self._known_ids is None or token in self._known_ids):
                row.append(token)


class _CachedRows:
    """One model's rows in a batch: their cache and the tokens of the next forward pass.

    With `compile` the shapes are fixed: rows can neither be added nor removed, and the cache and
    the mask have columns for all tokens to come.
    """

    def __init__(
        self, prompted: PromptedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> None:
        self._prompted, self._max_new_tokens = prompted, max_new_tokens
        self._model, self._known_ids = prompted.language_model, prompted.known_ids
        device = next(self._model.model.parameters()).device
        lengths = [len(prompt) for prompt in prompts]
        # Left padding puts every row's next token in the same column. Any pad id will do, because
        # the mask depends on positions, not on ids.
        self._padding = [max(lengths) - length for length in lengths]  # columns, by row
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
        mask = torch.ones_like(ids)
        for row, (prompt, padding) in enumerate(zip(prompts, self._padding, strict=True)):
            ids[row, padding:] = torch.tensor(prompt)
            mask[row, :padding] = 0
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._next_positions = self._positions[:, -1:] + 1
        self._length, self._step = max(lengths), self._model.model  # columns; the next pass
        self.can_keep = self._model.compile is None
        if self.can_keep:
            self._cache, self.can_add = buffered_cache(self._model.model.config, max_new_tokens)
        else:
            columns = rounded_up(self._length + max_new_tokens)
            self._cache = StaticCache(self._model.model.config, max_cache_len=columns)
            self._mask = functional.pad(self._mask, (0, columns - self._length), value=1)
            self.can_add = False
        self._cache_argument = str(cache_argument(self._model.model))  # not None: it `caches`
        # A row whose newest token was skipped keeps its previous logits.
        self._logits: Tensor | None = None
        self._skipped: Tensor | None = None  # (rows,) bool; None: no row
        self._added: _CachedRows | None = None  # rows that have not read their prompts

    def next_logits(self) -> Tensor:
        """Runs a forward pass; returns next-token logits `(rows, vocabulary_size)`."""
        logits = self._step(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: self._cache},
        ).logits[:, -1, : self._model.vocabulary_size]
        if self._model.compile:  # another model's or the next pass overwrites CUDA graphs' results
            logits = logits.clone()
        if self._skipped is not None and self._logits is not None:
            logits = torch.where(self._skipped[:, None], self._logits, logits)
        if self._added is not None:
            logits = torch.cat([logits, self._added.next_logits()])
            self._join(self._added)
            self._added = None
        if self._known_ids is not None:
            self._logits = logits
        return logits

    def keep(self, rows: Sequence[int], indices: Tensor) -> None:
        """Keeps these rows: the same as a list and as int64 `(kept,)`."""
        # Unlike `batch_select_indices`, this also selects the states of linear attention.
        self._cache.reorder_cache(indices)  # pyright: ignore[reportArgumentType]
        self._mask = self._mask[indices]
        self._padding = [self._padding[row] for row in rows]
        if self.can_add and (columns := min(self._padding)):
            for layer in self._cache.layers:
                cast(BufferedLayer, layer).drop(columns)
            self._mask = self._mask[:, columns:]
            self._length -= columns
            self._padding = [padding - columns for padding in self._padding]
        self._next_positions = self._next_positions[indices]
        if self._logits is not None:
            self._logits = self._logits[indices]

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Adds rows, which read their prompts in the next call of `next_logits`."""
        self._added = _CachedRows(self._prompted, prompts, self._max_new_tokens)

    def _join(self, other: "_CachedRows") -> None:
        for layer, added in zip(self._cache.layers, other._cache.layers, strict=True):
            cast(BufferedLayer, layer).join(cast(BufferedLayer, added))
        lengths = self._mask.shape[1], other._mask.shape[1]
        before = [max(lengths) - length for length in lengths]
        self._mask, mask = (
            functional.pad(one._mask, (columns, 0))
            for one, columns in zip((self, other), before, strict=True)
        )
        self._mask = torch.cat([self._mask, mask])
        self._length = max(lengths)
        self._padding = [
            padding + columns
            for one, columns in zip((self, other), before, strict=True)
            for padding in one._padding
        ]
        self._next_positions = torch.cat([self._next_positions, other._next_positions])

    def append(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """Appends a token to each row: int64 `(rows,)`, and the same ids as a list."""
        self._ids, self._positions = chosen[:, None], self._next_positions
        self._next_positions = self._next_positions + 1
        if self._model.compile is None:
            self._mask = functional.pad(self._mask, (0, 1), value=1)
        elif self._step is self._model.model:  # prompts of many lengths are not compiled
            self._step = compiled(self._model.model, self._model.compile)
        self._skipped = None
        known = self._known_ids
        if known is not None and not all(token in known for token in tokens):
            self._skipped = torch.tensor([token not in known for token in tokens]).to(chosen.device)
            # The column stays, so that rows remain aligned, but it is masked and the next token
            # reuses its position. Id 0 replaces the id, which may have no row in this model.
            self._mask[:, self._length].masked_fill_(self._skipped, 0)
            self._ids = self._ids.masked_fill(self._skipped[:, None], 0)
            self._next_positions = self._next_positions - self._skipped[:, None].long()
        if self._model.context is not None:
            # Finished rows stay in the batch until they are removed; their positions must not
            # exceed the context.
            self._positions = self._positions.clamp(max=self._model.context - 1)
        self._length += 1


def _check_finite(finite: Sequence[int], active: Sequence[bool], name: str) -> None:
    """Raises if an active row has NaN or plus infinity (minus infinity is valid)."""
    if any(used and not one for one, used in zip(finite, active, strict=True)):
        raise UserError(
            f"{name}'s logits are not finite (NaN or infinite) while decoding: its weights are "
            "damaged, or the precision is too low; try dtype=float32."
        )

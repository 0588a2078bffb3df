"""Decodes batches of prompts with one or more models and a strategy.

The project has its own decoding loop because `generate` fills in any setting that the caller does
not pass from the model repository's generation config (temperature, top-p, repetition penalty).
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError
from lr_exp.inference.kv_cache import preallocated_cache
from lr_exp.inference.strategies import Strategy
from lr_exp.models.loading import LanguageModel
from lr_exp.models.probing import cache_argument
from lr_exp.models.vocabulary import count_within, text_of

# Finished rows are removed once they are this share of the batch: a removal copies the cache, and
# a remaining row costs compute in every further pass.
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
    is_end: Callable[[Sequence[int]], bool] = lambda _: False,
) -> list[Decoded]:
    """Decodes one continuation per row, which all models read after their own prompt of that row.

    Args:
        models: one or more, on one device, with a prompt for each row. The first one's stop tokens
            end a continuation.
        strategy: chooses the next tokens from the models' logits, in the order of `models`.
        max_new_tokens: per row, including the stop token; the shortest remaining context of the
            models is also a limit.
        is_end: whether a continuation's token ids so far end it, as a stop token does.

    Raises:
        UserError: a model's logits are not finite.
        ValueError: a model is in training mode, or a prompt fills the context.
    """
    limits = _new_token_limits(models, max_new_tokens)
    states = [
        (_CachedRows if model.language_model.caches else _WholeRows)(model, max(limits))
        for model in models
    ]
    stops = frozenset(models[0].language_model.stop_ids)
    outputs: list[list[int]] = [[] for _ in limits]
    finished = [False] * len(limits)
    rows = list(range(len(limits)))  # the continuation to which each row of the batch belongs
    active = [True] * len(limits)
    while True:
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
        count = sum(active)
        if count == 0:
            break
        if count <= len(rows) * (1 - _COMPACT_SHARE):
            keep = [row for row in range(len(rows)) if active[row]]
            indices = torch.tensor(keep, device=chosen.device)
            for state in states:
                state.keep(indices)
            chosen = chosen[indices]
            tokens, rows = [tokens[row] for row in keep], [rows[row] for row in keep]
            active = [True] * count
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

    def __init__(self, prompted: PromptedModel, max_new_tokens: int) -> None:
        self._model, self._known_ids = prompted.language_model, prompted.known_ids
        self._device = next(self._model.model.parameters()).device
        self._rows = [list(prompt) for prompt in prompted.prompts]

    def next_logits(self) -> Tensor:
        """Reads each row from its start; returns next-token logits `(rows, vocabulary_size)`."""
        logits = [
            self._model.model(
                input_ids=torch.tensor([row], device=self._device), use_cache=False
            ).logits[0, -1, : self._model.vocabulary_size]
            for row in self._rows
        ]
        return torch.stack(logits)

    def keep(self, indices: Tensor) -> None:
        self._rows = [self._rows[index] for index in indices.tolist()]

    def append(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """Appends a token to each row, unless the model skips it."""
        context = self._model.context
        for row, token in zip(self._rows, tokens, strict=True):
            fits = context is None or len(row) < context  # a finished row may not
            if fits and (self._known_ids is None or token in self._known_ids):
                row.append(token)


class _CachedRows:
    """One model's state in a batch: its cache and the tokens of its next forward pass."""

    def __init__(self, prompted: PromptedModel, max_new_tokens: int) -> None:
        self._model, self._known_ids = prompted.language_model, prompted.known_ids
        device = next(self._model.model.parameters()).device
        self._length = max(len(prompt) for prompt in prompted.prompts)  # columns so far
        # Left padding puts every row's next token in the same column. Any pad id will do, because
        # the mask depends on positions, not on ids. The mask includes the columns to come.
        ids = torch.zeros(len(prompted.prompts), self._length, dtype=torch.int64)
        mask = torch.ones(len(prompted.prompts), self._length + max_new_tokens, dtype=torch.int64)
        for row, prompt in enumerate(prompted.prompts):
            ids[row, self._length - len(prompt) :] = torch.tensor(prompt)
            mask[row, : self._length - len(prompt)] = 0
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask[:, : self._length].cumsum(-1) - 1).clamp(min=0)
        self._next_positions = self._positions[:, -1:] + 1
        self._cache = preallocated_cache(self._model.model.config, self._length + max_new_tokens)
        self._cache_argument = str(cache_argument(self._model.model))  # not None: it `caches`
        # A row whose newest token was skipped keeps its previous logits.
        self._logits: Tensor | None = None
        self._skipped: Tensor | None = None  # (rows,) bool; None: no row

    def next_logits(self) -> Tensor:
        """Runs a forward pass; returns next-token logits `(rows, vocabulary_size)`."""
        logits = self._model.model(
            input_ids=self._ids,
            attention_mask=self._mask[:, : self._length],
            position_ids=self._positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: self._cache},
        ).logits[:, -1, : self._model.vocabulary_size]
        if self._skipped is not None and self._logits is not None:
            logits = torch.where(self._skipped[:, None], self._logits, logits)
        if self._known_ids is not None:
            self._logits = logits
        return logits

    def keep(self, indices: Tensor) -> None:
        # Unlike `batch_select_indices`, this also selects the states of linear attention.
        self._cache.reorder_cache(indices)  # pyright: ignore[reportArgumentType]
        self._mask, self._next_positions = self._mask[indices], self._next_positions[indices]
        if self._logits is not None:
            self._logits = self._logits[indices]

    def append(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """Appends a token to each row: int64 `(rows,)`, and the same ids as a list."""
        self._ids, self._positions = chosen[:, None], self._next_positions
        self._next_positions = self._next_positions + 1
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

"""Finds the token ids on which two models can be compared."""

import logging
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError

log = logging.getLogger(__name__)

_MAX_UNKNOWN_SHARE = 0.01  # of the tokens of a data set's questions


@dataclass(frozen=True)
class SharedVocabulary:
    """The ids `0 .. size-1` without `excluded`: ids with the same token in both models."""

    size: int
    excluded: tuple[int, ...] = ()

    def __contains__(self, token_id: int) -> bool:
        return 0 <= token_id < self.size and token_id not in self.excluded

    def restrict(self, logits: Tensor, ids: Tensor | None = None) -> Tensor:
        """Logits `(..., rows)` of the shared ids only, `(..., shared)`, in the order of the ids.

        Rows without a token, which pad the embedding, and excluded ids are removed before the
        distribution is normalized. Loops pass `ids()`, which would wait for the device each time.
        """
        logits = logits[..., : self.size]
        if self.excluded:
            ids = self.ids(logits.device) if ids is None else ids
            logits = logits.index_select(-1, ids)
        return logits

    def ids(self, device: torch.device | str = "cpu") -> Tensor:
        """The shared ids, int64 `(shared,)`: column j of `restrict` is id `ids()[j]`."""
        keep = torch.ones(self.size, dtype=torch.bool, device=device)
        if self.excluded:
            keep[torch.tensor(self.excluded, device=device)] = False
        return keep.nonzero().squeeze(-1)


def tokens_with_rows(role: str, tokenizer: Any, rows: int | None) -> dict[int, str]:
    """All ids with their tokens, added and special ones included; each has one of the model's rows.

    Tokens without a row are omitted if no prompt has them: a padding token, and special tokens that
    the chat template does not name (Gemma 3's for images). Without `rows`, none is omitted.

    Raises UserError: the tokenizer has no tokens, or another token without a row.
    """
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    pad = tokenizer.pad_token_id
    used = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    template = str(tokenizer.chat_template)
    for index, token in tokenizer.added_tokens_decoder.items():
        is_unused = index == pad or (token.special and token.content not in template)
        if rows is not None and index >= rows and index not in used and is_unused:
            tokens.pop(index, None)
    if not tokens:
        raise UserError(f"the {role}'s tokenizer has no tokens: check {role}.path.")
    last = max(tokens)
    if rows is not None and last >= rows:
        raise UserError(
            f"the {role}'s tokenizer has id {last} ({tokens[last]!r}) but its model has {rows} "
            f"rows: the tokenizer belongs to another model; check {role}.path."
        )
    return tokens


def text_of(tokenizer: Any, token_ids: Iterable[int], *, special: bool = False) -> str:
    """The exact text of these ids, spaces included; `special`: with special tokens."""
    ids = list(token_ids)
    if not ids:
        return ""
    return tokenizer.decode(
        ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )


def count_within(tokenizer: Any, token_ids: Sequence[int], characters: int) -> int:
    """How many of the first token ids have a text of at most this length together."""
    counts = range(len(token_ids) + 1)
    found = bisect_right(counts, characters, key=lambda n: len(text_of(tokenizer, token_ids[:n])))
    return found - 1


def warn_of_unknown_tokens(model: str, data: str, tokenizer: Any, texts: Iterable[str]) -> None:
    """Warns if more than 1 % of the texts' tokens stand for words that the tokenizer lacks."""
    unknown, total = tokenizer.unk_token_id, 0
    if unknown is None or not tokenizer.is_fast:  # others do not report the places of tokens
        return
    words: list[str] = []
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        total += len(encoded["input_ids"])
        places = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        words += [text[slice(*place)].strip() for token, place in places if token == unknown]
    if len(words) > _MAX_UNKNOWN_SHARE * total:
        log.warning(
            "%s has no tokens for words in %s, such as %s: %.1f%% of the questions' tokens are %s. "
            "Choose questions that the model can read.",
            model,
            data,
            ", ".join(repr(word[:20]) for word in [*dict.fromkeys(words)][:3]),
            100 * len(words) / total,
            tokenizer.unk_token,
        )


def shared_vocabulary(
    expert: Any,
    amateur: Any,
    *,
    expert_rows: int | None,
    amateur_rows: int | None,
    reused_ids: tuple[int, ...] = (),
) -> SharedVocabulary:
    """Compares two tokenizers id by id and returns the ids that they share.

    Args:
        expert_rows, amateur_rows: of each model's output embedding, if known.
        reused_ids: ids known to mean different tokens; excluded without a check.

    Raises UserError: an id of both tokenizers means different tokens, or a tokenizer has ids
    without a row in its model.
    """
    expert_tokens = tokens_with_rows("expert", expert, expert_rows)
    amateur_tokens = tokens_with_rows("amateur", amateur, amateur_rows)
    size = min(max(expert_tokens), max(amateur_tokens)) + 1
    tokens = {i: (expert_tokens.get(i), amateur_tokens.get(i)) for i in range(size)}
    differing = [i for i, pair in tokens.items() if pair[0] != pair[1] and i not in reused_ids]
    if differing:
        shown = "; ".join("{}: {!r} against {!r}".format(i, *tokens[i]) for i in differing[:3])
        raise UserError(
            f"expert and amateur do not share a vocabulary: {len(differing)} of {size} ids differ, "
            f"first {shown} (expert against amateur). Choose two models of one family, or, if "
            "these ids are only control tokens, list them in expert.reused_ids. To score answers "
            "with any amateur that can read their text, set amateur.tokenizer=own."
        )
    unused = {i for i in range(size) if i not in expert_tokens}
    excluded = sorted(unused | {i for i in reused_ids if i < size})
    if len(excluded) == size:
        raise UserError(
            f"expert and amateur share no ids: all {size} are listed in reused_ids. Shorten "
            "expert.reused_ids and amateur.reused_ids."
        )
    return SharedVocabulary(size, tuple(excluded))

"""Ends answers at a text, such as the next `Question:` of a few-shot prompt."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from lr_exp.inference.decoding import Decoded


class StopStrings:
    """Texts that end an answer; the answer excludes the tokens from the first of them on."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._tokenizer, self._texts = tokenizer, tuple(texts)
        # A token is at least one byte, except for the halves of a character that it may start with.
        self._tail = max((len(text.encode()) for text in texts), default=0) + 4

    def end(self, token_ids: Sequence[int]) -> bool:
        """Whether one of the texts is at the end of an unfinished answer."""
        return bool(self._texts) and self._first(self._decode(token_ids[-self._tail :])) is not None

    def truncated(self, answer: Decoded) -> Decoded:
        """The answer up to the token in which the first of the texts begins."""
        start = self._first(self._decode(answer.token_ids)) if self._texts else None
        if start is None:
            return answer
        ids = answer.token_ids
        # The longest beginning whose text ends before the stop string.
        length = bisect_right(
            range(len(ids) + 1), start, key=lambda count: len(self._decode(ids[:count]))
        )
        return Decoded(ids[: length - 1], finished=True)

    def _first(self, text: str) -> int | None:
        starts = [start for one in self._texts if (start := text.find(one)) >= 0]
        return min(starts, default=None)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

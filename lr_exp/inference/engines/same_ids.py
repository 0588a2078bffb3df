"""Whether somebody else's token ids mean what the expert's do. Knows a tokenizer and a question.

Special tokens, tokens spread over the whole vocabulary, and those of texts in several scripts are
read back. Two models of one family that share a tokenizer look alike here; scoring tells them apart
(`stages.sampling`).
"""

from collections.abc import Callable, Sequence
from typing import Any

_SPREAD = 96  # ids over the whole vocabulary
_TEXTS = (
    "The answer is \\boxed{3.14}, so 7 * 8 = 56.\n\n\tdef f(x):  return x",
    "Grüße, naïve café «Привет» 你好世界 こんにちは مرحبا नमस्ते 🙂",
)
_UNDECODED = "\ufffd"  # part of a character only: servers show it in ways of their own


def probe_ids(tokenizer: Any) -> list[int]:
    """Ids of tokens that are text by themselves: special, rare and ordinary ones."""
    spread = sorted(tokenizer.get_vocab().values())
    step = max(1, len(spread) // _SPREAD)
    ids = [*tokenizer.all_special_ids, *spread[::step]]
    for text in _TEXTS:
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [one for one in dict.fromkeys(ids) if _is_text(_text(tokenizer, [one]))]


def check_ids(tokenizer: Any, read: Callable[[Sequence[int]], str | None]) -> str | None:
    """What the reader reads otherwise than the tokenizer, for a message; "" where nothing.

    Args:
        read: ids to text, as somebody else reads them; None where it cannot say: None then, too.
    """
    ids = probe_ids(tokenizer)
    theirs = read(ids)
    if theirs is None:
        return None
    if _alike(theirs, _text(tokenizer, ids)):
        return ""
    for one in ids:
        theirs, ours = read([one]), _text(tokenizer, [one])
        if theirs is not None and not _alike(theirs, ours):
            return f"id {one} is {theirs!r} there and {ours!r} here"
    # Each by itself is the same: joining differs (blanks between words), which harms nothing.
    return ""


def _alike(first: str, second: str) -> bool:
    """The same text but for blanks at its ends, which some tokenizers take off a beginning."""
    return first.strip() == second.strip()


def _is_text(text: str) -> bool:
    return bool(text) and _UNDECODED not in text


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )

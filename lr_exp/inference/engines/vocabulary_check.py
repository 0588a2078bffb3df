"""Checks that an engine's token ids mean the same tokens as the expert's.

Special tokens, tokens spread over the whole vocabulary, and tokens of texts in several scripts are
detokenized and compared. Two models that share a tokenizer cannot be distinguished here; scoring
does that (`pipeline.sampling`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from lr_exp.models.vocabulary import text_of

_SPREAD_IDS = 96
_TEXTS = (
    "The answer is \\boxed{3.14}, so 7 * 8 = 56.\n\n\tdef f(x):  return x",
    "Grüße, naïve café «Привет» 你好世界 こんにちは مرحبا नमस्ते 🙂",
)
_REPLACEMENT = "\ufffd"  # part of a character, which servers display differently


def probe_ids(tokenizer: Any) -> list[int]:
    """Ids of special, rare and ordinary tokens that decode to complete characters."""
    all_ids = sorted(tokenizer.get_vocab().values())
    stride = max(1, len(all_ids) // _SPREAD_IDS)
    ids = [*tokenizer.all_special_ids, *all_ids[::stride]]
    for text in _TEXTS:
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    texts = {token_id: text_of(tokenizer, [token_id], special=True) for token_id in ids}
    return [token_id for token_id, text in texts.items() if text and _REPLACEMENT not in text]


def find_difference(tokenizer: Any, read: Callable[[Sequence[int]], str | None]) -> str | None:
    """Describes the first id that the engine reads differently; "" if there is none.

    Args:
        read: the engine's detokenizer; if it returns None (unsupported), so does this function.
    """
    ids = probe_ids(tokenizer)
    theirs = read(ids)
    if theirs is None:
        return None
    if _same_text(theirs, text_of(tokenizer, ids, special=True)):
        return ""
    for token_id in ids:
        theirs, ours = read([token_id]), text_of(tokenizer, [token_id], special=True)
        if theirs is not None and not _same_text(theirs, ours):
            return f"id {token_id} is {theirs!r} there and {ours!r} here"
    # All tokens agree; only joining them differs (spaces between words), which does no harm.
    return ""


def _same_text(first: str, second: str) -> bool:
    """Whether two texts are equal up to outer whitespace; some tokenizers strip a leading space."""
    return first.strip() == second.strip()

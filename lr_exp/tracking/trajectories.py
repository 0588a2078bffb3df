"""Rows and bins of `trajectories.json` for a tracker's tables. Knows that file's form, no tracker.

Texts are spelt where a terminal or a page would obey them; nothing else is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lr_exp.errors import printable

COLUMNS = (
    "question",
    "correct",
    "position",
    "token",
    "kl (nats)",
    "kept",
    "expert's top",
    "p by expert",
    "amateur's top",
    "p by amateur",
    "label",
    "expert entropy (nats)",
    "amateur entropy (nats)",
)
_MOST_ROWS = 5_000  # W&B shows no more than 10,000 of a table, and sorts these without a pause
_ENTROPY_BIN = 0.1  # nats
_ENTROPY_BINS = 50  # the last one is open

_TOKEN, _EXPERT, _AMATEUR, _IN_MASK, _WEIGHT = range(5)  # of a candidate


def rows(told: Mapping[str, Any], most: int = _MOST_ROWS) -> list[list[Any]]:
    """One row a generated token, in `COLUMNS`; whole answers, as many as there is room for."""
    texts = [_visible(text) for text in told["tokens"]]
    found: list[list[Any]] = []
    for answer in told["answers"]:
        if found and len(found) + len(answer["token"]) > most:
            break
        found += _rows_of(answer, texts)
    return found[:most]


def entropy_histogram(told: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Counts and edges (nats) of the expert's entropy at the scored steps; empty without any."""
    known = [
        entropy
        for answer in told["answers"]
        for entropy in answer["expert_entropy"]
        if entropy is not None
    ]
    if not known:
        return [], []
    counts = [0] * _ENTROPY_BINS
    for entropy in known:
        counts[min(int(entropy / _ENTROPY_BIN), _ENTROPY_BINS - 1)] += 1
    return counts, [i * _ENTROPY_BIN for i in range(_ENTROPY_BINS + 1)]


def _rows_of(answer: Mapping[str, Any], texts: Sequence[str]) -> Iterator[list[Any]]:
    for position, token in enumerate(answer["token"]):
        candidates = answer["candidates"][position] or []
        yield [
            _visible(str(answer["id"])),
            answer["correct"],
            position,
            texts[token],
            answer["kl"][position],
            bool(answer["kept"][position]),
            *_top(candidates, _EXPERT, texts),
            *_top(candidates, _AMATEUR, texts),
            _label(candidates, texts),
            answer["expert_entropy"][position],
            answer["amateur_entropy"][position],
        ]


def _top(candidates: Sequence[Any], whose: int, texts: Sequence[str]) -> tuple[Any, Any]:
    """The most probable token of one model and its probability, where it was scored."""
    scored = [one for one in candidates if one[whose] is not None]
    if not scored:
        return None, None
    top = max(scored, key=lambda one: one[whose])
    return texts[top[_TOKEN]], top[whose]


def _label(candidates: Sequence[Any], texts: Sequence[str]) -> str | None:
    """The soft label in words: `" 8" 0.93, " 9" 0.07`; None where the step was not kept."""
    weighted = [one for one in candidates if one[_WEIGHT]]
    weighted.sort(key=lambda one: -one[_WEIGHT])
    told = ", ".join(f'"{texts[one[_TOKEN]]}" {one[_WEIGHT]:.2f}' for one in weighted)
    return told or None


def _visible(text: str) -> str:
    """A token's text with newlines and tabs to be seen, as a row of a table is one line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")

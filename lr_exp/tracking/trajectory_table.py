"""Turns `trajectories.json` into table rows and a histogram. Control characters are escaped."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

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
_MAX_ROWS = 5_000  # W&B shows at most 10,000 rows, and sorts this many without delay
_ENTROPY_BIN_NATS = 0.1
_ENTROPY_BINS = 50  # the last one is open-ended

_TOKEN, _EXPERT, _AMATEUR, _IN_MASK, _WEIGHT = range(5)  # fields of a candidate


def trajectory_rows(trajectories: Mapping[str, Any], max_rows: int = _MAX_ROWS) -> list[list[Any]]:
    """One row per generated token, with the columns `COLUMNS`.

    Answers are included whole while they fit; the first one is cut if it does not.
    """
    texts = [_escape(text) for text in trajectories["tokens"]]
    rows: list[list[Any]] = []
    for answer in trajectories["answers"]:
        if rows and len(rows) + len(answer["token"]) > max_rows:
            break
        rows += _answer_rows(answer, texts)
    return rows[:max_rows]


def entropy_histogram(trajectories: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Counts and bin edges (nats) of the expert's entropy; both empty if nothing was scored."""
    values = chain.from_iterable(answer["expert_entropy"] for answer in trajectories["answers"])
    entropies = [entropy for entropy in values if entropy is not None]
    if not entropies:
        return [], []
    edges = np.arange(_ENTROPY_BINS + 1) * _ENTROPY_BIN_NATS
    counts, _ = np.histogram(np.minimum(entropies, edges[-1]), edges)
    return counts.tolist(), edges.tolist()


def _answer_rows(answer: Mapping[str, Any], texts: Sequence[str]) -> Iterator[list[Any]]:
    for position, token in enumerate(answer["token"]):
        candidates = answer["candidates"][position] or []
        yield [
            _escape(str(answer["id"])),
            answer["correct"],
            position,
            texts[token],
            answer["kl"][position],
            bool(answer["kept"][position]),
            *_top_token(candidates, _EXPERT, texts),
            *_top_token(candidates, _AMATEUR, texts),
            _label(candidates, texts),
            answer["expert_entropy"][position],
            answer["amateur_entropy"][position],
        ]


def _top_token(candidates: Sequence[Any], model: int, texts: Sequence[str]) -> tuple[Any, Any]:
    """A model's most probable token and its probability; (None, None) if it was not scored."""
    scored = [(texts[one[_TOKEN]], one[model]) for one in candidates if one[model] is not None]
    return max(scored, key=itemgetter(1), default=(None, None))


def _label(candidates: Sequence[Any], texts: Sequence[str]) -> str | None:
    """The soft label as text: `" 8" 0.93, " 9" 0.07`; None if the position was not kept."""
    ordered = sorted(candidates, key=lambda one: -(one[_WEIGHT] or 0))
    shown = [f'"{texts[one[_TOKEN]]}" {one[_WEIGHT]:.2f}' for one in ordered if one[_WEIGHT]]
    return ", ".join(shown) or None


def _escape(text: str) -> str:
    """Makes control characters visible, including newlines and tabs."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")

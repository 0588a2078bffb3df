"""Pairs of graded answers before and after tuning, grouped by outcome.

Counts cover all questions; a page shows a bounded number of them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from lr_exp.errors import printable
from lr_exp.report.read.runs import WHO, AnswersMissingError, Run

T = TypeVar("T")

OUTCOMES = ("won", "lost", "both right", "both wrong")

_MAX_SHOWN = 12  # per benchmark and outcome
_MAX_OUTPUT_CHARS = 3_000
_MAX_QUESTION_CHARS = 2_000


@dataclass(frozen=True)
class Compared:
    """One benchmark's pairs of answers by outcome."""

    benchmark: str
    counts: dict[str, int]  # by outcome, over all questions
    shown: list[dict[str, Any]]  # a subset, as the page's script reads it

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class BeforeAfter:
    """All benchmarks that both the expert and the tuned expert answered."""

    compared: list[Compared]
    missing: list[str]  # why a benchmark was left out

    @property
    def shown(self) -> int:
        return sum(len(one.shown) for one in self.compared)


def read(run: Run, max_bytes: int) -> BeforeAfter:
    """Pairs of answers in at most `max_bytes` bytes of JSON."""
    names = [name for name in run.results("expert") if name in run.results("tuned")]
    outcomes: dict[str, dict[str, str]] = {}
    missing = []
    for name in names:
        try:
            outcomes[name] = _outcomes(run, name)
        except AnswersMissingError as reason:
            missing.append(f"{name}: {reason}.")
    compared = [_compared(run, name, by_id) for name, by_id in outcomes.items()]
    limit = _MAX_SHOWN
    while limit and sum(map(_size, compared)) > max_bytes:
        limit = limit * 2 // 3
        compared = [_limited(one, limit) for one in compared]
    return BeforeAfter(compared, missing)


def _outcomes(run: Run, benchmark: str) -> dict[str, str]:
    """Outcome by question id."""
    before, after = (run.answers(who, benchmark) for who in WHO)
    if before.keys() != after.keys():
        raise AnswersMissingError("the expert and the tuned expert answered different questions")
    outcome = {
        (False, True): "won",
        (True, False): "lost",
        (True, True): "both right",
        (False, False): "both wrong",
    }
    return {key: outcome[before[key] > 0.5, after[key] > 0.5] for key in before}


def _compared(run: Run, benchmark: str, outcomes: dict[str, str]) -> Compared:
    by_outcome = {
        outcome: [key for key, own in outcomes.items() if own == outcome] for outcome in OUTCOMES
    }
    chosen = {
        key: outcome
        for outcome, keys in by_outcome.items()
        for key in _evenly_spaced(keys, _MAX_SHOWN)
    }
    before, after = (_chosen_records(run.answers_file(who, benchmark), chosen) for who in WHO)
    shown = [
        {
            "benchmark": benchmark,
            "outcome": outcome,
            "id": printable(key),
            "question": _question(before[key]),
            "reference": _text(before[key].get("reference"), _MAX_QUESTION_CHARS),
            "before": _side(before[key]),
            "after": _side(after[key]),
        }
        for key, outcome in chosen.items()
        if key in before and key in after
    ]
    counts = {outcome: len(keys) for outcome, keys in by_outcome.items()}
    return Compared(benchmark, counts, shown)


def _limited(compared: Compared, limit: int) -> Compared:
    """The same with at most `limit` pairs shown per outcome."""
    shown = []
    for outcome in OUTCOMES:
        own = [pair for pair in compared.shown if pair["outcome"] == outcome]
        shown += _evenly_spaced(own, limit)
    return replace(compared, shown=shown)


def _evenly_spaced(items: list[T], limit: int) -> list[T]:
    count = min(limit, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _chosen_records(path: Path, chosen: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The records with a chosen id, without holding the whole file in memory."""
    records: dict[str, dict[str, Any]] = {}
    for record in _records(path):
        key = str(record["id"])
        if key in chosen:
            records.setdefault(key, record)
    return records


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that `Run.answers` has already validated."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _question(record: dict[str, Any]) -> str | None:
    """The question with its choices."""
    choices = record.get("choices")
    listed = choices if isinstance(choices, list) else []
    lines = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, listed, strict=False)]
    return _text("\n".join([str(record.get("question") or ""), *lines]), _MAX_QUESTION_CHARS)


def _side(record: dict[str, Any]) -> dict[str, Any]:
    output = str(record.get("output") or "")
    return {
        "output": _text(output, _MAX_OUTPUT_CHARS),
        "cut": len(output) > _MAX_OUTPUT_CHARS,
        "finished": bool(record.get("finished", True)),
        "extracted": _text(record.get("extracted"), _MAX_QUESTION_CHARS),
        "correct": bool(record["correct"]),
    }


def _text(value: Any, max_chars: int) -> str | None:
    return None if value is None else printable(str(value)[:max_chars])


def _size(compared: Compared) -> int:
    return len(json.dumps(compared.shown, ensure_ascii=False).encode(errors="replace"))

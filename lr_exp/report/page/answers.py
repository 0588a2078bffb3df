"""Answers before and after the tuning, question by question: what was won, what was lost.

Knows a run's graded answers; knows nothing of HTML. Counts are over all answers, of which a bounded
number is shown.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from lr_exp.errors import printable
from lr_exp.report.runs import WHO, AnswersMissingError, Run

T = TypeVar("T")

OUTCOMES = ("won", "lost", "both right", "both wrong")

_MOST_SHOWN = 12  # of each outcome of a benchmark
_LONGEST = 3_000  # characters of an output
_LONGEST_QUESTION = 2_000


@dataclass(frozen=True)
class Compared:
    """One benchmark's answers, sorted by outcome."""

    benchmark: str
    counts: dict[str, int]  # by outcome, over all questions
    shown: list[dict[str, Any]]  # some of them, for the page's script

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class BeforeAfter:
    """All benchmarks that both the expert and the tuned expert answered."""

    compared: list[Compared]
    missing: list[str]  # why a benchmark is not there

    @property
    def shown(self) -> int:
        return sum(len(one.shown) for one in self.compared)


def read(run: Run, most_bytes: int) -> BeforeAfter:
    """Pairs of answers, in at most so many bytes of JSON."""
    names = [name for name in run.results("expert") if name in run.results("tuned")]
    outcomes: dict[str, dict[str, str]] = {}
    missing = []
    for name in names:
        try:
            outcomes[name] = _outcomes(run, name)
        except AnswersMissingError as reason:
            missing.append(f"{name}: {reason}.")
    compared = [_compared(run, name, found) for name, found in outcomes.items()]
    few = _MOST_SHOWN
    while few and sum(map(_size, compared)) > most_bytes:
        few = few * 2 // 3
        compared = [_fewer(one, few) for one in compared]
    return BeforeAfter(compared, missing)


def _outcomes(run: Run, benchmark: str) -> dict[str, str]:
    """Each question's outcome by its id."""
    before, after = (run.answers(who, benchmark) for who in WHO)
    if before.keys() != after.keys():
        raise AnswersMissingError("expert and tuned expert answered other questions")
    named = {
        (False, True): "won",
        (True, False): "lost",
        (True, True): "both right",
        (False, False): "both wrong",
    }
    return {key: named[before[key] > 0.5, after[key] > 0.5] for key in before}


def _compared(run: Run, benchmark: str, outcomes: dict[str, str]) -> Compared:
    by_outcome = {one: [key for key, it in outcomes.items() if it == one] for one in OUTCOMES}
    chosen = {
        key: outcome for outcome, keys in by_outcome.items() for key in _evenly(keys, _MOST_SHOWN)
    }
    before, after = (_texts(run.answers_file(who, benchmark), chosen) for who in WHO)
    shown = [
        {
            "benchmark": benchmark,
            "outcome": outcome,
            "id": printable(key),
            "question": _question(before[key]),
            "reference": _text(before[key].get("reference"), _LONGEST_QUESTION),
            "before": _side(before[key]),
            "after": _side(after[key]),
        }
        for key, outcome in chosen.items()
        if key in before and key in after
    ]
    return Compared(benchmark, {one: len(keys) for one, keys in by_outcome.items()}, shown)


def _fewer(compared: Compared, most: int) -> Compared:
    """The same with at most so many shown of each outcome."""
    by_outcome = ([one for one in compared.shown if one["outcome"] == it] for it in OUTCOMES)
    shown = [one for some in by_outcome for one in _evenly(some, most)]
    return replace(compared, shown=shown)


def _evenly(things: list[T], most: int) -> list[T]:
    count = min(most, len(things))
    return [things[number * len(things) // count] for number in range(count)]


def _texts(path: Path, wanted: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The chosen answers' records; the whole file is never in memory."""
    found: dict[str, dict[str, Any]] = {}
    for record in _records(path):
        key = str(record["id"])
        if key in wanted:
            found.setdefault(key, record)
    return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """What `Run.answers` has read without an error."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _question(record: dict[str, Any]) -> str | None:
    """The question, and what could be chosen from."""
    choices = record.get("choices")
    listed = choices if isinstance(choices, list) else []
    lines = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, listed, strict=False)]
    return _text("\n".join([str(record.get("question") or ""), *lines]), _LONGEST_QUESTION)


def _side(record: dict[str, Any]) -> dict[str, Any]:
    output = str(record.get("output") or "")
    return {
        "output": _text(output, _LONGEST),
        "cut": len(output) > _LONGEST,
        "finished": bool(record.get("finished", True)),
        "extracted": _text(record.get("extracted"), _LONGEST_QUESTION),
        "correct": bool(record["correct"]),
    }


def _text(value: Any, longest: int) -> str | None:
    return None if value is None else printable(str(value)[:longest])


def _size(compared: Compared) -> int:
    return len(json.dumps(compared.shown, ensure_ascii=False).encode(errors="replace"))

"""Pairs of graded answers of two models to the same questions, grouped by outcome.

Counts cover all questions; a page shows a bounded number of them.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeVar

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.names import benchmark_label
from lr_exp.report.read.run import Answers, AnswersMissingError, Run, shared_questions

T = TypeVar("T")
Model = tuple[Run, str]  # with `expert` or `tuned`

_OUTCOMES = {  # by correctness of the first and the second model
    (False, True): "won",
    (True, False): "lost",
    (True, True): "both right",
    (False, False): "both wrong",
}
_MAX_SHOWN = 12  # per benchmark and outcome
_MAX_OUTPUT_CHARS = 3_000
_MAX_QUESTION_CHARS = 2_000
_MAX_BYTES = 400_000  # of all pairs as JSON


@dataclass(frozen=True)
class AnswerPairs:
    """The benchmarks that both models answered."""

    counts: dict[str, Counter[str]]  # by benchmark and outcome, over all questions
    shown: list[dict[str, Any]]  # some of the pairs, as the template reads them
    missing: list[str]  # why a benchmark was left out

    @property
    def groups(self) -> dict[str, list[dict[str, Any]]]:
        """The shown pairs, by a title such as `GSM8K, won: 12 of 31`."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for name, counts in self.counts.items():
            for outcome in _OUTCOMES.values():
                place = {"benchmark": name, "outcome": outcome}
                if pairs := [pair for pair in self.shown if place.items() <= pair.items()]:
                    shown = f"{len(pairs):,} of {counts[outcome]:,}"
                    groups[f"{benchmark_label(name)}, {outcome}: {shown}"] = pairs
        return groups


def read_pairs(before: Model, after: Model) -> AnswerPairs:
    """Pairs of answers to the same questions; as many of them are shown as fit into the page."""
    counts, shown, missing = {}, [], []
    (first, who), (other, whose) = before, after
    for name in first.results(who):
        if name in other.results(whose):
            try:
                answers = first.answers(who, name), other.answers(whose, name)
            except AnswersMissingError as reason:
                missing.append(f"{name}: {reason}.")
                continue
            outcomes = {
                key: _OUTCOMES[answers[0][key]["correct"], answers[1][key]["correct"]]
                for key in shared_questions(*answers)
            }
            if len(outcomes) < max(map(len, answers)):
                missing.append(f"{name}: only the {len(outcomes):,} common questions are shown.")
            counts[name] = Counter(outcomes.values())
            shown += _pairs(*answers, name, outcomes)
    limit = _MAX_SHOWN
    while limit and _bytes(shown) > _MAX_BYTES:
        limit = limit * 2 // 3
        shown = _spaced_by(shown, lambda pair: (pair["benchmark"], pair["outcome"]), limit)
    return AnswerPairs(counts, shown, missing)


def _bytes(pairs: Sequence[dict[str, Any]]) -> int:
    return len(json.dumps(pairs, ensure_ascii=False).encode(errors="replace"))


def _pairs(
    before: Answers, after: Answers, benchmark: str, outcomes: dict[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": benchmark,
            "outcome": outcomes[key],
            "id": key,
            "question": _question(before[key]),
            "reference": _text(before[key].get("reference"), _MAX_QUESTION_CHARS),
            "before": _side(before[key]),
            "after": _side(after[key]),
        }
        for key in _spaced_by(list(outcomes), outcomes.__getitem__, _MAX_SHOWN)
    ]


def _spaced_by(items: Sequence[T], group: Callable[[T], Any], limit: int) -> list[T]:
    """At most `limit` items of each group, evenly spaced."""
    return [
        own[number * len(own) // min(limit, len(own))]
        for own in grouped(items, group).values()
        for number in range(min(limit, len(own)))
    ]


def _question(record: dict[str, Any]) -> str | None:
    """The question with its choices."""
    choices = record.get("choices")
    listed = choices if isinstance(choices, list) else []
    lines = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, listed, strict=False)]
    return _text("\n".join([str(record.get("question") or ""), *lines]), _MAX_QUESTION_CHARS)


def _side(record: dict[str, Any]) -> dict[str, Any]:
    output = str(record.get("output") or "")
    return {
        "output": output[:_MAX_OUTPUT_CHARS],
        "cut": len(output) > _MAX_OUTPUT_CHARS,
        "finished": bool(record.get("finished", True)),
        "extracted": _text(record.get("extracted"), _MAX_QUESTION_CHARS),
        "correct": bool(record["correct"]),
    }


def _text(value: Any, max_chars: int) -> str | None:
    return None if value is None else str(value)[:max_chars]

"""Pairs of graded answers of two models to the same questions, grouped by outcome.

Counts cover all questions; a bounded number of them is shown, with bounded texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import starmap
from string import ascii_uppercase
from typing import Any

from lr_exp.report.names import benchmark_label
from lr_exp.report.read.run import AnswersMissingError, Run, shared_questions

Model = tuple[Run, str]  # with `expert` or `tuned`
Records = Iterable[dict[str, Any]]  # graded answers, in the order of the questions

_OUTCOMES = {  # by correctness of the first and the second model
    (False, True): "won",
    (True, False): "lost",
    (True, True): "both right",
    (False, False): "both wrong",
}
# They bound a page's size, also where a character takes three bytes.
_MAX_SHOWN = 96  # pairs, and at most 12 of a benchmark and outcome
_MAX_OUTPUT_CHARS = 2_000
_MAX_QUESTION_CHARS = 1_000


@dataclass(frozen=True)
class AnswerPairs:
    """The benchmarks that both models answered."""

    questions: int
    groups: dict[str, list[dict[str, Any]]]  # some, evenly spaced, by `GSM8K, won: 12 of 31`
    missing: list[str]  # why a benchmark was left out


def read_pairs(before: Model, after: Model) -> AnswerPairs:
    """Pairs of answers to the same questions; with several benchmarks, fewer of each are shown."""
    questions, groups, missing = 0, {}, []
    (first, who), (other, whose) = before, after
    names = [name for name in first.results(who) if name in other.results(whose)]
    for name in names:
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
            missing.append(f"{name}: questions common to both: {len(outcomes):,}.")
        questions += len(outcomes)
        limit = max(1, min(12, _MAX_SHOWN // len(names) // len(_OUTCOMES)))
        for outcome in _OUTCOMES.values():
            keys = [key for key, one in outcomes.items() if one == outcome]
            count = min(limit, len(keys))
            spaced = [keys[i * len(keys) // count] for i in range(count)]
            if spaced:
                title = f"{benchmark_label(name)}, {outcome}: {count:,} of {len(keys):,}"
                groups[title] = [_pair(*(one[key] for one in answers)) for key in spaced]
    return AnswerPairs(questions, groups, missing)


def changed_first(before: Records, after: Records, count: int) -> Iterator[dict[str, Any]]:
    """At most `count` pairs of answers to the same questions: first won or lost, then others."""
    both = zip(before, after, strict=True)
    ordered = sorted(both, key=lambda one: one[0]["correct"] == one[1]["correct"])
    return starmap(_pair, ordered[:count])


def _pair(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": before["id"],
        "question": _question(before),
        "reference": _text(before.get("reference"), _MAX_QUESTION_CHARS),
        "before": _side(before),
        "after": _side(after),
    }


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

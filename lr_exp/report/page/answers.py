"""Pairs of graded answers before and after tuning, grouped by outcome.

Counts cover all questions; a page shows a bounded number of them.
"""

from collections import Counter
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.names import benchmark_label
from lr_exp.report.read.run import WHO, AnswersMissingError, Run

_OUTCOMES = {  # by correctness before and after
    (False, True): "won",
    (True, False): "lost",
    (True, True): "both right",
    (False, False): "both wrong",
}
_MAX_SHOWN = 144  # pairs, and at most 12 of a benchmark and outcome
_MAX_OUTPUT_CHARS = 3_000
_MAX_QUESTION_CHARS = 2_000


@dataclass(frozen=True)
class AnswerPairs:
    """The benchmarks that both the expert and the tuned expert answered."""

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


def read_pairs(run: Run) -> AnswerPairs:
    """The run's pairs of answers; fewer of each benchmark are shown if there are several."""
    counts, shown, missing = {}, [], []
    names = [name for name in run.results("expert") if name in run.results("tuned")]
    for name in names:
        try:
            outcomes = _outcomes(run, name)
        except AnswersMissingError as reason:
            missing.append(f"{name}: {reason}.")
            continue
        counts[name] = Counter(outcomes.values())
        limit = max(1, min(12, _MAX_SHOWN // len(names) // len(_OUTCOMES)))
        shown += _pairs(run, name, outcomes, limit)
    return AnswerPairs(counts, shown, missing)


def _outcomes(run: Run, benchmark: str) -> dict[str, str]:
    """Outcome by question id."""
    before, after = (run.answers(who, benchmark) for who in WHO)
    if before.keys() != after.keys():
        raise AnswersMissingError("the expert and the tuned expert answered different questions")
    return {key: _OUTCOMES[before[key] > 0.5, after[key] > 0.5] for key in before}


def _pairs(run: Run, benchmark: str, outcomes: dict[str, str], limit: int) -> list[dict[str, Any]]:
    """At most `limit` pairs of each outcome, evenly spaced."""
    keys = [
        own[number * len(own) // min(limit, len(own))]
        for own in grouped(outcomes, outcomes.__getitem__).values()
        for number in range(min(limit, len(own)))
    ]
    before, after = (  # the first record of each question
        {record["id"]: record for record in reversed(run.records(who, benchmark))} for who in WHO
    )
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
        for key in keys
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

"""Reads `trajectories.json` for the trajectory reader, validated and cut to a page's size.

The file may have been edited or truncated: damaged answers are left out and counted.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import printable
from lr_exp.report.read.json_file import is_number, is_too_deep
from lr_exp.store.run_folder import TRAJECTORIES as FILE

_MAX_FILE_BYTES = 64_000_000
_MAX_TOKEN_CHARS = 200
_MAX_TEXT_CHARS = 20_000
_MIN_ANSWERS = 4  # an answer takes at most 1/4 of the space

Answer = dict[str, Any]


class DamagedError(Exception):
    """The file exists but cannot be shown; the message says why."""


@dataclass(frozen=True)
class Reading:
    """Answers for the page's script, with notes for the reader."""

    data: dict[str, Any]
    chosen: str  # which answers the run recorded
    notes: list[str]  # what the page leaves out

    @property
    def answers(self) -> list[Answer]:
        return self.data["answers"]

    @property
    def is_scored(self) -> bool:
        """Whether any step has a divergence."""
        return self._has("kl")

    @property
    def has_amateur(self) -> bool:
        """Whether any step records if both models have the same top-1 token."""
        return self._has("same_top1")

    def _has(self, column: str) -> bool:
        return any(value is not None for answer in self.answers for value in answer[column])


def read(folder: Path, max_bytes: int) -> Reading | None:
    """A run's recorded answers in at most `max_bytes` bytes of JSON; None without the file.

    Raises:
        DamagedError: the file cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = _parsed(path)
    tokens = content.get("tokens")
    listed = content.get("answers")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise DamagedError(f"{FILE} has no list of token texts.")
    if not isinstance(listed, list):
        raise DamagedError(f"{FILE} has no list of answers.")
    answers = [_cleaned(answer) for answer in listed if _is_answer(answer, len(tokens))]
    if listed and not answers:
        raise DamagedError(f"None of the answers in {FILE} is valid.")
    notes = []
    if len(answers) < len(listed):
        damaged = len(listed) - len(answers)
        notes.append(f"{damaged:,} of {len(listed):,} answers in {FILE} are damaged and left out.")
    fitting = _fit(answers, max_bytes)
    if len(fitting) < len(answers):
        notes.append(
            f"To keep this page small, it shows {len(fitting):,} of the {len(answers):,} answers "
            f"in {FILE}, evenly spaced."
        )
    cut = sum(len(answer["token"]) < answer["tokens_total"] for answer in fitting)
    if cut:
        notes.append(f"Long answers are truncated ({cut:,} of those shown).")
    data = {
        "alpha": _number(content.get("alpha")),
        "beta": _number(content.get("beta")),
        **_with_own_tokens(fitting, tokens),
    }
    chosen = content.get("chosen")
    known = chosen[:500] if isinstance(chosen, str) else "the file does not say which"
    return Reading(data, known, notes)


def head(folder: Path) -> dict[str, Any]:
    """Method, models, alpha and beta from this file, for a folder without a summary."""
    try:
        content = _parsed(folder / FILE)
    except DamagedError:
        return {}
    names = {key: content.get(key) for key in ("method", "expert", "amateur")}
    numbers = {key: _number(content.get(key)) for key in ("alpha", "beta")}
    return {key: name for key, name in names.items() if isinstance(name, str)} | numbers


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # reading a pipe would block
            raise OSError
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DamagedError(f"{FILE} is larger than {_MAX_FILE_BYTES:,} bytes and is not read.")
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{FILE} is damaged and cannot be read.") from error
    if not isinstance(content, dict) or is_too_deep(content):
        raise DamagedError(f"{FILE} is damaged: it holds no trajectories.")
    return content


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    """0, 1 or None; the script does not accept booleans here."""
    return value is None or (_is_int(value) and value in (0, 1))


def _is_measure(value: Any) -> bool:
    """Nats or a count, 0 or more, or None."""
    return value is None or (is_number(value) and value >= 0)


def _is_share(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value <= 1)


def _is_candidates(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(
            isinstance(row, list)
            and len(row) == 5
            and _is_int(row[0])
            and _is_flag(row[3])
            and all(map(_is_share, (row[1], row[2], row[4])))
            for row in value
        )
    )


_COLUMNS: dict[str, Callable[[Any], bool]] = {
    "token": _is_int,
    "kl": _is_measure,
    "kept": _is_flag,
    "expert_entropy": _is_measure,
    "amateur_entropy": _is_measure,
    "mask_size": _is_measure,
    "same_top1": _is_flag,
    "candidates": _is_candidates,
}
_TEXTS = ("id", "question", "reference", "predicted")


def _is_answer(answer: Any, tokens: int) -> bool:
    """Whether all columns are present, equally long, of the right types and with valid tokens."""
    if not isinstance(answer, dict) or not isinstance(answer.get("token"), list):
        return False
    length = len(answer["token"])
    for name, is_valid in _COLUMNS.items():
        column = answer.get(name)
        if not isinstance(column, list) or len(column) != length or not all(map(is_valid, column)):
            return False
    used = [*answer["token"], *(c[0] for step in answer["candidates"] for c in step or ())]
    return all(0 <= token < tokens for token in used)


def _cleaned(answer: Answer) -> Answer:
    """The answer with only the keys that the page reads, its texts printable."""
    total = answer.get("tokens_total")
    texts = {key: _text(answer.get(key)) for key in _TEXTS}
    flags = {key: answer.get(key) for key in ("correct", "finished")}
    return {
        **texts,
        **{key: flag if isinstance(flag, bool) else None for key, flag in flags.items()},
        "tokens_total": total if _is_int(total) else len(answer["token"]),
        **{name: answer[name] for name in _COLUMNS},
    }


def _text(value: Any) -> str | None:
    return printable(value[:_MAX_TEXT_CHARS]) if isinstance(value, str) else None


def _fit(answers: list[Answer], max_bytes: int) -> list[Answer]:
    """As many evenly spaced answers as fit, each truncated to `max_bytes / _MIN_ANSWERS`."""
    cut = [_truncated(answer, max_bytes // _MIN_ANSWERS) for answer in answers]
    sizes = list(map(_size, cut))
    count = len(cut)
    while count and sum(sizes[i] for i in _evenly_spaced(len(cut), count)) > max_bytes:
        count = min(count - 1, math.ceil(count * 0.9))
    return [cut[i] for i in _evenly_spaced(len(cut), count)]


def _evenly_spaced(length: int, count: int) -> list[int]:
    return [number * length // count for number in range(count)] if count else []


def _truncated(answer: Answer, max_bytes: int) -> Answer:
    while _size(answer) > max_bytes and len(answer["token"]) > 1:
        half = len(answer["token"]) // 2
        answer = answer | {name: answer[name][:half] for name in _COLUMNS}
    return answer


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _with_own_tokens(answers: list[Answer], tokens: list[str]) -> dict[str, Any]:
    """The answers with the texts of only the tokens that they use."""
    numbers: dict[int, int] = {}

    def renumber(token: int) -> int:
        return numbers.setdefault(token, len(numbers))

    renumbered = [
        answer
        | {
            "token": list(map(renumber, answer["token"])),
            "candidates": [
                [[renumber(token), *rest] for token, *rest in step or ()]
                for step in answer["candidates"]
            ],
        }
        for answer in answers
    ]
    texts = [printable(tokens[token][:_MAX_TOKEN_CHARS]) for token in numbers]
    return {"tokens": texts, "answers": renumbered}

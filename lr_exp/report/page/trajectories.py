"""What the trajectory reader shows: `trajectories.json`, checked and cut to what a page can hold.

Knows that file's form; knows nothing of HTML. The file may have been edited or cut: an answer that
is not whole is left out and counted, and a file that is none is told in one line.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.errors import printable
from lr_exp.report.json_file import is_number, is_too_deep
from lr_exp.store.run_folder import TRAJECTORIES as FILE

_MOST_READ = 64_000_000  # bytes of a file that is read at all
_LONGEST_TOKEN = 200  # characters
_LONGEST_TEXT = 20_000
_FEWEST_ANSWERS = 4  # that fit however long each is

Answer = dict[str, Any]


class DamagedError(Exception):
    """The file is there and cannot be shown; the message says why."""


@dataclass(frozen=True)
class Reading:
    """Answers for the page's script, and what is said about them."""

    data: dict[str, Any]
    chosen: str  # which answers the run wrote down
    notes: list[str]  # on what the page leaves out

    @property
    def answers(self) -> list[Answer]:
        return self.data["answers"]

    @property
    def is_scored(self) -> bool:
        """Whether any step has a divergence."""
        return self._has("kl")

    @property
    def has_amateur(self) -> bool:
        """Whether it is known of any step if both models would have gone on alike."""
        return self._has("same_top1")

    def _has(self, column: str) -> bool:
        return any(value is not None for one in self.answers for value in one[column])


def read(folder: Path, most_bytes: int) -> Reading | None:
    """The answers of a run's folder in at most so many bytes of JSON; None without such a file.

    Raises:
        DamagedError: the file cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    told = _parsed(path)
    tokens = told.get("tokens")
    listed = told.get("answers")
    if not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
        raise DamagedError(f"{FILE} has no list of token texts.")
    if not isinstance(listed, list):
        raise DamagedError(f"{FILE} has no list of answers.")
    answers = [_whole(one) for one in listed if _is_answer(one, len(tokens))]
    if listed and not answers:
        raise DamagedError(f"None of the answers in {FILE} is whole.")
    notes = []
    if len(answers) < len(listed):
        lost = len(listed) - len(answers)
        notes.append(f"{lost:,} of {len(listed):,} answers in {FILE} are damaged and left out.")
    fitting = _fit(answers, most_bytes)
    if len(fitting) < len(answers):
        notes.append(
            f"To keep this page small, {len(fitting):,} of the {len(answers):,} answers in {FILE} "
            "are on it, taken evenly."
        )
    short = sum(len(one["token"]) < one["tokens_total"] for one in fitting)
    if short:
        notes.append(f"Of {short:,} long answers the beginning is shown.")
    data = {
        "alpha": _number(told.get("alpha")),
        "beta": _number(told.get("beta")),
        **_with_own_tokens(fitting, tokens),
    }
    chosen = told.get("chosen")
    known = chosen[:500] if isinstance(chosen, str) else "which ones, the file does not say"
    return Reading(data, known, notes)


def head(folder: Path) -> dict[str, Any]:
    """What a run says of itself in this file, for a folder without a summary: method, models …"""
    try:
        told = _parsed(folder / FILE)
    except DamagedError:
        return {}
    names = {key: told.get(key) for key in ("method", "expert", "amateur")}
    numbers = {key: _number(told.get(key)) for key in ("alpha", "beta")}
    return {key: one for key, one in names.items() if isinstance(one, str)} | numbers


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError
        if path.stat().st_size > _MOST_READ:
            raise DamagedError(f"{FILE} has more than {_MOST_READ:,} bytes and is not read.")
        told = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{FILE} is damaged and cannot be read.") from error
    if not isinstance(told, dict) or is_too_deep(told):
        raise DamagedError(f"{FILE} is damaged: it holds no trajectories.")
    return told


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    """0 or 1, or nothing; the script knows no true and false here."""
    return value is None or (_is_place(value) and value in (0, 1))


def _is_measure(value: Any) -> bool:
    """Nats, 0 or more, or nothing."""
    return value is None or (is_number(value) and value >= 0)


def _is_share(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value <= 1)


def _is_candidates(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(
            isinstance(one, list)
            and len(one) == 5
            and _is_place(one[0])
            and _is_flag(one[3])
            and all(map(_is_share, (one[1], one[2], one[4])))
            for one in value
        )
    )


_COLUMNS: dict[str, Callable[[Any], bool]] = {
    "token": _is_place,
    "kl": _is_measure,
    "kept": _is_flag,
    "expert_entropy": _is_measure,
    "amateur_entropy": _is_measure,
    "mask_size": _is_measure,
    "same_top1": _is_flag,
    "candidates": _is_candidates,
}
_TEXTS = ("id", "question", "reference", "predicted")


def _is_answer(one: Any, tokens: int) -> bool:
    """Whether all columns are there, of one length, of the right kinds, with known tokens."""
    if not isinstance(one, dict) or not isinstance(one.get("token"), list):
        return False
    length = len(one["token"])
    for name, fits in _COLUMNS.items():
        column = one.get(name)
        if not isinstance(column, list) or len(column) != length or not all(map(fits, column)):
            return False
    used = [*one["token"], *(c[0] for step in one["candidates"] for c in step or ())]
    return all(0 <= token < tokens for token in used)


def _whole(one: Answer) -> Answer:
    """The answer with the keys that the page reads, its texts harmless."""
    total = one.get("tokens_total")
    texts = {key: _text(one.get(key)) for key in _TEXTS}
    facts = {
        "correct": one.get("correct") if isinstance(one.get("correct"), bool) else None,
        "finished": one.get("finished") if isinstance(one.get("finished"), bool) else None,
        "tokens_total": total if _is_place(total) else len(one["token"]),
    }
    return {**texts, **facts, **{name: one[name] for name in _COLUMNS}}


def _text(value: Any) -> str | None:
    return printable(value[:_LONGEST_TEXT]) if isinstance(value, str) else None


def _fit(answers: list[Answer], most_bytes: int) -> list[Answer]:
    """Answers taken evenly from all, so that they fit; each at most a part of the room."""
    cut = [_cut(answer, most_bytes // _FEWEST_ANSWERS) for answer in answers]
    sizes = list(map(_size, cut))
    count = len(cut)
    while count and sum(sizes[i] for i in _evenly(len(cut), count)) > most_bytes:
        count = min(count - 1, math.ceil(count * 0.9))
    return [cut[i] for i in _evenly(len(cut), count)]


def _evenly(length: int, count: int) -> list[int]:
    return [number * length // count for number in range(count)] if count else []


def _cut(answer: Answer, most_bytes: int) -> Answer:
    while _size(answer) > most_bytes and len(answer["token"]) > 1:
        half = len(answer["token"]) // 2
        answer = answer | {name: answer[name][:half] for name in _COLUMNS}
    return answer


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _with_own_tokens(answers: list[Answer], tokens: list[str]) -> dict[str, Any]:
    """The answers with texts of the tokens that they use, and no others."""
    places: dict[int, int] = {}

    def place(token: int) -> int:
        return places.setdefault(token, len(places))

    renumbered = [
        answer
        | {
            "token": list(map(place, answer["token"])),
            "candidates": [
                [[place(token), *rest] for token, *rest in step or ()]
                for step in answer["candidates"]
            ],
        }
        for answer in answers
    ]
    texts = [printable(tokens[token][:_LONGEST_TOKEN]) for token in places]
    return {"tokens": texts, "answers": renumbered}

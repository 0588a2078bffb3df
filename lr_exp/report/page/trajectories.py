"""Reads `trajectories.json` for the trajectory reader.

The file may have been edited or truncated: damaged answers are left out and counted.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from lr_exp.errors import map_strings, printable
from lr_exp.report.json_file import is_number, is_too_deep
from lr_exp.report.summary import Count, Flag, Seconds, Share
from lr_exp.store.run_folder import TRAJECTORIES as FILE

_SHADES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # nats: lower edges of the shades
_CONFIDENT = 0.9  # minimum top-1 probability of a confident expert
_MAX_FILE_BYTES = 1_400_000  # a run writes at most 1,000,000, or one answer
_ROUNDING_NATS = 1e-4  # of divergences in the file

_NUMBERING = (
    "A step is one generated token. Steps are numbered from 1 on this page and from 0 in the run's "
    "files and in error messages."
)


_Bit = Annotated[int, Field(strict=True, ge=0, le=1)]
_Nats = Seconds  # any finite number from 0
_Candidate = tuple[Count, Share | None, Share | None, _Bit | None, Share | None]


class _Answer(BaseModel):
    """An answer, with one entry per step in each list."""

    id: str | None = None
    question: str | None = None
    reference: str | None = None
    predicted: str | None = None
    correct: Flag | None = None
    finished: Flag | None = None
    tokens_total: Count  # the file may have the first ones only
    token: Annotated[list[Count], Field(min_length=1)]
    kl: list[_Nats | None]
    kept: list[_Bit | None]
    expert_entropy: list[_Nats | None]
    amateur_entropy: list[_Nats | None]
    mask_size: list[Count | None]
    same_top1: list[_Bit | None]
    candidates: list[list[_Candidate] | None]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        columns = [value for value in vars(self).values() if isinstance(value, list)]
        if len(set(map(len, columns))) > 1:
            raise ValueError("the columns differ in length")
        return self

    @property
    def highest_token(self) -> int:
        listed = [candidate[0] for step in self.candidates for candidate in step or ()]
        return max([*self.token, *listed], default=0)


class DamagedError(Exception):
    """The file exists but cannot be shown; the message says why."""


@dataclass(frozen=True)
class Trajectories:
    """Sampled answers for the page's script, with texts for the reader."""

    data: dict[str, Any]
    remarks: list[str]  # what is shown, and what the page leaves out
    answers: list[dict[str, Any]]

    @property
    def about(self) -> str:
        """The meaning of shades and marks, with the threshold β if the kept steps match it."""
        if not self.data["scored"]:
            return "No step was compared with an amateur. Kept steps are underlined."
        shaded = (
            "Each token is shaded by the divergence D = KL(expert ‖ amateur) of the models' "
            "next-token distributions at that step."
        )
        beta = self.data["beta"]
        steps = [
            (kl or 0.0, kept == 1)
            for answer in self.answers
            for kl, kept in zip(answer["kl"], answer["kept"], strict=True)
        ]
        if beta is not None and all(
            kept == (kl > beta) or abs(kl - beta) < _ROUNDING_NATS for kl, kept in steps
        ):
            return f"{shaded} Steps with D > β = {beta:g} nats are kept and underlined."
        return f"{shaded} Kept steps are underlined."

    @property
    def filter_labels(self) -> dict[str, str]:
        """The filters whose data the answers have."""
        labels = {"all": "All", "kept": "Kept"}
        if self.data["amateur"]:
            labels["differ"] = "Top-1 differs"
        if any(answer["correct"] is not None for answer in self.answers):
            labels["wrong"] = "Wrong answers"
        return labels


def read_trajectories(folder: Path) -> Trajectories | None:
    """A run's recorded answers; None without the file.

    Raises:
        DamagedError: the file cannot be read.
    """
    if not (folder / FILE).is_file():
        return None
    content = _parsed(folder / FILE)
    tokens, listed = content.get("tokens"), content.get("answers")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise DamagedError(f"{FILE} has no list of token texts.")
    if not isinstance(listed, list):
        raise DamagedError(f"{FILE} has no list of answers.")
    answers = [answer for one in listed if (answer := _validated(one, len(tokens)))]
    if listed and not answers:
        raise DamagedError(f"None of the answers in {FILE} is valid.")
    chosen = content.get("chosen")
    chosen = chosen[:500] if isinstance(chosen, str) else "the file does not say which"
    count = f"{len(answers):,} {'answer is' if len(answers) == 1 else 'answers are'}"
    remarks = [f"{count} shown: {chosen}.", _NUMBERING]
    if len(answers) < len(listed):
        damaged = f"{len(listed) - len(answers):,} of {len(listed):,} answers in {FILE}"
        remarks.append(f"{damaged} are damaged and left out.")
    cut = sum(len(answer["token"]) < answer["tokens_total"] for answer in answers)
    if cut:
        remarks.append(f"Long answers are truncated ({cut:,} of those shown).")
    data = {
        "alpha": _number(content.get("alpha")),
        "beta": _number(content.get("beta")),
        "tokens": tokens,
        "answers": answers,
        "shades": _SHADES,
        "confident": _CONFIDENT,
        "scored": _has_any(answers, "kl"),
        "amateur": _has_any(answers, "same_top1"),
    }
    return Trajectories(data, remarks, answers)


def read_choices(folder: Path) -> dict[str, Any]:
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
            raise DamagedError(f"{FILE} is larger than {_MAX_FILE_BYTES:,} bytes and is not shown.")
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{FILE} is damaged and cannot be read.") from error
    if not isinstance(content, dict) or is_too_deep(content):
        raise DamagedError(f"{FILE} is damaged: it holds no trajectories.")
    return map_strings(content, printable)


def _validated(answer: Any, tokens: int) -> dict[str, Any] | None:
    try:
        valid = _Answer.model_validate(answer)
    except ValidationError:
        return None
    return valid.model_dump() if valid.highest_token < tokens else None


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _has_any(answers: list[dict[str, Any]], column: str) -> bool:
    return any(value is not None for answer in answers for value in answer[column])

"""Reads `trajectories.json` for the trajectory reader.

The file may have been edited or truncated, so it is validated.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from lr_exp.report.read.json_file import read_json, reason_of
from lr_exp.report.read.summary import Count, Flag, Number, Seconds, Share
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, table_of, text_column
from lr_exp.store.run_folder import TRAJECTORIES as FILE

_SHADES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # nats: lower edges of the shades
_CONFIDENT = 0.9  # minimum top-1 probability of a confident expert
_MAX_FILE_BYTES = 1_400_000  # a run writes at most 1,000,000, or one answer
_ROUNDING_NATS = 1e-4  # of divergences in the file

_NUMBERING = (
    "A step is one generated token. Steps are numbered from 1 on this page and from 0 in the run's "
    "files and in error messages."
)

_KINDS = ("copied from the question", "digits", "operators", "words", "punctuation and format")
_OPERATORS = set("+-*/=<>^×÷−·")  # noqa: RUF001
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")

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
    tokens_total: Count  # the lists may hold the first ones only
    token: Annotated[list[Count], Field(min_length=1)]
    kl: list[_Nats | None]
    kept: list[_Bit | None]
    expert_entropy: list[_Nats | None]
    amateur_entropy: list[_Nats | None]
    mask_size: list[Count | None]
    moving: list[_Bit | None]
    same_top1: list[_Bit | None]
    candidates: list[list[_Candidate] | None]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        columns = [value for value in vars(self).values() if isinstance(value, list)]
        if len(set(map(len, columns))) > 1:
            raise ValueError("the lists differ in length")
        return self


class DamagedError(Exception):
    """The file exists but cannot be shown; the message says why."""


class Trajectories(BaseModel):
    """Sampled answers, token by token."""

    alpha: Number | None = None
    beta: Number | None = None
    chosen: str = "how they were chosen is not recorded"
    tokens: list[str]
    answers: list[_Answer]

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        for answer in self.answers:
            candidates = [one[0] for step in answer.candidates for one in step or ()]
            if max(answer.token + candidates) >= len(self.tokens):
                raise ValueError("a token id is not below the length of `tokens`")
        return self

    @property
    def is_scored(self) -> bool:
        """Whether any step has a divergence."""
        return any(kl is not None for answer in self.answers for kl in answer.kl)

    @property
    def has_amateur(self) -> bool:
        """Whether any step records if both models have the same top-1 token."""
        return any(same is not None for answer in self.answers for same in answer.same_top1)

    @property
    def data(self) -> dict[str, Any]:
        """For the page's script."""
        recorded = self.model_dump(include={"alpha", "beta", "tokens", "answers"})
        flags = {"scored": self.is_scored, "amateur": self.has_amateur}
        return recorded | flags | {"shades": _SHADES, "confident": _CONFIDENT}

    @property
    def about(self) -> str:
        """The meaning of shades and marks, with the threshold β if the kept steps match it."""
        if not self.is_scored:
            return "No step was compared with an amateur. Kept steps are underlined."
        shaded = (
            "Each token is shaded by the divergence D = KL(expert ‖ amateur) of the models' "
            "next-token distributions at that step."
        )
        beta = self.beta
        steps = [pair for one in self.answers for pair in zip(one.kl, one.kept, strict=True)]
        if beta is not None and all(
            (kept == 1) == ((kl or 0) > beta) or abs((kl or 0) - beta) < _ROUNDING_NATS
            for kl, kept in steps
        ):
            return f"{shaded} Steps with D > β = {beta:g} nats are kept and underlined."
        return f"{shaded} Kept steps are underlined."

    @property
    def remarks(self) -> list[str]:
        """Which answers are shown."""
        count = len(self.answers)
        shown = f"{count:,} {'answer is' if count == 1 else 'answers are'} shown: {self.chosen}."
        cut = sum(len(answer.token) < answer.tokens_total for answer in self.answers)
        truncated = f"Long answers are truncated ({cut:,} of those shown)."
        missed = (
            "Confident, not kept: steps of wrong answers that were not kept although the expert's "
            f"top-1 probability is at least {_CONFIDENT}."
        )
        has_missed = "missed" in self.filter_labels
        return [shown, _NUMBERING, *([truncated] if cut else []), *([missed] if has_missed else [])]

    @property
    def kinds(self) -> Table:
        """The shown tokens, the kept and the moving ones by kind."""
        found: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in _KINDS}
        for answer in self.answers:
            kinds = token_kinds([self.tokens[i] for i in answer.token], answer.question or "")
            for kind, kept, moving in zip(kinds, answer.kept, answer.moving, strict=True):
                found[kind].append((kept == 1, moving == 1))
        kept = {kind: sum(one for one, _ in steps) for kind, steps in found.items()}
        every = sum(kept.values())
        columns = [
            text_column("kind", found),
            (Column("tokens"), [f"{len(steps):,}" for steps in found.values()]),
            (Column("kept"), [f"{kept[kind]:,}" for kind in found]),
            (
                Column("% of the kept"),
                [cell.number(100 * kept[k] / every if every else None) for k in found],
            ),
            (Column("moving"), [f"{sum(one for _, one in steps):,}" for steps in found.values()]),
        ]
        note = "Of the answers in the trajectory reader. Copied: a number or word of the question."
        return table_of("kinds", "Kept tokens by kind", columns, [], [note])

    @property
    def filter_labels(self) -> dict[str, str]:
        """The filters whose data the answers have."""
        labels = {"all": "All", "kept": "Kept"}
        if self.is_scored:
            labels["moving"] = "Moving"
        if self.has_amateur:
            labels["differ"] = "Top-1 differs"
        if any(answer.correct is not None for answer in self.answers):
            labels["wrong"] = "Wrong answers"
            labels["missed"] = "Confident, not kept"
        return labels


def token_kinds(texts: Sequence[str], question: str) -> list[str]:
    """The kind of each token of an answer.

    A token is copied if the whole number or word that it belongs to is in the question.
    """
    known = set(_WORD.findall(question))
    whole = "".join(texts)
    word_at = {place: m[0] for m in _WORD.finditer(whole) for place in range(*m.span())}
    kinds, end = [], 0
    for text in texts:
        word = word_at.get(end + len(text) - len(text.lstrip()))
        end += len(text)
        bare = text.strip()
        if bare and word in known:
            kinds.append("copied from the question")
        elif any(sign.isdigit() for sign in bare):
            kinds.append("digits")
        elif any(sign.isalpha() for sign in bare) and not bare.startswith(("\\", "<|")):
            kinds.append("words")
        else:
            is_operator = bare != "" and set(bare) <= _OPERATORS
            kinds.append("operators" if is_operator else "punctuation and format")
    return kinds


def read_trajectories(folder: Path) -> Trajectories | None:
    """A run's recorded answers; None without the file. Raises DamagedError if damaged."""
    path = folder / FILE
    if not path.is_file():  # reading a pipe would block
        return None
    try:
        return Trajectories.model_validate(read_json(path, _MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{FILE} cannot be read ({reason_of(error)}). Run the same command again: it rewrites "
            "the file."
        ) from error

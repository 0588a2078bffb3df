"""Reads `trajectories.json.gz` for the trajectory reader.

The file may have been edited or truncated, so it is validated.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from lr_exp.errors import UserError
from lr_exp.report.read.json_file import read_json, reason_of
from lr_exp.report.read.run import REWRITE
from lr_exp.report.read.summary import Count, Flag, Number, Seconds, Share
from lr_exp.report.texts import report_text
from lr_exp.store.run_folder import TRAJECTORIES as FILE

_SHADES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # nats: lower edges of the shades
_MAX_FILE_BYTES = 1_400_000  # decompressed; a run writes at most 1,000,000, or one answer

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
        return recorded | flags | {"shades": _SHADES}

    @property
    def about(self) -> str:
        """The meaning of shades and marks."""
        if not self.is_scored:
            return "No step was compared with an amateur. Kept steps are underlined."
        return (
            "Each token is shaded by the divergence D = KL(expert ‖ amateur) of the models' "
            "next-token distributions at that step. Kept steps are underlined."
        )

    @property
    def remarks(self) -> list[str]:
        """Which answers are shown."""
        count = len(self.answers)
        shown = f"{count:,} {'answer is' if count == 1 else 'answers are'} shown: {self.chosen}."
        cut = sum(len(answer.token) < answer.tokens_total for answer in self.answers)
        truncated = f"Long answers are truncated ({cut:,} of those shown)."
        return [shown, report_text("numbering"), *([truncated] if cut else [])]

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
        return labels


def read_trajectories(folder: Path) -> Trajectories | None:
    """A run's recorded answers; None without the file. Raises UserError if damaged."""
    path = folder / FILE
    if not path.is_file():  # reading a pipe would block
        return None
    try:
        return Trajectories.model_validate(read_json(path, _MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{FILE} cannot be read ({reason_of(error)}){REWRITE}") from error

"""Claims as data: `claims.yaml`, or a file of the same form."""

from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from lr_exp.config.options import ABOUT, read_option
from lr_exp.errors import UserError
from lr_exp.report.analyse.paired import Interval
from lr_exp.report.read.json_file import reason_of

SHIPPED = Path(__file__).with_name("claims.yaml")
WORLDS = {"micro": "micro world", "real": "real models"}

Choice = Literal["method", "amateur", "data", "alpha", "beta", "decoder", "prompt", "learning_rate"]
Choices = dict[Choice, Any]  # of a table's row; a value may be a mapping of worlds to values


class Claim(BaseModel, frozen=True, extra="forbid"):
    """A sentence that runs can support or refute; docs/claims.md explains the keys."""

    claim: str
    source: str
    kind: Literal["difference", "slope", "control", "ratio"]
    cost: Literal["hours", "problems", "generated_tokens", "tuned_tokens", "flops"] | None = None
    ours: Choices
    theirs: Choices = {}
    test: Literal["superior", "not_worse", "equivalent", "at_most"]
    margin: Annotated[float, Field(ge=0)]  # points; of a ratio, percent
    micro: str | None = None  # sweeps
    real: str | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len({self.kind == "ratio", self.test == "at_most", self.cost is not None}) > 1:
            raise ValueError("kind: ratio needs test: at_most and a cost, other kinds neither")
        if bool(self.theirs) != (self.kind in ("difference", "ratio")):
            raise ValueError("kinds difference and ratio need theirs, other kinds do not")
        values = *self.ours.values(), *self.theirs.values()
        lacking = [self.sweeps.keys() - one.keys() for one in values if isinstance(one, dict)]
        if any(lacking) or not self.sweeps:
            raise ValueError("a sweep is needed (micro, real), and each choice in each of them")
        return self

    @property
    def sweeps(self) -> dict[str, str]:
        """By key of `WORLDS`."""
        return {world: sweep for world in WORLDS if (sweep := getattr(self, world))}

    @property
    def region(self) -> Interval:
        """The values for which the claim is true, ends included."""
        low = {"superior": self.margin, "at_most": -inf}.get(self.test, -self.margin)
        return low, self.margin if self.test in ("equivalent", "at_most") else inf

    @property
    def needs(self) -> str:
        """The region in words."""
        low, high = self.region
        if self.test == "equivalent":
            return f"{low:+g} to {high:+g} points"
        return f"at least {low:+g} points" if high == inf else f"at most {high:g} %"


def read_claims(path: Path) -> dict[str, Claim]:
    """The claims of a file by name; raises UserError if it cannot be read or one is invalid."""
    content = read_option(path)
    content.pop(ABOUT)
    if not content:
        raise UserError(f"{path} has no claims.")
    try:
        return TypeAdapter(dict[str, Claim]).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{path}: {reason_of(error)}") from error

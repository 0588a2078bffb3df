"""The registry of a method's choices.

A method is a choice of trajectories, of the token positions to keep (`select`), of a target and of
a loss. Each choice is one function registered with `register`:

    @register("select", columns=("kl",))
    def kl_above_beta(steps, *, beta):
        return steps["kl"] > beta

The decorator declares which columns of the step table the function reads and what else it needs.
Its keyword-only arguments declare the settings that it reads: `alpha`, `beta` and `seed` of the
run, and parameters of its own, which are keys of the method's YAML.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

KINDS = ("trajectories", "select", "target", "loss")
RUN_SETTINGS = ("alpha", "beta", "seed")
POSITION = ("index", "step", "token_id")  # columns of every token position, scored or not

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Choice:
    """A registered function and its declaration."""

    kind: str  # one of KINDS
    name: str
    function: Callable[..., Any]
    columns: tuple[str, ...]  # of the step table, besides POSITION
    needs: tuple[str, ...]  # of: references, solutions, context, target
    compares_all: bool  # a step rule that ranks or draws among all positions of the run
    like: Callable[..., Any] | None  # another choice whose parameters this one has as well

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The keyword-only arguments, by name without a final underscore (`lambda_`)."""
        functions = [one for one in (self.like, self.function) if one is not None]
        found = [one for each in functions for one in inspect.signature(each).parameters.values()]
        return {one.name.removesuffix("_"): one for one in found if one.kind is one.KEYWORD_ONLY}

    @cached_property
    def source(self) -> str | None:
        """SHA-256 of the file of a choice of the user's; the stages' versions cover our own."""
        if _is_ours(self.function):
            return None
        return hashlib.sha256(Path(inspect.getfile(self.function)).read_bytes()).hexdigest()


@dataclass(frozen=True)
class BoundChoice:
    """A choice with the values of its settings; calling it calls the function with them."""

    choice: Choice
    arguments: dict[str, Any]

    def __call__(self, *args: Any) -> Any:
        names = {name: one.name for name, one in self.choice.parameters.items()}
        return self.choice.function(*args, **{names[n]: v for n, v in self.arguments.items()})


@dataclass(frozen=True)
class Method:
    """A method's four choices with the values that they read."""

    name: str
    trajectories: BoundChoice
    select: BoundChoice
    target: BoundChoice
    loss: BoundChoice
    epochs: float | None  # passes over all kept positions that the batch size must allow

    @property
    def choices(self) -> tuple[BoundChoice, ...]:
        return self.trajectories, self.select, self.target, self.loss

    @property
    def needs_amateur(self) -> bool:
        """Whether a choice reads the step table, which compares expert and amateur."""
        return any(bound.choice.columns for bound in self.choices)

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the choices' own parameters, defaults included."""
        arguments = {name: value for one in self.choices for name, value in one.arguments.items()}
        return {name: value for name, value in arguments.items() if name not in RUN_SETTINGS}

    def reads(self, name: str) -> bool:
        """Whether a choice reads this setting (`alpha`, `beta`, `seed` or a parameter)."""
        return any(name in bound.arguments for bound in self.choices)

    def identity(self, *kinds: str) -> dict[str, Any]:
        """What determines the results of the choices of these kinds, for addresses."""
        return {
            one.choice.kind: {
                "choice": one.choice.name,
                "arguments": one.arguments,
                "source": one.choice.source,
            }
            for one in self.choices
            if one.choice.kind in kinds
        }

    def needs(self, what: str) -> bool:
        """Whether a choice declares this need (`references`, `solutions` or `context`)."""
        return any(what in bound.choice.needs for bound in self.choices)


registry: dict[tuple[str, str], Choice] = {}  # by kind and name


def register(
    kind: str,
    *,
    columns: Iterable[str] = (),
    needs: Iterable[str] = (),
    compares_all: bool = False,
    like: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Registers the decorated function as a choice, under its own name without a final underscore.

    Args:
        kind: `trajectories`, `select`, `target` or `loss`; the modules that define the built-in
            choices document the function's arguments and result.
        columns: of the step table. Any makes the run score the trajectories with both models.
        needs: `references` or `solutions` (of the questions), `target` (of a loss), `context` (of
            trajectories whose prompts are another context, which the expert alone reads: the expert
            under the run's own prompt takes the amateur's place and is the student).
        compares_all: a step rule that needs all positions of the run at once, not only a shard's.
        like: a choice of the same kind; its parameters are passed to the function as well.

    Raises ValueError: the kind is unknown, or the name is that of a built-in choice.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of choice: use one of {', '.join(KINDS)}")

    def decorate(function: F) -> F:
        name = function.__name__.removesuffix("_")
        taken = registry.get((kind, name))
        if taken and taken.source is None and not _is_ours(function):
            raise ValueError(f"{kind} {name!r} is a choice of lr_exp: use another name")
        declared = (tuple(columns), tuple(needs), compares_all, like)
        registry[kind, name] = Choice(kind, name, function, *declared)
        return function

    return decorate


def _is_ours(function: Callable[..., Any]) -> bool:
    return function.__module__.startswith("lr_exp.")

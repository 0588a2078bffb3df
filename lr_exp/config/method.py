"""The registry of a method's choices, and the method that a run's settings describe.

A method is a choice of trajectories, of the token positions to keep (`select`), of a target and of
a loss. Each choice is one function registered with `register`:

    @register("select", columns=("kl",))
    def kl_above_beta(steps, *, beta):
        return steps["kl"] > beta

The decorator declares which columns of the step table the function reads and what else it needs.
Its keyword-only arguments declare which settings it reads: `alpha`, `beta` and `seed` of the run,
and parameters of its own, which are keys of the method's YAML. Validation, artifact addresses, the
models to load and reports follow from these declarations.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, get_type_hints

from lr_exp.config.settings import MethodSettings, Settings, check_value
from lr_exp.errors import UserError, did_you_mean, first_line

KINDS = ("trajectories", "select", "target", "loss")
RUN_SETTINGS = ("alpha", "beta", "seed")
POSITION = ("index", "step", "token_id")  # columns of every token position, scored or not

# Importing these modules registers the built-in choices. Named here because they import torch.
_BUILT_IN = (
    "lr_exp.pipeline.trajectories",
    "lr_exp.sampler.step_rules",
    "lr_exp.sampler.targets",
    "lr_exp.distiller.losses",
)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Choice:
    """A registered function and its declaration."""

    kind: str  # one of KINDS
    name: str
    function: Callable[..., Any]
    columns: tuple[str, ...]  # of the step table, besides POSITION
    needs: tuple[str, ...]  # of: references, solutions, target
    compares_all: bool  # a step rule that ranks or draws among all positions of the run

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The keyword-only arguments, by name."""
        found = inspect.signature(self.function).parameters
        return {name: one for name, one in found.items() if one.kind is one.KEYWORD_ONLY}

    @cached_property
    def source(self) -> str | None:
        """SHA-256 of the file that defines a choice outside this package; None for our own.

        Our own choices are covered by the version constants of the stages.
        """
        if _is_ours(self.function):
            return None
        return hashlib.sha256(Path(inspect.getfile(self.function)).read_bytes()).hexdigest()


@dataclass(frozen=True)
class BoundChoice:
    """A choice with the values of its settings; calling it calls the function with them."""

    choice: Choice
    arguments: dict[str, Any]

    def __call__(self, *args: Any) -> Any:
        return self.choice.function(*args, **self.arguments)


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
        """Whether a choice declares this need (`references` or `solutions`)."""
        return any(what in bound.choice.needs for bound in self.choices)


_registry: dict[tuple[str, str], Choice] = {}


def register(
    kind: str,
    *,
    columns: Iterable[str] = (),
    needs: Iterable[str] = (),
    compares_all: bool = False,
) -> Callable[[F], F]:
    """Registers the decorated function as a choice, under its own name without a final underscore.

    Args:
        kind: `trajectories`, `select`, `target` or `loss`; the modules that define the built-in
            choices document the function's arguments and result.
        columns: the columns of the step table that it reads. Any column makes the run load the
            amateur and score the trajectories with both models.
        needs: `references` or `solutions` (of the questions), `target` (of a loss).
        compares_all: a step rule that needs all positions of the run at once; others are called
            with one shard at a time.

    Raises:
        ValueError: the kind is unknown, or the name is that of a built-in choice.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of choice: use one of {', '.join(KINDS)}")

    def decorate(function: F) -> F:
        name = function.__name__.removesuffix("_")
        taken = _registry.get((kind, name))
        if taken and taken.source is None and not _is_ours(function):
            raise ValueError(f"{kind} {name!r} is a choice of lr_exp: use another name")
        _registry[kind, name] = Choice(
            kind=kind,
            name=name,
            function=function,
            columns=tuple(columns),
            needs=tuple(needs),
            compares_all=compares_all,
        )
        return function

    return decorate


def _is_ours(function: Callable[..., Any]) -> bool:
    return function.__module__.startswith("lr_exp.")


def build_method(method: MethodSettings, *, alpha: float, beta: float, seed: int) -> Method:
    """The method of these settings.

    Raises:
        UserError: `method.module` cannot be imported; a choice or a parameter does not exist; a
            value is out of range; a loss needs a target and the method has none.
    """
    for module in _BUILT_IN:
        importlib.import_module(module)
    if method.module is not None:
        _import(method.module)
    run = {"alpha": alpha, "beta": beta, "seed": seed}
    bound = {
        kind: _bind(_find(kind, getattr(method, kind)), run, method.parameters) for kind in KINDS
    }
    known = {name for choice in _registry.values() for name in choice.parameters}
    for name in method.parameters:
        if name not in known - {*RUN_SETTINGS}:
            raise UserError(
                f"method.{name} is not a setting of the method or of any registered choice."
                f"{did_you_mean(name, known - {*RUN_SETTINGS})}"
            )
    if "target" in bound["loss"].choice.needs and bound["target"].choice.name == "none":
        raise UserError(
            f"method.loss={method.loss} needs a target, but method.target=none: choose a target, "
            "or a loss that needs none."
        )
    return Method(name=method.name, epochs=method.epochs, **bound)


def method_of(settings: Settings) -> Method:
    """The method that a run's settings describe; see `build_method`."""
    alpha, beta, seed = settings.alpha, settings.beta, settings.seed
    return build_method(settings.method, alpha=alpha, beta=beta, seed=seed)


def _find(kind: str, name: str) -> Choice:
    found = _registry.get((kind, name))
    if found is None:
        names = [other for of, other in _registry if of == kind]
        raise UserError(f"method.{kind}={name!r} is not registered.{did_you_mean(name, names)}")
    return found


def _bind(choice: Choice, run: Mapping[str, float], parameters: Mapping[str, Any]) -> BoundChoice:
    arguments = {}
    for name, parameter in choice.parameters.items():
        if name in run:
            arguments[name] = run[name]
            continue
        value = parameters.get(name, parameter.default)
        if value is parameter.empty:
            raise UserError(
                f"method.{name} is required by method.{choice.kind}={choice.name}: add "
                f"method.{name}=... to the command, or {name}: ... to the method's YAML."
            )
        arguments[name] = check_value(f"method.{name}", value, _hint(choice, parameter))
    return BoundChoice(choice, arguments)


def _hint(choice: Choice, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation, also where the module postpones evaluating annotations."""
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    annotated = SimpleNamespace(__annotations__={"hint": parameter.annotation})
    names = sys.modules[choice.function.__module__].__dict__
    return get_type_hints(annotated, globalns=names, include_extras=True)["hint"]


def _import(module: str) -> None:
    """Imports a module that registers choices: a dotted name or the path of a Python file."""
    try:
        if not module.endswith(".py"):
            importlib.import_module(module)
            return
        path = Path(module).expanduser().resolve()
        name = f"lr_exp_choices_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    except Exception as error:  # the module may raise anything
        raise UserError(
            f"method.module={module} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}): give a module on the Python path or the path of a .py file."
        ) from error

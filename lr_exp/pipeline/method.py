"""The method that a run's settings describe."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

from lr_exp.config.method import KINDS, RUN_SETTINGS, BoundChoice, Choice, Method, registry
from lr_exp.config.settings import Settings, check_value
from lr_exp.errors import UserError, did_you_mean, first_line


def method_of(settings: Settings) -> Method:
    """The method's choices with the values that they read.

    Raises UserError: `method.module` cannot be imported; a choice or a parameter does not exist; a
    value is out of range; a loss needs a target and the method has none.
    """
    # Importing these modules, which import torch, registers the built-in choices.
    from lr_exp.distiller import losses  # noqa: F401
    from lr_exp.pipeline import trajectories  # noqa: F401
    from lr_exp.sampler import step_rules, targets  # noqa: F401

    method = settings.method
    if method.module is not None:
        _import(method.module)
    known = {name for choice in registry.values() for name in choice.parameters} - {*RUN_SETTINGS}
    for name in method.parameters:
        if name not in known:
            raise UserError(
                f"method.{name} is not a setting of the method or of any registered choice."
                f"{did_you_mean(name, known)}"
            )
    run = {name: getattr(settings, name) for name in RUN_SETTINGS}
    bound = {
        kind: _bind(_find(kind, getattr(method, kind)), run, method.parameters) for kind in KINDS
    }
    if "target" in bound["loss"].choice.needs and bound["target"].choice.name == "none":
        raise UserError(
            f"method.loss={method.loss} needs a target, but method.target=none: choose a target, "
            "or a loss that needs none."
        )
    return Method(name=method.name, epochs=method.epochs, **bound)


def _find(kind: str, name: str) -> Choice:
    found = registry.get((kind, name))
    if found is None:
        names = [other for of, other in registry if of == kind]
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

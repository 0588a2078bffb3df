"""Methods for tests: the built-in choices with the settings that a test gives."""

from typing import Any

from lr_exp.config.method import Method
from lr_exp.config.settings import MethodSettings, Settings
from lr_exp.pipeline.method import method_of


def method(
    *,
    alpha: float = 0.2,
    beta: float = 0.4,
    seed: int = 0,
    name: str = "test",
    parameters: dict[str, Any] | None = None,
    **choices: str,
) -> Method:
    settings = MethodSettings(name=name, parameters=parameters or {}, **choices)
    return method_of(Settings(method=settings, alpha=alpha, beta=beta, seed=seed))

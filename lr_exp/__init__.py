"""LightReasoner experiments: a weaker amateur shows a stronger expert where to reinforce itself.

For scripts and notebooks: the names in `__all__`. They stay as they are; what lies behind them may
move. Importing the package imports nothing heavy: each name is looked up in its room when it is
first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lr_exp.version import __version__ as __version__

if TYPE_CHECKING:
    from lr_exp import contrast, progress
    from lr_exp.api import compose, read_questions, run_experiment
    from lr_exp.errors import UserError
    from lr_exp.frames import read_answers, read_runs
    from lr_exp.looking import Answer, Pair, Sample, load_pair, sample
    from lr_exp.report import paired
    from lr_exp.report.figures import style
    from lr_exp.settings import Settings

__all__ = [
    "Answer",
    "Pair",
    "Sample",
    "Settings",
    "UserError",
    "compose",
    "contrast",
    "load_pair",
    "paired",
    "progress",
    "read_answers",
    "read_questions",
    "read_runs",
    "run_experiment",
    "sample",
    "style",
]

_NAMES = {
    "lr_exp.api": ("compose", "read_questions", "run_experiment"),
    "lr_exp.errors": ("UserError",),
    "lr_exp.frames": ("read_answers", "read_runs"),
    "lr_exp.looking": ("Answer", "Pair", "Sample", "load_pair", "sample"),
    "lr_exp.settings": ("Settings",),
}
_PLACES = {name: place for place, names in _NAMES.items() for name in names}
_MODULES = {
    "contrast": "lr_exp.contrast",  # the equations, one function each
    "paired": "lr_exp.report.paired",  # accuracies with errors, two variants compared
    "progress": "lr_exp.progress",  # how far a stage is, on stderr: `choose("none")` for silence
    "style": "lr_exp.report.figures.style",  # the look of all figures
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'lr_exp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

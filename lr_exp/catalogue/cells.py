"""Which runs an experiment or a sweep is, and what the paper published that they took.

Knows the form of `defaults` lists and of sweeps' axes, as far as our own files use them. Hydra
composes the same runs, which takes a second each; the tests hold the two together.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lr_exp.catalogue.files import load
from lr_exp.report import published
from lr_exp.report.names import Setup

# Group to option, with the `experiment` that chose it; other axes of a sweep by their keys.
Choice = dict[str, str]

_GROUPS = ("expert", "amateur", "data", "method")
_OWN = {*_GROUPS, "experiment"}  # a cell that chooses more than these is none of the paper's
# The one method that is the paper's without an experiment: theirs of the others learned from more
# questions than the method's own settings ask for.
_BY_ITSELF = "lightreasoner"


def choice_of(conf: Path, experiment: str | None = None) -> Choice:
    """The groups' options of the default run, or of an experiment."""
    defaults = _defaults(conf / "config.yaml")
    chosen = {group: defaults[group] for group in _GROUPS}
    if experiment is None:
        return chosen
    return chosen | {"experiment": experiment} | _overridden(conf, experiment)


def cells_of(conf: Path, sweep: Mapping[str, Any]) -> list[Choice]:
    """Every run of a sweep, from its content."""
    axes = {
        key: [value.strip() for value in str(values).split(",")]
        for key, values in sweep["hydra"]["sweeper"]["params"].items()
    }
    cells = []
    for values in itertools.product(*axes.values()):
        given = dict(zip(axes, values, strict=True))
        cells.append(choice_of(conf, given.get("experiment")) | given)
    return cells


def published_hours(cells: Iterable[Choice]) -> list[float]:
    """The paper's hours, without evaluation, of those of the runs that it tells them of."""
    told = [published.efficiency(_setup(cell)) for cell in cells if _is_papers(cell)]
    return [one["hours"] for one in told if one]


def _is_papers(cell: Choice) -> bool:
    return cell.keys() <= _OWN and (cell["method"] == _BY_ITSELF or "experiment" in cell)


def _setup(cell: Choice) -> Setup:
    return Setup(cell["expert"], cell["method"], cell["amateur"], cell["data"])


def _overridden(conf: Path, experiment: str) -> Choice:
    """What an experiment chooses, those that it builds on included."""
    content = load(conf / "experiment" / f"{experiment}.yaml")
    chosen: Choice = {}
    for item in content.get("defaults", []):
        if isinstance(item, Mapping):
            for key, option in item.items():
                chosen[re.sub(r"^override /", "", key)] = option
        elif item != "_self_":
            chosen |= _overridden(conf, item)
    return chosen


def _defaults(path: Path) -> Choice:
    chosen: Choice = {}
    for item in load(path)["defaults"]:
        if isinstance(item, Mapping):
            chosen |= item
    return chosen

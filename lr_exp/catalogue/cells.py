"""Which runs an experiment or a sweep is, and what the paper published that they took.

Knows the form of `defaults` lists and of sweeps' axes, as far as our own files use them. Hydra
composes the same runs, which takes a second each; the tests hold the two together.
"""

import csv
import itertools
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lr_exp.catalogue.files import load

# Group to option, with the `experiment` that chose it; other axes of a sweep by their keys.
Choice = dict[str, str]

_GROUPS = ("expert", "amateur", "data", "method")
_PUBLISHED = Path(__file__).parents[1] / "report" / "published" / "efficiency.csv"
_PUBLISHED_AMATEUR = "qwen_0_5b"  # of every run in that table that has one
_LEARNING = "lightreasoner"  # the method of theirs that has one


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
    known = _hours()
    found = []
    for cell in cells:
        own = cell.keys() <= {*_GROUPS, "experiment"} and cell["data"] == "gsm8k"
        if cell["method"] == _LEARNING:
            own = own and cell["amateur"] == _PUBLISHED_AMATEUR
        else:  # theirs saw more questions than the method by itself does
            own = own and "experiment" in cell
        hours = known.get((cell["expert"], cell["method"]))
        if own and hours is not None:
            found.append(hours)
    return found


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


@cache
def _hours() -> dict[tuple[str, str], float]:
    with _PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {(row["expert"], row["method"]): float(row["hours"]) for row in csv.DictReader(file)}

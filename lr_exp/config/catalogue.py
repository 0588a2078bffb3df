"""Facts about the options of every config group, read from the YAML files without composing them.

A file's header is the comment lines before its first key: a description, then facts as
`Key: value`. Composing the same runs with Hydra takes a second each; the tests compare both.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ValueType
from omegaconf import OmegaConf

from lr_exp.config.composition import parse_override
from lr_exp.config.options import option_files
from lr_exp.errors import UserError

Folders = Sequence[Path]  # see `option_folders`

_FACT = re.compile(r"(Parameters|Questions|Cost|Published hours): (.+)")
_SENTENCE_END = re.compile(r"(?<=[.:])\s+(?=[A-Z`])")


@dataclass(frozen=True)
class Entry:
    """One option of a group."""

    name: str
    what: str  # the header's first sentence
    facts: dict[str, str]  # lower-case key to value
    content: dict[str, Any]  # the YAML as written, not composed


def entries(folders: Folders, group: str) -> list[Entry]:
    """Every option of a group, sorted by name."""
    return [_entry(path) for path in option_files(folders, group).values()]


def _entry(path: Path) -> Entry:
    content = load(path)
    description, facts = [], {}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").removeprefix(" ")
        fact = _FACT.fullmatch(line)
        if fact:
            facts[fact[1].lower()] = fact[2]
        elif not line.startswith((" ", "@package")):
            description.append(line)
    what = _SENTENCE_END.split(" ".join(description))[0].rstrip(":.")
    return Entry(path.stem, f"{what}." if what else "", facts, content)


@cache
def load(path: Path) -> dict[str, Any]:
    """A YAML mapping as written, neither composed nor resolved. The result is shared: read only."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping of keys to values.")
    return {str(key): value for key, value in content.items()}


# Group to option, with the `experiment` that chose it; a sweep's other axes by their keys.
Choice = dict[str, str]

_GROUPS = ("expert", "amateur", "data", "method")
_PAPERS_KEYS = {*_GROUPS, "experiment"}  # a cell that sets more is not one of the paper's
# The one method that needs no experiment to be the paper's: the paper trained the others on more
# questions than their own settings request.
_PAPERS_METHOD = "lightreasoner"


def choice_of(folders: Folders, experiment: str | None = None) -> Choice:
    """The options of the default run, or of an experiment."""
    defaults = _defaults(folders[0] / "config.yaml")
    choice = {group: defaults[group] for group in _GROUPS}
    if experiment is None:
        return choice
    return choice | {"experiment": experiment} | _overridden(folders, experiment)


def cells_of(folders: Folders, sweep: Mapping[str, Any]) -> list[Choice]:
    """Every run of a sweep, from its content."""
    params = _at(sweep, "hydra", "sweeper", "params") or {}
    axes = {key: _values(key, values) for key, values in params.items()}
    cells = []
    for values in itertools.product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        cells.append(choice_of(folders, cell.get("experiment")) | cell)
    return cells


def published_hours(folders: Folders, cells: Iterable[Choice]) -> list[float]:
    """The hours, without evaluation, of those runs for which the paper reports them."""
    hours = {
        _groups(choice_of(folders, entry.name)): float(entry.facts["published hours"])
        for entry in entries(folders[:1], "experiment")
        if "published hours" in entry.facts
    }
    matches = [hours.get(_groups(cell)) for cell in cells if _is_papers(cell)]
    return [match for match in matches if match is not None]


def _at(content: Any, *keys: str) -> Any:
    """A nested value; None where a key is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _values(key: str, values: Any) -> list[str]:
    """The values of a sweep's axis, `a,b` or `range(0,3)`; a glob is one value."""
    override = parse_override(f"{key}={values}")
    if not override.is_sweep_override() or override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return [str(values)]
    return list(override.sweep_string_iterator())


def _groups(cell: Choice) -> tuple[str, ...]:
    return tuple(cell[group] for group in _GROUPS)


def _is_papers(cell: Choice) -> bool:
    is_papers_run = cell["method"] == _PAPERS_METHOD or "experiment" in cell
    return cell.keys() <= _PAPERS_KEYS and is_papers_run


def _overridden(folders: Folders, experiment: str) -> Choice:
    """The options that an experiment and those it builds on choose."""
    path = option_files(folders, "experiment").get(experiment)
    if path is None:
        return {}
    choice: Choice = {}
    for item in load(path).get("defaults", []):
        if isinstance(item, Mapping):
            for key, option in item.items():
                choice[re.sub(r"^override /", "", key)] = option
        elif item != "_self_":
            choice |= _overridden(folders, item)
    return choice


def _defaults(path: Path) -> Choice:
    choice: Choice = {}
    for item in load(path)["defaults"]:
        if isinstance(item, Mapping):
            choice |= item
    return choice


Row = dict[str, Any]
_BF16_BYTES = 2  # per weight


def experts(folders: Folders) -> list[Row]:
    """Models that can be tuned."""
    return [_model(entry) for entry in entries(folders, "expert")]


def amateurs(folders: Folders) -> list[Row]:
    """Weaker models to compare with; early exit reuses the expert's weights."""
    rows = [_model(entry) for entry in entries(folders, "amateur")]
    for row, entry in zip(rows, entries(folders, "amateur"), strict=True):
        if entry.content.get("drop_layers"):
            row |= {"from": "the expert's own weights", "parameters": 0, "bf16_bytes": 0}
    return rows


def methods(folders: Folders) -> list[Row]:
    """Trajectories, kept steps and target of each method."""
    return [
        {
            "name": entry.name,
            "trajectories": entry.content.get("trajectories"),
            "select": entry.content.get("select"),
            "target": entry.content.get("target"),
            "what": entry.what,
        }
        for entry in entries(folders, "method")
    ]


def data(folders: Folders) -> list[Row]:
    """Questions to learn from: how many there are, and how many a run takes by default."""
    return [
        {
            "name": entry.name,
            "questions": _questions(entry),
            "taken": entry.content.get("max_questions") or _questions(entry),
            "from": _source(entry),
            "what": entry.what,
        }
        for entry in entries(folders, "data")
    ]


def benchmarks(folders: Folders) -> list[Row]:
    """Questions to evaluate on, and how answers are compared."""
    return [
        {
            "name": entry.name,
            "questions": _questions(entry),
            "answer": entry.content.get("answer"),
            "examples_from": entry.content.get("shots_split"),
            "from": _source(entry),
            "what": entry.what,
        }
        for entry in entries(folders, "benchmark")
    ]


def experiments(folders: Folders) -> list[Row]:
    """Ready runs."""
    rows = []
    for entry in entries(folders, "experiment"):
        chosen = choice_of(folders, entry.name)
        rows.append(
            {
                "name": entry.name,
                "expert": chosen["expert"],
                "amateur": chosen["amateur"],
                "method": chosen["method"],
                "data": chosen["data"],
                "cost": entry.facts.get("cost") or _published(folders, [chosen]),
                "what": entry.what,
            }
        )
    return rows


def sweeps(folders: Folders) -> list[Row]:
    """Tables of runs."""
    rows = []
    for entry in entries(folders, "sweep"):
        cells = cells_of(folders, entry.content)
        folder = _at(entry.content, "hydra", "sweep", "dir")
        trains = "distill" in entry.content.get("stages", ["distill"])
        rows.append(
            {
                "name": entry.name,
                "runs": len(cells),
                "table": f"{folder}/report" if folder else None,
                "cost": entry.facts.get("cost") or (_published(folders, cells) if trains else None),
                "what": entry.what,
            }
        )
    return rows


KINDS: dict[str, Callable[[Folders], list[Row]]] = {
    "experts": experts,
    "amateurs": amateurs,
    "methods": methods,
    "data": data,
    "benchmarks": benchmarks,
    "experiments": experiments,
    "sweeps": sweeps,
}


def _model(entry: Entry) -> Row:
    count = _number(entry.facts.get("parameters"))
    return {
        "name": entry.name,
        "parameters": count,
        "bf16_bytes": count * _BF16_BYTES if count is not None else None,
        "from": _source(entry),
        "what": entry.what,
    }


def _source(entry: Entry) -> str | None:
    """Where the weights or questions come from."""
    content = entry.content
    path = content.get("path")
    if path == "???":
        return "your file"
    if path:
        return path
    if content.get("package") == "lr_exp" or content.get("format") == "micro":
        return "with this package"
    return content.get("fallback_path")


def _questions(entry: Entry) -> int | None:
    return entry.content.get("count") or _number(entry.facts.get("questions"))


def _number(text: str | None) -> int | None:
    digits = (text or "").replace(",", "")
    return int(digits) if digits.isdecimal() else None


def _published(folders: Folders, cells: list[Choice]) -> str | None:
    hours = published_hours(folders, cells)
    if not hours:
        return None
    part = "" if len(hours) == len(cells) else f" for {len(hours)} of its {len(cells)} runs"
    return f"published: {sum(hours):.3g} h on one H200{part}, without evaluation"

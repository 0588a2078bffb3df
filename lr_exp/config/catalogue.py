"""The options of every config group as rows of facts, read from the YAML files without Hydra.

A file's header is the comment lines before its first key: a description, then facts as
`Key: value`. Hydra composes the same runs but takes a second for each; the tests compare both.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lr_exp.errors import UserError

_FACT = re.compile(r"(Parameters|Questions|Cost|Published hours): (.+)")
_SENTENCE = re.compile(r"(?<=[.:])\s+(?=[A-Z`])")  # where one ends and the next begins


@dataclass(frozen=True)
class Entry:
    """One option of a group."""

    name: str
    what: str  # the header's first sentence
    facts: dict[str, str]  # lower-case key to value
    content: dict[str, Any]  # the YAML as it stands, nothing composed


def entries(group: Path) -> list[Entry]:
    """Every option of a group's folder, by name."""
    return [_entry(path) for path in sorted(group.glob("*.yaml"))]


def _entry(path: Path) -> Entry:
    text = path.read_text("utf-8")
    told, facts = [], {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").removeprefix(" ")
        fact = _FACT.fullmatch(line)
        if fact:
            facts[fact[1].lower()] = fact[2]
        elif not line.startswith((" ", "@package")):
            told.append(line)
    what = _SENTENCE.split(" ".join(told))[0].rstrip(":.")
    return Entry(path.stem, f"{what}." if what else "", facts, load(path))


@cache
def load(path: Path) -> dict[str, Any]:
    """A YAML mapping as it stands: nothing is composed, no `${...}` looked up. To be read only."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping of keys to values.")
    return {str(key): value for key, value in content.items()}


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


def published_hours(conf: Path, cells: Iterable[Choice]) -> list[float]:
    """The paper's hours, without evaluation, of those runs for which it reports them."""
    hours = {
        _groups(choice_of(conf, entry.name)): float(entry.facts["published hours"])
        for entry in entries(conf / "experiment")
        if "published hours" in entry.facts
    }
    found = [hours.get(_groups(cell)) for cell in cells if _is_papers(cell)]
    return [one for one in found if one is not None]


def _groups(cell: Choice) -> tuple[str, ...]:
    return tuple(cell[group] for group in _GROUPS)


def _is_papers(cell: Choice) -> bool:
    return cell.keys() <= _OWN and (cell["method"] == _BY_ITSELF or "experiment" in cell)


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


Row = dict[str, Any]
_BYTES = 2  # of a weight in bfloat16


def experts(conf: Path) -> list[Row]:
    """Models to be taught."""
    return [_model(entry) for entry in entries(conf / "expert")]


def amateurs(conf: Path) -> list[Row]:
    """Models to be compared with; one that leaves out layers has no weights of its own."""
    rows = [_model(entry) for entry in entries(conf / "amateur")]
    for row, entry in zip(rows, entries(conf / "amateur"), strict=True):
        if entry.content.get("drop_layers"):
            row |= {"from": "the expert's own weights", "parameters": 0, "bf16_bytes": 0}
    return rows


def methods(conf: Path) -> list[Row]:
    """What is learned from, which steps, and towards which target."""
    return [
        {
            "name": entry.name,
            "trajectories": entry.content["trajectories"],
            "select": entry.content["select"],
            "target": entry.content["target"],
            "what": entry.what,
        }
        for entry in entries(conf / "method")
    ]


def data(conf: Path) -> list[Row]:
    """Questions to learn from: how many there are, and how many a run takes unless told."""
    return [
        {
            "name": entry.name,
            "questions": _questions(entry),
            "taken": entry.content.get("max_questions") or _questions(entry),
            "from": _source(entry),
            "what": entry.what,
        }
        for entry in entries(conf / "data")
    ]


def benchmarks(conf: Path) -> list[Row]:
    """Questions to be measured on, and how answers are compared."""
    return [
        {
            "name": entry.name,
            "questions": _questions(entry),
            "answer": entry.content.get("answer"),
            "examples_from": entry.content.get("shots_split"),
            "from": _source(entry),
            "what": entry.what,
        }
        for entry in entries(conf / "benchmark")
    ]


def experiments(conf: Path) -> list[Row]:
    """Ready runs."""
    rows = []
    for entry in entries(conf / "experiment"):
        chosen = choice_of(conf, entry.name)
        rows.append(
            {
                "name": entry.name,
                "expert": chosen["expert"],
                "amateur": chosen["amateur"],
                "method": chosen["method"],
                "data": chosen["data"],
                "cost": entry.facts.get("cost") or _published(conf, [chosen]),
                "what": entry.what,
            }
        )
    return rows


def sweeps(conf: Path) -> list[Row]:
    """Tables of runs."""
    rows = []
    for entry in entries(conf / "sweep"):
        cells = cells_of(conf, entry.content)
        trains = "distill" in entry.content.get("stages", ["distill"])
        rows.append(
            {
                "name": entry.name,
                "runs": len(cells),
                "table": entry.content["hydra"]["sweep"]["dir"] + "/report",
                "cost": entry.facts.get("cost") or (_published(conf, cells) if trains else None),
                "what": entry.what,
            }
        )
    return rows


KINDS: dict[str, Callable[[Path], list[Row]]] = {
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
        "bf16_bytes": count * _BYTES if count is not None else None,
        "from": _source(entry),
        "what": entry.what,
    }


def _source(entry: Entry) -> str | None:
    """Where the weights or the questions come from."""
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
    return int(text.replace(",", "")) if text else None


def _published(conf: Path, cells: list[Choice]) -> str | None:
    hours = published_hours(conf, cells)
    if not hours:
        return None
    part = "" if len(hours) == len(cells) else f" for {len(hours)} of its {len(cells)} runs"
    return f"published: {sum(hours):.3g} h on one H200{part}, without evaluation"

"""The kinds of things to choose from, each as rows of facts: one function a kind.

Knows what the settings in the YAML files mean. A row is a flat mapping that JSON can hold; a fact
that is not known is null.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lr_exp.catalogue.cells import cells_of, choice_of, published_hours
from lr_exp.catalogue.files import Entry, entries

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
            "steps": entry.content["steps"],
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
                "cost": entry.facts.get("cost") or _published([chosen]),
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
                "cost": entry.facts.get("cost") or (_published(cells) if trains else None),
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


def _published(cells: list[dict[str, str]]) -> str | None:
    hours = published_hours(cells)
    if not hours:
        return None
    part = "" if len(hours) == len(cells) else f" for {len(hours)} of its {len(cells)} runs"
    return f"published: {sum(hours):.3g} h on one H200{part}, without evaluation"

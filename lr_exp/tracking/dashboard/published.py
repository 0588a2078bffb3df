"""The paper's numbers as Markdown tables, always labelled as published."""

import csv
from importlib.resources import files

from lr_exp.report.names import METHODS, benchmark_label
from lr_exp.report.published import KL_PROFILE

SOURCE = "arXiv 2510.07962"
_TABLES = ("main_results", "efficiency", "ablation", "expertise_gap")
_HEADERS = {
    "average": "average",
    "gap": "gap (points)",
    "hours": "hours",
    "problems": "problems",
    "tuned_tokens": "tuned tokens",
    "gain": "gain (points)",
}
_KL_ROWS = {
    "share_below_0.1": "steps below 0.1 nats",
    "share_above_0.4": "steps above 0.4 nats",
    "kl_mean_other_top1": "mean KL where the models' top tokens differ (nats)",
    "kl_mean_same_top1": "mean KL where the top tokens agree (nats)",
}


def markdown(sweep: str | None) -> str | None:
    """The published table to compare a sweep with; None if there is none."""
    if sweep == "kl_profile":
        rows = [f"| {_KL_ROWS[name]} | {value:g} |" for name, value in KL_PROFILE.items()]
        return "\n".join([f"**Published** ({SOURCE})", "", "| | |", "|---|---|", *rows])
    if sweep not in _TABLES:
        return None
    text = (files("lr_exp.report") / "published" / f"{sweep}.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    columns = list(rows[0])
    lines = [
        _row([_header(name) for name in columns]),
        _row(["---"] * len(columns)),
        *(_row([_cell(name, row[name]) for name in columns]) for row in rows),
    ]
    unit = "" if sweep == "efficiency" else "; accuracies in %"
    return "\n".join([f"**Published** ({SOURCE}{unit})", "", *lines])


def _header(name: str) -> str:
    return _HEADERS.get(name) or benchmark_label(name)


def _cell(name: str, text: str) -> str:
    return METHODS.get(text, text) if name == "method" else text


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

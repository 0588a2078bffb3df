"""Formats the records of `bench.gpu` as Markdown, by the shape of their values."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """A section for each record: when, where and what it measured, or why it failed."""
    return "\n\n".join(map(_section, records)) + "\n" if records else "No step has run yet.\n"


def _section(record: Mapping[str, Any]) -> str:
    commit = record["commit"]
    code = f"commit {commit[:12]}" if commit else f"code {record['code']}"
    where = f"{record['device']}, {record['date']}, {code}, {record['seconds']:,.0f} s"
    lines = [f"### {record['step']}", "", where + (", toy sizes." if record["toy"] else ".")]
    if record["reason"]:
        lines += ["", f"**Failed**: {_cell('', record['reason'])}."]
    facts = [name for name, value in record["results"].items() if not _rows(value)]
    if facts:
        lines += ["", *(f"- {_fact(name, record['results'][name])}" for name in facts)]
    for name, value in record["results"].items():
        if rows := _rows(value):
            lines += ["", *_table(name, rows)]
    return "\n".join(lines)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    """The rows of a list of mappings, or of a mapping of mappings, by name."""
    if isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value.values()):
        return [{"": name, **row} for name, row in value.items()]
    return value if isinstance(value, list) else []


def _table(name: str, rows: list[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [
        "| " + " | ".join(_title(column or name) for column in columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for row in rows:
        cells = (_cell(column, row[column]) if column in row else "" for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    if "" not in columns:
        lines = [f"{_title(name)}:", "", *lines]
    return lines


def _fact(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        parts = ", ".join(f"{_title(key)} {_cell(key, one)}" for key, one in value.items())
        return f"{_title(name)}: {parts}"
    return f"{_title(name)}: {_cell(name, value)}"


def _title(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _cell(name: str, value: Any) -> str:
    """A value as text, with the unit that its name ends in."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return f"{value / 2**30:,.2f} GiB"
        if "share" in name or name == "kept_otherwise":
            return f"{value:.1%}"
        is_whole = isinstance(value, int) or 1e3 <= abs(value) < 1e7
        return f"{value:,.0f}" if is_whole else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")

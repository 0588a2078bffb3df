r"""Renders the templates of a page to one self-contained HTML file.

Every value is escaped, and control and bidirectional characters are spelled out (`\u202e`). The
content security policy allows only the page's own style and script, and images in data URIs.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from os.path import commonprefix
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lr_exp.errors import printable
from lr_exp.report.tables.formats import parts_of
from lr_exp.report.tables.table import REMARK, Table

_MAX_WIDTH = 135  # characters of a table on a screen of 1280 pixels


@dataclass(frozen=True)
class Section:
    """A section of the page, with its entry in the navigation."""

    key: str  # its id, which links point to
    title: str
    content: Markup


def render(template: str, **values: Any) -> Markup:
    """A template's HTML. Raises UndefinedError if it uses a value that was not passed."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))  # noqa: S704  escaped inside


def section(
    key: str, title: str, template: str = "tables_and_figures.html", **values: Any
) -> Section | None:
    """A section from a template; None if all its values are empty."""
    return Section(key, title, render(template, **values)) if any(values.values()) else None


def page(
    title: str, kind: str, head: Markup, sections: Sequence[Section | None], notes: Sequence[str]
) -> str:
    """The whole page; `kind` stands above the heading, `head` below it, `notes` in the footer."""
    return render(
        "page.html",
        title=title,
        kind=kind,
        head=head,
        sections=[section for section in sections if section],
        notes=notes,
        style=_read_file("page.css"),
        script=_read_file("reader.js"),
    )


def _read_file(name: str) -> str:
    return (files("lr_exp.report.page") / name).read_text(encoding="utf-8")


def _spelled_out(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _parts(table: Table) -> list[list[int]]:
    """A table's columns, in parts that fit into 1280 pixels; remarks are broken into lines."""
    every = range(len(table.columns))
    remarks = [i for i in every if table.columns[i].title == REMARK]
    *others, last = parts_of(table, [i for i in every if i not in remarks], _MAX_WIDTH)
    return [*others, last + remarks]


def _gzipped(data: Any) -> str:
    """JSON in gzip in base64: a fifth of the size, and no character that HTML gives a meaning."""
    content = json.dumps(data, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("lr_exp.report.page"),
    autoescape=True,
    finalize=_spelled_out,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "digest": _digest,
    "data_uri": _data_uri,
    "gzipped": _gzipped,
    "parts": _parts,
    "common_prefix": commonprefix,
}

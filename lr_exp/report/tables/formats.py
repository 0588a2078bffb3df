"""Formats tables as Markdown, CSV, LaTeX and plain text.

Names and errors come from users and models. Escaping keeps them from becoming markup, spreadsheet
formulas, LaTeX commands or terminal control sequences.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise

import pandas as pd
import tabulate

from lr_exp.report.tables.table import PUBLISHED, REMARK, Column, Table

tabulate.MIN_PADDING = 0  # headings need no more space than cells
WIDTH = 100  # characters; wider plain tables are split

# Emphasis, code, links, cells and formulas in Markdown; underscores within words are harmless.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Headings, quotations, lists and rules at the start of a line.
_BLOCK = re.compile(r"^((?:\d+(?=[.)](?:\s|$)))?)([#>=.)]|[-+](?![0-9]))")
# The last four are full-width forms of the first four, which some spreadsheets treat alike.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': r"''",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "α": r"$\alpha$",  # noqa: RUF001
    "β": r"$\beta$",
    "–": "--",  # noqa: RUF001
    "…": r"\ldots{}",
}


def one_line(text: str) -> str:
    """Text without line breaks, control characters and lone surrogates."""
    return " ".join("".join(_visible(letter) for letter in text).split())


def _visible(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind == "Cs":
        return "\ufffd"
    return " " if kind in ("Cc", "Cf", "Zl", "Zp") else letter


def markdown_text(text: str) -> str:
    """Text escaped for Markdown and HTML, at any place in a line."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return _BLOCK.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", safe))


def markdown_table(table: Table) -> str:
    """A pipe table."""
    return _aligned(table, "pipe", markdown_text)


def csv_text(table: Table) -> str:
    """The records of a table; formulas are quoted."""
    records = [{key: _no_formula(value) for key, value in one.items()} for one in table.records]
    frame = pd.DataFrame(records, dtype=object)  # keeps integers beside missing values
    return frame.to_csv(index=False, lineterminator="\n")


def _no_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def latex_text(text: str) -> str:
    """Text escaped for LaTeX; letters outside ASCII lose their accents."""
    return "".join(_latex_letter(letter) for letter in one_line(text))


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(c, c) for c in plain) or "?"


def latex_table(table: Table) -> str:
    r"""A `tabular` for `\input`; needs `\usepackage{booktabs}`."""
    columns = table.columns
    under = {column.under for column in columns}
    upper = [latex_text(column.under or column.title) for column in columns]
    lower = [
        column.title if column.under else "ours" if column.title in under else ""
        for column in columns
    ]
    cells = [[_latex_cell(cell) for cell in row] for row in table.rows]
    headings = pd.MultiIndex.from_arrays([upper, lower]) if any(lower) else upper
    text = (
        pd.DataFrame(cells, columns=headings)
        .style.hide(axis="index")
        .to_latex(
            column_format="".join("l" if column.is_text else "r" for column in columns),
            hrules=True,
            multicol_align="c",
        )
    )
    lines = [r"% \usepackage{booktabs}", *text.splitlines()]
    pairs = [
        i for i, (first, second) in enumerate(pairwise(columns), 1) if second.under == first.title
    ]
    if pairs:
        lines.insert(4, " ".join(rf"\cmidrule(lr){{{i}-{i + 1}}}" for i in pairs))
    return "\n".join(lines) + "\n"


def _latex_cell(text: str) -> str:
    r"""A cell, in braces if the preceding `\\` would read it as an argument."""
    cell = latex_text(text)
    return f"{{{cell}}}" if cell.startswith(("[", "*")) else cell


def plain_table(table: Table) -> str:
    """The table for a terminal.

    If it is too wide, published columns and remarks are dropped; if it still is, it is split into
    parts that each repeat the text columns.
    """
    if _fits(table):
        return _plain(table)
    table = table.without(c for c in table.columns if c.title in (PUBLISHED, REMARK))
    names = [column for column in table.columns if column.is_text]
    parts: list[Table] = []
    taken = list(names)
    for column in table.columns:
        if column in names:
            continue
        if taken != names and not _fits(_only(table, [*taken, column])):
            parts.append(_only(table, taken))
            taken = list(names)
        taken.append(column)
    return "\n\n".join(map(_plain, [*parts, _only(table, taken)]))


def _only(table: Table, columns: Sequence[Column]) -> Table:
    return table.without(column for column in table.columns if column not in columns)


def _plain(table: Table) -> str:
    return _aligned(table, "simple", one_line)


def _fits(table: Table) -> bool:
    return max(map(len, _plain(table).splitlines())) <= WIDTH


def _aligned(table: Table, form: str, escape: Callable[[str], str]) -> str:
    text = tabulate.tabulate(
        [[escape(cell) for cell in row] for row in table.rows],
        [escape(column.full_title) for column in table.columns],
        tablefmt=form,
        colalign=["left" if column.is_text else "right" for column in table.columns],
        disable_numparse=True,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())

"""Formats tables as CSV, LaTeX and plain text.

Names and errors come from users and models. Escaping keeps them from becoming markup, spreadsheet
formulas, LaTeX commands or terminal control sequences.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

import pandas as pd
import tabulate

from lr_exp.errors import printable
from lr_exp.report.tables.table import PUBLISHED, REMARK, Table

tabulate.MIN_PADDING = 0  # headings need no more space than cells
WIDTH = 100  # characters; wider plain tables are split

# The last four are full-width forms of the first four, which some spreadsheets treat alike.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# What tabulate does not escape; other letters outside ASCII lose their accents.
_LATEX = str.maketrans(
    {"±": r"$\pm$", "α": r"$\alpha$", "β": r"$\beta$", "–": "--", "|": "$|$", '"': "''"}  # noqa: RUF001
)


def one_line(text: str) -> str:
    """Text without line breaks, with control characters and lone surrogates escaped."""
    return printable(" ".join(text.split()))


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


def latex_table(table: Table) -> str:
    r"""A `tabular` for `\input`; needs `\usepackage{booktabs}`."""
    text = _aligned(table, range(len(table.columns)), "latex_booktabs", _compatible)
    # In braces, for the line break before it would read a row's first `[` or `*` as its argument.
    text = re.sub(r"^ *([\[*])", r"{\1}", text.translate(_LATEX), flags=re.MULTILINE)
    return f"% \\usepackage{{booktabs}}\n{text.encode('ascii', 'replace').decode()}\n"


def _compatible(text: str) -> str:
    """On one line, with compatible letters for full-width forms, ligatures and accents."""
    letters = unicodedata.normalize("NFKD", one_line(text))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def plain_table(table: Table) -> str:
    """The table for a terminal, without remarks.

    A wide one has no published columns and is split into parts that each repeat the text columns.
    """
    shown = [i for i, column in enumerate(table.columns) if column.title != REMARK]
    if _width(table, shown) > WIDTH:
        shown = [i for i in shown if table.columns[i].title != PUBLISHED]
    parts = parts_of(table, shown, WIDTH)
    return "\n\n".join(_aligned(table, part, "simple", one_line) for part in parts)


def parts_of(table: Table, shown: Sequence[int], width: int) -> list[list[int]]:
    """These columns in parts of at most `width` characters that each repeat the text columns."""
    names = [i for i in shown if table.columns[i].is_text]
    parts = [names]
    for i in shown:
        if i not in names:
            if parts[-1] != names and _width(table, [*parts[-1], i]) > width:
                parts.append(names)
            parts[-1] = [*parts[-1], i]
    return parts


def _width(table: Table, columns: Sequence[int]) -> int:
    return len(_aligned(table, columns, "simple", one_line).partition("\n")[0])


def _aligned(table: Table, columns: Sequence[int], form: str, escape: Callable[[str], str]) -> str:
    text = tabulate.tabulate(
        [[escape(row[i]) for i in columns] for row in table.rows],
        [escape(table.columns[i].full_title) for i in columns],
        tablefmt=form,
        colalign=["left" if table.columns[i].is_text else "right" for i in columns],
        disable_numparse=True,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())

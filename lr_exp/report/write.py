"""Formats tables as Markdown, CSV, LaTeX and plain text.

Names and errors come from users and models. Escaping keeps them from becoming markup, spreadsheet
formulas, LaTeX commands or terminal control sequences.
"""

import re
import unicodedata

import pandas as pd

from lr_exp.report.tables.table import PUBLISHED, REMARK, Column, Table

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
    return " ".join("".join(_plain(letter) for letter in text).split())


def _plain(letter: str) -> str:
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
    head = [markdown_text(column.full_title) for column in table.columns]
    rule = [":--" if column.is_text else "--:" for column in table.columns]
    lines = [head, rule, *([markdown_text(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    form = "".join("l" if column.is_text else "r" for column in table.columns)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
    lines += [
        *_latex_head(table.columns),
        r"\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(text: str) -> str:
    r"""A cell, in braces if the preceding `\\` would read it as an argument."""
    cell = latex_text(text)
    return f"{{{cell}}}" if cell.startswith(("[", "*")) else cell


def _latex_head(columns: list[Column]) -> list[str]:
    """One line of headings, or two if there are published columns beside ours."""
    spans: list[tuple[str, list[Column]]] = []
    for column in columns:
        if column.under is not None and spans and spans[-1][1][0].title == column.under:
            spans[-1][1].append(column)
        else:
            spans.append((column.full_title, [column]))
    if all(len(below) == 1 for _, below in spans):
        return [" & ".join(latex_text(title) for title, _ in spans) + r" \\"]
    upper, lower, rules, place = [], [], [], 1
    for title, below in spans:
        if len(below) == 1:
            upper.append(latex_text(title))
            lower.append("")
        else:
            upper.append(rf"\multicolumn{{{len(below)}}}{{c}}{{{latex_text(title)}}}")
            lower += ["ours", *(latex_text(column.title) for column in below[1:])]
            rules.append(rf"\cmidrule(lr){{{place}-{place + len(below) - 1}}}")
        place += len(below)
    return [" & ".join(upper) + r" \\", " ".join(rules), " & ".join(lower) + r" \\"]


def plain_table(table: Table) -> str:
    """The table for a terminal.

    If it is too wide, published columns and remarks are dropped; if it still is, it is split into
    parts that each repeat the text columns.
    """
    whole = _aligned(table)
    if max(map(len, whole)) <= WIDTH:
        return "\n".join(whole)
    table = table.without([c for c in table.columns if c.title in (PUBLISHED, REMARK)])
    names = [column for column in table.columns if column.is_text]
    parts: list[list[str]] = []
    taken: list[Column] = []
    for column in table.columns:
        if column in names:
            continue
        wider = _aligned(table, [*names, *taken, column])
        if taken and max(map(len, wider)) > WIDTH:
            parts.append(_aligned(table, names + taken))
            taken = []
        taken.append(column)
    parts.append(_aligned(table, names + taken))
    return "\n\n".join("\n".join(part) for part in parts)


def _aligned(table: Table, columns: list[Column] | None = None) -> list[str]:
    if columns is not None:
        table = table.without([column for column in table.columns if column not in columns])
    head = [one_line(column.full_title) for column in table.columns]
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    aligned = []
    for line in lines:
        cells = [
            cell.ljust(width) if column.is_text else cell.rjust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ]
        aligned.append("  ".join(cells).rstrip())
    return aligned

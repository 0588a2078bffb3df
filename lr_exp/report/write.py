"""Tables as text: Markdown, CSV, LaTeX, and plain for a terminal, each with its escaping.

Names and errors come from users and models: nothing of them may become markup, a formula of a
spreadsheet, a command of LaTeX, or a control sequence of a terminal.
"""

import re
import unicodedata

import pandas as pd

from lr_exp.report.tables.table import PUBLISHED, REMARK, Column, Table

WIDTH = 100  # columns of a terminal that a table should fit

# What opens emphasis, code, links, cells or formulas; an underscore within a word opens nothing.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# What opens a heading, quotation, list or rule at the beginning of a line.
_BLOCK = re.compile(r"^((?:\d+(?=[.)](?:\s|$)))?)([#>=.)]|[-+](?![0-9]))")
# The last four are the wide forms of the first, which some spreadsheets take for them.
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
    """Text without line ends and control characters, which a terminal would obey.

    Halves of surrogate pairs, which no file can hold, become the replacement character.
    """
    shown = "".join(_plain(letter) for letter in text)
    return " ".join(shown.split())


def _plain(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind == "Cs":
        return "\ufffd"
    return " " if kind in ("Cc", "Cf", "Zl", "Zp") else letter


def markdown_text(text: str) -> str:
    """Text that Markdown and HTML show as it is, wherever it stands in a line."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return _BLOCK.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", safe))


def markdown_table(table: Table) -> str:
    """A pipe table."""
    head = [markdown_text(column.full_title) for column in table.columns]
    rule = [":--" if column.is_text else "--:" for column in table.columns]
    lines = [head, rule, *([markdown_text(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_text(table: Table) -> str:
    """The raw numbers, one record a line; text that a spreadsheet would run is made plain."""
    records = [{key: _no_formula(value) for key, value in one.items()} for one in table.records]
    frame = pd.DataFrame(records, dtype=object)  # object: a count beside a gap stays whole
    return frame.to_csv(index=False, lineterminator="\n")


def _no_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is; letters that its default fonts lack lose their accents."""
    return "".join(_latex_letter(letter) for letter in one_line(text))


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(c, c) for c in plain) or "?"


def latex_table(table: Table) -> str:
    r"""A `tabular` to `\input`; it needs `\usepackage{booktabs}` and nothing else."""
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
    """A cell; an opening bracket would be read as an argument of the line end before it."""
    told = latex_text(text)
    return f"{{{told}}}" if told.startswith(("[", "*")) else told


def _latex_head(columns: list[Column]) -> list[str]:
    """One line of headings, or two where a published column stands beside ours."""
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
    """The table for a terminal; one that is too wide goes without published columns and remarks.

    What is too wide even so is shown in parts, each with the columns that name its rows.
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

"""Renders a report table as HTML."""

from lr_exp.report.names import ABSENT
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.tables.table import PUBLISHED, REMARK, Column, Table

_MAX_ROWS = 300
_MAX_CELL_CHARS = 240


def html_table(table: Table, *, level: int = 3, strong_last: bool = False) -> Html:
    """The table between its title and its notes; wide tables scroll on their own.

    Args:
        table: the table.
        level: heading level of the title.
        strong_last: emphasize the last row, which sums up the others.
    """
    shown = table.rows[:_MAX_ROWS]
    body = [
        tag(
            "tr",
            [_cell(cell, column, i == 0) for i, (cell, column) in enumerate(_pairs(table, row))],
            class_="sum" if strong_last and number == len(table.rows) - 1 else None,
        )
        for number, row in enumerate(shown)
    ]
    notes = list(table.notes)
    if len(shown) < len(table.rows):
        left = len(table.rows) - len(shown)
        notes.append(f"{left:,} more rows are in {table.name}.csv beside report.md.")
    return join(
        tag(f"h{level}", table.title),
        scrolling(
            tag(
                "table",
                tag("caption", table.title, class_="unseen"),
                tag("thead", _head(table.columns)),
                tag("tbody", body),
            ),
            table.title,
        ),
        [tag("p", note, class_="note") for note in notes],
    )


def turned(table: Table) -> Table:
    """Transposes a table of one row; returns any other table unchanged."""
    if len(table.rows) != 1:
        return table
    (row,) = table.rows
    cells = [[column.full_title, cell] for column, cell in zip(table.columns, row, strict=True)]
    named = table.columns[0].is_text
    columns = [Column("", is_text=True), Column(row[0] if named else "")]
    shown = [cell for cell in cells[named:] if cell[1]]
    return Table(table.name, table.title, columns, shown, table.records, table.notes)


def scrolling(table: Child, name: str) -> Html:
    """A frame that scrolls sideways, also by keyboard, so that the page does not."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def _pairs(table: Table, row: list[str]) -> list[tuple[str, Column]]:
    return list(zip(row, table.columns, strict=True))


def _cell(cell: str, column: Column, names_the_row: bool) -> Html:
    shown = cell if len(cell) <= _MAX_CELL_CHARS else f"{cell[: _MAX_CELL_CHARS - 1]}…"
    look = [_look(column)] if _look(column) else []
    if cell == ABSENT:
        look.append("absent")
    if names_the_row:
        return tag("th", tag("bdi", shown), scope="row")
    return tag("td", tag("bdi", shown) if column.is_text else shown, class_=" ".join(look) or None)


def _look(column: Column) -> str:
    if column.is_text:
        return "words long" if column.title == REMARK else "words"
    return "published" if column.title == PUBLISHED else ""


def _head(columns: list[Column]) -> list[Html]:
    """One row of headings, or two where a published column is next to ours."""
    groups: list[list[Column]] = []
    for column in columns:
        if column.under is not None and groups and groups[-1][0].title == column.under:
            groups[-1].append(column)
        else:
            groups.append([column])
    if all(len(group) == 1 for group in groups):
        return [tag("tr", [_heading(group[0]) for group in groups])]
    upper, lower = [], []
    for first, *others in groups:
        if others:
            span = len(others) + 1
            upper.append(tag("th", first.title, colspan=span, scope="colgroup", class_="group"))
            lower.append(tag("th", "ours", scope="col"))
            lower += [tag("th", one.title, scope="col", class_=_look(one)) for one in others]
        else:
            upper.append(_heading(first, rowspan=2))
    return [tag("tr", upper), tag("tr", lower)]


def _heading(column: Column, rowspan: int | None = None) -> Html:
    return tag("th", column.full_title, scope="col", rowspan=rowspan, class_=_look(column) or None)

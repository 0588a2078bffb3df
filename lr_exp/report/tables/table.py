"""A table before it is Markdown, CSV or LaTeX: columns, cells as text, and the raw numbers.

Knows formatting of numbers; knows nothing of files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lr_exp.report.names import ABSENT, Setup
from lr_exp.report.paired import Estimate

PUBLISHED = "published"
REMARK = "remark"  # of a column of sentences
_LEAST_P = 1e-4
_REMARK_LENGTH = 70  # characters of a remark that stand in a table; the lists of cells have all


@dataclass(frozen=True)
class Column:
    """A heading; `under` is the column that a published one belongs to."""

    title: str
    under: str | None = None
    is_text: bool = False

    @property
    def full_title(self) -> str:
        return f"{self.under} {self.title}" if self.under else self.title


@dataclass(frozen=True)
class Table:
    """What is shown, and the records of its CSV file."""

    name: str  # of its files
    title: str
    columns: list[Column]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def without(self, unwanted: Iterable[Column]) -> "Table":
        """The same with fewer columns."""
        gone = list(unwanted)
        keep = [i for i, column in enumerate(self.columns) if column not in gone]
        return Table(
            self.name,
            self.title,
            [self.columns[i] for i in keep],
            [[row[i] for i in keep] for row in self.rows],
            self.records,
            self.notes,
        )


def without_empty(table: Table) -> Table:
    """The table without columns that no row has anything in."""
    empty = [
        column
        for i, column in enumerate(table.columns)
        if all(row[i] in (ABSENT, "") for row in table.rows)
    ]
    return table.without(empty)


def without_lone_expert(table: Table) -> Table:
    """The table without its column of experts, where that says the same in each row."""
    column = table.columns[0]
    alone = column.title == "expert" and len({row[0] for row in table.rows}) == 1
    return table.without([column]) if alone else table


def percent(estimate: Estimate | None) -> str:
    """`54.2 ± 0.9` of a share."""
    if estimate is None:
        return ABSENT
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.stderr:.1f}"


def points(estimate: Estimate | None) -> str:
    """`+11.8 ± 0.9` of a difference of shares."""
    if estimate is None:
        return ABSENT
    return f"{signed(100 * estimate.mean)} ± {100 * estimate.stderr:.1f}"


def signed(value: float) -> str:
    """`+11.8`; what rounds to nothing is +0.0, never -0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def between(low: float, high: float) -> str:
    """`+2.1 to +9.8`, the ends of an interval of shares, in points."""
    return f"{signed(100 * low)} to {signed(100 * high)}"


def p_value(value: float) -> str:
    """`0.031`; what no reader needs to the last digit is `< 0.0001`."""
    return f"< {_LEAST_P}" if value < _LEAST_P else f"{value:.2g}"


def number(value: float | None, form: str = ".1f") -> str:
    return ABSENT if value is None else format(value, form)


def remark(remarks: Iterable[str]) -> str:
    """What is to be said of a row's seeds, each remark cut to what a table can hold."""
    return "; ".join(
        text if len(text) <= _REMARK_LENGTH else f"{text[: _REMARK_LENGTH - 1]}…"
        for text in remarks
    )


def scaled(value: float | None, factor: float = 100.0) -> float | None:
    """A share in percent for a CSV file, without the digits that the factor alone makes."""
    return None if value is None else round(value * factor, 10)


def setup_record(setup: Setup, label: str) -> dict[str, Any]:
    """What a row is of, as the first columns of a CSV file."""
    return {
        "expert": setup.expert,
        "amateur": setup.amateur,
        "data": setup.data,
        "method": setup.method,
        "variant": label,
        "alpha": setup.alpha,
        "beta": setup.beta,
        "decoder": setup.decoder,
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

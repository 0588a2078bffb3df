"""A table with its cells as text and its raw numbers, and the formatting of numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lr_exp.report.names import ABSENT, Setup
from lr_exp.report.paired import Estimate

PUBLISHED = "published"
REMARK = "remark"
_MIN_P = 1e-4  # smaller p-values are shown as less than this
_MAX_REMARK = 70  # characters of a remark in a table; the list of runs has all of it


@dataclass(frozen=True)
class Column:
    """A column heading; a published column is `under` the measured one."""

    title: str
    under: str | None = None
    is_text: bool = False

    @property
    def full_title(self) -> str:
        return f"{self.under} {self.title}" if self.under else self.title


@dataclass(frozen=True)
class Table:
    """The cells that are shown, and the records of the CSV file."""

    name: str  # of the files
    title: str
    columns: list[Column]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def without(self, unwanted: Iterable[Column]) -> "Table":
        """The table without some columns."""
        dropped = list(unwanted)
        keep = [i for i, column in enumerate(self.columns) if column not in dropped]
        return Table(
            self.name,
            self.title,
            [self.columns[i] for i in keep],
            [[row[i] for i in keep] for row in self.rows],
            self.records,
            self.notes,
        )


def without_empty(table: Table) -> Table:
    """The table without columns that are empty in every row."""
    empty = [
        column
        for i, column in enumerate(table.columns)
        if all(row[i] in (ABSENT, "") for row in table.rows)
    ]
    return table.without(empty)


def without_lone_expert(table: Table) -> Table:
    """The table without its expert column, if all rows have the same expert."""
    column = table.columns[0]
    is_constant = column.title == "expert" and len({row[0] for row in table.rows}) == 1
    return table.without([column]) if is_constant else table


def percent(estimate: Estimate | None) -> str:
    """A share as `54.2 ± 0.9`."""
    if estimate is None:
        return ABSENT
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.stderr:.1f}"


def points(estimate: Estimate | None) -> str:
    """A difference of shares as `+11.8 ± 0.9`."""
    if estimate is None:
        return ABSENT
    return f"{signed(100 * estimate.mean)} ± {100 * estimate.stderr:.1f}"


def signed(value: float) -> str:
    """`+11.8`; zero is +0.0, never -0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def between(low: float, high: float) -> str:
    """An interval of shares in points, `+2.1 to +9.8`."""
    return f"{signed(100 * low)} to {signed(100 * high)}"


def p_value(value: float) -> str:
    """`0.031`, or `< 0.0001`."""
    return f"< {_MIN_P}" if value < _MIN_P else f"{value:.2g}"


def number(value: float | None, form: str = ".1f") -> str:
    return ABSENT if value is None else format(value, form)


def remark(remarks: Iterable[str]) -> str:
    """A row's remarks, each truncated to fit a table."""
    return "; ".join(
        text if len(text) <= _MAX_REMARK else f"{text[: _MAX_REMARK - 1]}…" for text in remarks
    )


def scaled(value: float | None, factor: float = 100.0) -> float | None:
    """A share in percent for a CSV file, without digits from floating-point scaling."""
    return None if value is None else round(value * factor, 10)


def setup_record(setup: Setup, label: str) -> dict[str, Any]:
    """The setup of a row as the first columns of a CSV file."""
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
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

"""A table with its cells as text and its raw numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row
from lr_exp.report.names import ABSENT, benchmark_label
from lr_exp.report.tables import cell

PUBLISHED = "published"
REMARK = "remark"


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
    section: str | None = None  # of a run's page; None: only in the report of a sweep
    bold: frozenset[int] = frozenset()  # rows that a page shows in bold

    @property
    def has_published(self) -> bool:
        """Whether it has numbers of the paper."""
        return any(column.title == PUBLISHED for column in self.columns)


Filled = tuple[Column, list[str]]  # a column and its cells


def table_of(
    name: str,
    title: str,
    columns: Sequence[Filled],
    records: list[dict[str, Any]],
    notes: Sequence[str] = (),
    section: str | None = None,
) -> Table:
    """A table from its columns, without those that are empty in every row."""
    filled = [one for one in columns if any(text not in (ABSENT, "") for text in one[1])]
    rows = [list(row) for row in zip(*(cells for _, cells in filled), strict=True)]
    shown = [column for column, _ in filled]
    return Table(name, title, shown, rows, records, list(notes), section)


def text_column(title: str, cells: Iterable[str]) -> Filled:
    return Column(title, is_text=True), list(cells)


def label_columns(rows: Sequence[Row], benchmarks: Sequence[str] | None = None) -> list[Filled]:
    """The first columns of a table; the expert only if there are several.

    Args:
        benchmarks: each row's, in a table with one row per benchmark.
    """
    experts = [row.setup.expert for row in rows]
    named = [text_column("expert", experts)] if len(set(experts)) > 1 else []
    columns = [*named, text_column("variant", [row.label for row in rows])]
    if benchmarks is None:
        return columns
    return [*columns, text_column("benchmark", map(benchmark_label, benchmarks))]


@dataclass(frozen=True)
class Line:
    """A variant's line in a table with one line per benchmark."""

    row: Row
    benchmark: str
    cells: dict[str, str]  # by column title
    record: dict[str, Any]  # for the CSV file


def table_by_benchmark(
    name: str, title: str, lines: Sequence[Line], about: str, texts: Sequence[str] = ()
) -> Table | None:
    """A table of lines; None if there are none. `texts` are the titles of text columns."""
    if not lines:
        return None
    columns = label_columns([one.row for one in lines], [one.benchmark for one in lines])
    for key in dict.fromkeys(key for one in lines for key in one.cells):
        cells = [one.cells.get(key, ABSENT) for one in lines]
        columns.append((Column(key, is_text=key in texts), cells))
    records = [setup_record(one.row) | {"benchmark": one.benchmark} | one.record for one in lines]
    return table_of(name, title, columns, records, [about], "results")


def with_published(
    title: str, cells: Iterable[str], rows: Sequence[Row], key: str, form: str = ".1f"
) -> list[Filled]:
    """A column with the published numbers beside it; an asterisk marks rows with other settings."""
    marked = [
        cell.asterisked(cell.number(row.published.get(key), form), row.paper_differences)
        for row in rows
    ]
    return [(Column(title), list(cells)), (Column(PUBLISHED, under=title), marked)]


def notes_on_differences(labelled: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The notes that the asterisks refer to: one for all labels with the same differences."""
    return [
        f"* {', '.join(dict.fromkeys(label for label, _ in own))}: {'; '.join(differs)}."
        for differs, own in grouped(labelled, lambda pair: pair[1]).items()
        if differs
    ]


def notes_on_rows(rows: Iterable[Row]) -> list[str]:
    """The notes for rows with a published number."""
    return notes_on_differences((row.full_label, row.paper_differences) for row in rows)


def estimate_record(
    name: str, estimate: Estimate | None, stderr: str | None = None
) -> dict[str, float | None]:
    """A share in percent with its error and its 95 % interval, for a CSV file."""
    low, high = estimate.ci95 if estimate else (None, None)
    values = {
        name: estimate and estimate.mean,
        stderr or f"{name}_stderr": estimate and estimate.stderr,
        f"{name}_low": low,
        f"{name}_high": high,
    }
    return {key: None if value is None else cell.scaled(value) for key, value in values.items()}


def setup_record(row: Row) -> dict[str, Any]:
    """The first columns of a row in a CSV file: its setup, number of seeds and remarks."""
    setup = asdict(row.setup)
    return {
        **dict(setup.pop("swept")),
        **setup,
        "variant": row.label,
        "seeds": None if row.is_baseline else len(row.seeds),
        "seeds_run": None if row.is_baseline else row.seed_count,
        "remark": row.remark,
    }

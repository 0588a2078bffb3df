"""Accuracy of every variant on every benchmark, beside the published numbers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    REMARK,
    Column,
    Filled,
    Table,
    estimate_record,
    label_columns,
    notes_on_rows,
    setup_record,
    table_of,
    text_column,
    with_published,
)

_TITLES = {
    "main_results": "Main results",
    "ablation": "Ablation",
    "baselines": "Baselines",
    "contrastive_decoding": "Contrastive decoding",
}


def accuracy_table(sweep: Sweep, name: str) -> Table | None:
    """Rows are variants, columns benchmarks; None if nothing was evaluated."""
    # Rows without an accuracy have a remark on why.
    rows = [row for row in sweep.rows if row.results.accuracies or row.remark]
    if not rows:
        return None
    columns = label_columns(rows)
    for key in [*sweep.benchmarks, AVERAGE]:
        cells = [cell.percent(_measured(row, sweep.benchmarks)[key]) for row in rows]
        columns += with_published(benchmark_label(key), cells, rows, key)
    columns.append((Column("gain"), [cell.points(row.gain) for row in rows]))
    totals = [sum(one.questions for one in row.results.accuracies.values()) for row in rows]
    columns.append((Column("n"), [str(total or ABSENT) for total in totals]))
    columns += seeds_and_remarks(rows)
    records = [record for row in rows for record in _records(row, sweep.benchmarks)]
    title = _TITLES.get(sweep.table, "Results")
    table = table_of(name, title, columns, records, _notes(rows, sweep.benchmarks))
    best = sweep.best
    bold = frozenset(number for number, row in enumerate(rows) if row in best)
    # A run's page has its measured numbers in a table of its own.
    return replace(table, section="results" if table.has_published else None, bold=bold)


def _measured(row: Row, benchmarks: list[str]) -> dict[str, Estimate | None]:
    """Accuracies by benchmark, then the average."""
    return {name: row.results.accuracies.get(name) for name in benchmarks} | {AVERAGE: row.average}


def seeds_and_remarks(rows: Sequence[Row]) -> list[Filled]:
    """The last columns of a table of rows."""
    remarks = [cell.remark(row.remarks) for row in rows]
    return [(Column("seeds"), list(map(_seeds, rows))), text_column(REMARK, remarks)]


def _seeds(row: Row) -> str:
    """How many seeds are averaged, `2/3` if some are missing; without results, the seeds."""
    if row.is_baseline:
        return ABSENT  # independent of the seed
    if not row.seeds:
        return ", ".join(f"seed {seed}" for seed in row.missing_seeds if seed is not None) or ABSENT
    return f"{len(row.seeds)}/{row.seed_count}" if row.missing_seeds else str(len(row.seeds))


def _records(row: Row, benchmarks: list[str]) -> list[dict[str, Any]]:
    """One record per benchmark and one for the average, in percent and points."""
    differences = "; ".join(row.paper_differences)
    records = [
        {
            **setup_record(row),
            "benchmark": name,
            **estimate_record("accuracy", estimate, "stderr"),
            "published": row.published.get(name),
            "published_differs": differences if name in row.published else None,
            "n": estimate.questions,
            **estimate_record("gain", row.gain if name == AVERAGE else None),
        }
        for name, estimate in _measured(row, benchmarks).items()
        if estimate is not None
    ]
    return records or [setup_record(row)]


def _notes(rows: Sequence[Row], benchmarks: Sequence[str]) -> list[str]:
    """Number of questions of each benchmark, and settings that differ from the paper's."""
    counted = []
    for name in benchmarks:
        measured = [row.results.accuracies.get(name) for row in rows]
        counts = {estimate.questions for estimate in measured if estimate}
        counted += [f"{benchmark_label(name)} {count}" for count in sorted(counts)]
    beside = [row for row in rows if row.published.keys() & set(benchmarks)]
    return [*([f"Questions: {', '.join(counted)}."] if counted else []), *notes_on_rows(beside)]

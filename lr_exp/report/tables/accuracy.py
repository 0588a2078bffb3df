"""Accuracy of every variant on every benchmark, beside the published numbers."""

from collections.abc import Sequence
from typing import Any

from lr_exp.report import published
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.tables.table import (
    REMARK,
    Column,
    Filled,
    Table,
    estimate_record,
    notes_on_rows,
    percent,
    points,
    remark,
    setup_record,
    table_of,
    text_column,
    with_published,
    without_lone_expert,
)

_TITLES = {
    "main_results": "Main results",
    "ablation": "Ablation",
    "baselines": "Baselines",
    "contrastive_decoding": "Contrastive decoding",
}


def accuracy_table(sweep: Sweep, name: str) -> Table | None:
    """Rows are variants, columns benchmarks; None if nothing was evaluated."""
    rows = evaluated_rows(sweep)
    if not rows:
        return None
    columns = [
        text_column("expert", [row.setup.expert for row in rows]),
        text_column("variant", [row.label for row in rows]),
        *result_columns(rows, sweep.benchmarks),
    ]
    records = [record for row in rows for record in result_records(row, sweep.benchmarks)]
    title = _TITLES.get(sweep.table, "Results")
    notes = result_notes(rows, sweep.benchmarks)
    return without_lone_expert(table_of(name, title, columns, records, notes))


def evaluated_rows(sweep: Sweep) -> list[Row]:
    """Rows with an accuracy, or with a remark on why they have none."""
    return [row for row in sweep.rows if row.results.accuracies or row.remark]


def result_columns(rows: Sequence[Row], benchmarks: list[str]) -> list[Filled]:
    """Accuracies, measured and published, with average, gain, n, seeds and remark."""
    columns: list[Filled] = []
    for name in benchmarks:
        cells = [percent(row.results.accuracies.get(name)) for row in rows]
        numbers = [published.accuracies(row.published_setup).get(name) for row in rows]
        columns += with_published(benchmark_label(name), cells, rows, numbers)
    averages = [published.average(row.published_setup, benchmarks) for row in rows]
    columns += with_published(AVERAGE, [percent(row.average) for row in rows], rows, averages)
    totals = [sum(one.questions for one in row.results.accuracies.values()) for row in rows]
    return [
        *columns,
        (Column("gain"), [points(row.gain) for row in rows]),
        (Column("n"), [str(total or ABSENT) for total in totals]),
        *seeds_and_remarks(rows),
    ]


def seeds_and_remarks(rows: Sequence[Row]) -> list[Filled]:
    """The last columns of a table of rows."""
    remarks = [remark(row.remarks) for row in rows]
    return [(Column("seeds"), list(map(_seeds, rows))), text_column(REMARK, remarks)]


def _seeds(row: Row) -> str:
    """How many seeds are averaged, `2/3` if some are missing; without results, the seeds."""
    if row.is_baseline:
        return ABSENT  # independent of the seed
    if not row.seeds:
        return ", ".join(f"seed {seed}" for seed in row.missing_seeds if seed is not None) or ABSENT
    return f"{len(row.seeds)}/{row.seed_count}" if row.missing_seeds else str(len(row.seeds))


def result_records(row: Row, benchmarks: list[str]) -> list[dict[str, Any]]:
    """One record per benchmark and one for the average, in percent and points."""
    setup = setup_record(row.setup, row.label)
    if not row.results.accuracies:
        return [setup | {"benchmark": None, "remark": row.remark}]
    estimates = {name: row.results.accuracies.get(name) for name in benchmarks}
    known: dict[str, float | None] = {**published.accuracies(row.published_setup)}
    known[AVERAGE] = published.average(row.published_setup, benchmarks)
    differences = "; ".join(row.paper_differences)
    rows = []
    for name, estimate in {**estimates, AVERAGE: row.average}.items():
        if estimate is None:
            continue
        rows.append(
            setup
            | {
                "benchmark": name,
                **estimate_record("accuracy", estimate, "stderr"),
                "published": known.get(name),
                "published_differs": None if known.get(name) is None else differences,
                "n": estimate.questions,
                "seeds": None if row.is_baseline else estimate.seeds,
                "seeds_run": None if row.is_baseline else row.seed_count,
                **estimate_record("gain", row.gain if name == AVERAGE else None),
                "remark": row.remark,
            }
        )
    return rows


def result_notes(rows: Sequence[Row], benchmarks: Sequence[str]) -> list[str]:
    """Number of questions of each benchmark, and settings that differ from the paper's."""
    counted = []
    for name in benchmarks:
        measured = [row.results.accuracies.get(name) for row in rows]
        counts = {estimate.questions for estimate in measured if estimate}
        counted += [f"{benchmark_label(name)} {count}" for count in sorted(counts)]
    beside = [
        row for row in rows if published.accuracies(row.published_setup).keys() & set(benchmarks)
    ]
    return [*([f"Questions: {', '.join(counted)}."] if counted else []), *notes_on_rows(beside)]

"""Accuracy of every variant on every benchmark, beside the published numbers."""

from collections.abc import Sequence
from typing import Any

from lr_exp.report import published
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.tables.beside import asterisked, differing_rows
from lr_exp.report.tables.table import (
    PUBLISHED,
    REMARK,
    Column,
    Table,
    number,
    percent,
    points,
    remark,
    scaled,
    setup_record,
    without_empty,
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
    rows = [row for row in sweep.rows if row.results.accuracies or row.remark]
    if not rows:
        return None
    columns = [
        Column("expert", is_text=True),
        Column("variant", is_text=True),
        *result_columns(sweep.benchmarks),
    ]
    cells = [[row.setup.expert, row.label, *result_cells(row, sweep.benchmarks)] for row in rows]
    table = Table(
        name,
        _TITLES.get(sweep.table, "Results"),
        columns,
        cells,
        [record for row in rows for record in records(row, sweep.benchmarks)],
        notes(rows, sweep.benchmarks),
    )
    return without_lone_expert(without_empty(table))


def result_columns(benchmarks: Sequence[str]) -> list[Column]:
    """Columns of `result_cells`."""
    columns = []
    for label in [*map(benchmark_label, benchmarks), AVERAGE]:
        columns += [Column(label), Column(PUBLISHED, under=label)]
    return [*columns, Column("gain"), Column("n"), Column("seeds"), Column(REMARK, is_text=True)]


def result_cells(row: Row, benchmarks: Sequence[str]) -> list[str]:
    """Accuracies, measured and published, with average, gain, n, seeds and remark."""
    cells = []
    known = published.accuracies(row.papers)
    for name in benchmarks:
        cells += [percent(row.results.accuracies.get(name)), _beside(row, known.get(name))]
    cells += [percent(row.average), _beside(row, published.average(row.papers, list(benchmarks)))]
    total = sum(estimate.questions for estimate in row.results.accuracies.values())
    return [*cells, points(row.gain), str(total or ABSENT), seeds_cell(row), remark(row.remarks)]


def _beside(row: Row, value: float | None) -> str:
    return asterisked(number(value), row.differs)


def seeds_cell(row: Row) -> str:
    """How many seeds are averaged, `2/3` if some are lost; without results, the lost seeds."""
    if row.is_baseline:
        return ABSENT  # independent of the seed
    if not row.seeds:
        return ", ".join(f"seed {seed}" for seed in row.lost if seed is not None) or ABSENT
    return f"{len(row.seeds)}/{row.asked}" if row.lost else str(len(row.seeds))


def records(row: Row, benchmarks: Sequence[str]) -> list[dict[str, Any]]:
    """One record per benchmark and one for the average, in percent and points."""
    setup = setup_record(row.setup, row.label)
    if not row.results.accuracies:
        return [setup | {"benchmark": None, "remark": row.remark}]
    known = published.accuracies(row.papers)
    differs = "; ".join(row.differs)
    estimates = {name: row.results.accuracies.get(name) for name in benchmarks}
    rows = []
    for name, estimate in {**estimates, AVERAGE: row.average}.items():
        if estimate is None:
            continue
        is_average = name == AVERAGE
        paper = published.average(row.papers, list(benchmarks)) if is_average else known.get(name)
        rows.append(
            setup
            | {
                "benchmark": name,
                "accuracy": scaled(estimate.mean),
                "stderr": scaled(estimate.stderr),
                "published": paper,
                "published_differs": None if paper is None else differs,
                "n": estimate.questions,
                "seeds": None if row.is_baseline else estimate.seeds,
                "seeds_asked": None if row.is_baseline else row.asked,
                "gain": scaled(row.gain.mean) if is_average and row.gain else None,
                "gain_stderr": scaled(row.gain.stderr) if is_average and row.gain else None,
                "remark": row.remark,
            }
        )
    return rows


def notes(rows: Sequence[Row], benchmarks: Sequence[str]) -> list[str]:
    """Number of questions of each benchmark, and settings that differ from the paper's."""
    counted = []
    for name in benchmarks:
        counts = {
            row.results.accuracies[name].questions for row in rows if name in row.results.accuracies
        }
        counted += [f"{benchmark_label(name)} {count}" for count in sorted(counts)]
    beside = [row for row in rows if published.accuracies(row.papers).keys() & set(benchmarks)]
    return [
        *([f"Questions: {', '.join(counted)}."] if counted else []),
        *differing_rows(beside),
    ]

"""Accuracy of every variant on every benchmark, ours beside the published.

Knows rows and the paper's numbers. Serves all tables of accuracies, the expertise gap's too.
"""

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
    """Rows are variants, columns benchmarks; None where nothing was evaluated."""
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
    """Headings of `result_cells`."""
    columns = []
    for label in [*map(benchmark_label, benchmarks), AVERAGE]:
        columns += [Column(label), Column(PUBLISHED, under=label)]
    return [*columns, Column("gain"), Column("n"), Column("seeds"), Column(REMARK, is_text=True)]


def result_cells(row: Row, benchmarks: Sequence[str]) -> list[str]:
    """Accuracies and published ones, average, gain, n, seeds, remark."""
    cells = []
    known = published.accuracies(row.papers)
    for name in benchmarks:
        cells += [percent(row.results.accuracies.get(name)), _beside(row, known.get(name))]
    cells += [percent(row.average), _beside(row, published.average(row.papers, list(benchmarks)))]
    total = sum(one.questions for one in row.results.accuracies.values())
    return [*cells, points(row.gain), str(total or ABSENT), seeds_cell(row), remark(row.remarks)]


def _beside(row: Row, value: float | None) -> str:
    return asterisked(number(value), row.differs)


def seeds_cell(row: Row) -> str:
    """How many seeds are averaged, of how many; of a row without numbers, which ones failed."""
    if row.is_baseline:
        return ABSENT  # nothing of it depends on a seed
    if not row.seeds:
        return ", ".join(f"seed {seed}" for seed in row.lost if seed is not None) or ABSENT
    return f"{len(row.seeds)}/{row.asked}" if row.lost else str(len(row.seeds))


def records(row: Row, benchmarks: Sequence[str]) -> list[dict[str, Any]]:
    """One line a benchmark and one for the average, in percent and points."""
    setup = setup_record(row.setup, row.label)
    if not row.results.accuracies:
        return [setup | {"benchmark": None, "remark": row.remark}]
    known = published.accuracies(row.papers)
    differs = "; ".join(row.differs)
    estimates = {name: row.results.accuracies.get(name) for name in benchmarks}
    made = []
    for name, estimate in {**estimates, AVERAGE: row.average}.items():
        if estimate is None:
            continue
        ours = name == AVERAGE
        paper = published.average(row.papers, list(benchmarks)) if ours else known.get(name)
        made.append(
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
                "gain": scaled(row.gain.mean) if ours and row.gain else None,
                "gain_stderr": scaled(row.gain.stderr) if ours and row.gain else None,
                "remark": row.remark,
            }
        )
    return made


def notes(rows: Sequence[Row], benchmarks: Sequence[str]) -> list[str]:
    """How many questions each benchmark has, the same for all rows; whose settings differ."""
    told = []
    for name in benchmarks:
        counts = {
            row.results.accuracies[name].questions for row in rows if name in row.results.accuracies
        }
        told += [f"{benchmark_label(name)} {count}" for count in sorted(counts)]
    beside = [row for row in rows if published.accuracies(row.papers).keys() & set(benchmarks)]
    return [*([f"Questions: {', '.join(told)}."] if told else []), *differing_rows(beside)]

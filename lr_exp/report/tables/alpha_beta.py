"""Average accuracy, gain and kept share over alpha and beta, one grid per pair and method."""

from collections.abc import Sequence
from dataclasses import replace

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.costs import mean
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, Setup
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    setup_record,
    table_of,
    text_column,
)

_ABOUT = (
    "Each cell: accuracy averaged over benchmarks in % ± the wider side of its 95 % interval, the"
    " gain over the expert in points, and the share of scored steps that was kept. If some seeds "
    "are missing or trained nothing, the cell shows how many have results or were trained, for "
    "example 2/3 seeds."
)


def grid_rows(sweep: Sweep) -> dict[Setup, list[Row]]:
    """Rows with an alpha or a beta by their setup without these. Each row is a cell of a grid."""
    rows = [
        row
        for row in sweep.rows
        if not row.is_baseline and (row.setup.alpha, row.setup.beta) != (None, None)
    ]
    return grouped(rows, lambda row: replace(row.setup, alpha=None, beta=None))


def kept_share(row: Row) -> float | None:
    """The share of scored token positions that were kept, averaged over seeds."""
    return mean([run.sample.kept_share for run in row.runs])


def values_of(rows: Sequence[Row], key: str) -> list[float | None]:
    """The distinct alphas or betas in ascending order; None (the method reads none) comes last."""
    values = {getattr(row.setup, key) for row in rows}
    return sorted(values, key=lambda value: (value is None, value or 0.0))


def alpha_beta_table(sweep: Sweep, name: str) -> Table | None:
    """Rows are alphas, columns betas."""
    lines = [
        (grid, alpha, rows)
        for grid, rows in grid_rows(sweep).items()
        for alpha in values_of(rows, "alpha")
    ]
    everything = [row for rows in grid_rows(sweep).values() for row in rows]
    if not everything:
        return None
    names = {
        "expert": [grid.expert for grid, _, _ in lines],
        "variant": [grid.label for grid, _, _ in lines],
        "amateur": [grid.amateur or ABSENT for grid, _, _ in lines],
        "data": [grid.data or ABSENT for grid, _, _ in lines],
    }
    columns = [text_column(*one) for one in names.items() if len(set(one[1])) > 1]
    columns.append(text_column("alpha", [cell.number(alpha, "g") for _, alpha, _ in lines]))
    columns += [
        (
            Column(f"beta {cell.number(beta, 'g')}"),
            [_cell(rows, alpha, beta) for _, alpha, rows in lines],
        )
        for beta in values_of(everything, "beta")
    ]
    return table_of(name, "Alpha and beta", columns, list(map(_record, everything)), [_ABOUT])


def _cell(rows: Sequence[Row], alpha: float | None, beta: float | None) -> str:
    here = (row for row in rows if (row.setup.alpha, row.setup.beta) == (alpha, beta))
    row = next(here, None)
    if row is None or row.average is None:
        return ABSENT if row is None or row.runs else "failed"
    accuracy = cell.percent(row.average)
    if row.gain:
        accuracy += f" ({cell.signed(100 * row.gain.mean)})"
    share = kept_share(row)
    parts = [accuracy, *([] if share is None else [f"kept {share:.1%}"])]
    if row.missing_seeds:
        parts.append(f"{len(row.seeds)}/{row.seed_count} seeds")
    if row.trained_count < len(row.runs):
        parts.append(f"{row.trained_count}/{len(row.runs)} seeds trained")
    return ", ".join(parts)


def _record(row: Row) -> dict[str, object]:
    return {
        **setup_record(row),
        **estimate_record("average", row.average, "stderr"),
        **estimate_record("gain", row.gain),
        "kept_share": kept_share(row),
        "n": row.average.questions if row.average else None,
    }

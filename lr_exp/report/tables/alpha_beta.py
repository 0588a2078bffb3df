"""The grid of alpha and beta: average accuracy, gain and kept share, one grid a pair and method."""

from collections.abc import Sequence

from lr_exp.report.names import ABSENT, method_label
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.tables.table import (
    Column,
    Table,
    mean,
    number,
    percent,
    scaled,
    setup_record,
    signed,
    without_empty,
)

_NAMES = ("expert", "amateur", "method", "data", "decoder")

Grid = tuple[str, str | None, str | None, str | None, str]  # of _NAMES


def grid_rows(sweep: Sweep) -> dict[Grid, list[Row]]:
    """Rows with an alpha or a beta, by all else that they are of: a cell is one row."""
    rows = [
        row
        for row in sweep.rows
        if not row.is_baseline and (row.setup.alpha is not None or row.setup.beta is not None)
    ]

    def grid(row: Row) -> Grid:
        setup = row.setup
        return setup.expert, setup.amateur, setup.method, setup.data, setup.decoder

    return grouped(rows, grid)


def kept_share(row: Row) -> float | None:
    """The share of scored steps that were kept, over the row's seeds."""
    return mean([run.sample.kept_share for run in row.runs])


def values_of(rows: Sequence[Row], key: str) -> list[float | None]:
    """The different alphas or betas, rising; a method that reads none has None."""
    found = {getattr(row.setup, key) for row in rows}
    return sorted(found, key=lambda value: (value is None, value or 0.0))


def alpha_beta_table(sweep: Sweep, name: str) -> Table | None:
    """Rows are alphas, columns betas."""
    grids = grid_rows(sweep)
    everything = [row for rows in grids.values() for row in rows]
    if not everything:
        return None
    betas = values_of(everything, "beta")
    columns = [
        *(Column(title, is_text=True) for title in _NAMES),
        Column("alpha"),
        *(Column(f"beta {number(beta, 'g')}") for beta in betas),
    ]
    cells = []
    for (expert, amateur, method, data, decoder), rows in grids.items():
        names = [expert, amateur or ABSENT, method_label(method), data or ABSENT, decoder]
        for alpha in values_of(rows, "alpha"):
            line = [_cell(rows, alpha, beta) for beta in betas]
            cells.append([*names, number(alpha, "g"), *line])
    table = Table(
        name,
        "Alpha and beta",
        columns,
        cells,
        [_record(row) for row in everything],
        [
            "Each cell: accuracy averaged over benchmarks in % ± one standard error, the gain over "
            "the expert in points, and the share of scored steps that was kept. Cells that lack "
            "seeds, or seeds in which something was trained, say how many there are."
        ],
    )
    constant = [
        column
        for i, column in enumerate(columns[: len(_NAMES)])
        if len({line[i] for line in cells}) == 1
    ]
    return without_empty(table.without(constant))


def _cell(rows: Sequence[Row], alpha: float | None, beta: float | None) -> str:
    here = (row for row in rows if (row.setup.alpha, row.setup.beta) == (alpha, beta))
    row = next(here, None)
    if row is None:
        return ABSENT
    if row.average is None:
        return ABSENT if row.runs else "failed"
    told = percent(row.average)
    if row.gain:
        told += f" ({signed(100 * row.gain.mean)})"
    share = kept_share(row)
    parts = [told, *([] if share is None else [f"kept {share:.1%}"])]
    if row.lost:
        parts.append(f"{len(row.seeds)}/{row.asked} seeds")
    if row.trained < len(row.runs):
        some = f"{row.trained}/{len(row.runs)} seeds trained"
        parts.append(some if row.trained else "nothing trained")
    return ", ".join(parts)


def _record(row: Row) -> dict[str, object]:
    return {
        **setup_record(row.setup, row.label),
        "average": scaled(row.average.mean) if row.average else None,
        "stderr": scaled(row.average.stderr) if row.average else None,
        "gain": scaled(row.gain.mean) if row.gain else None,
        "gain_stderr": scaled(row.gain.stderr) if row.gain else None,
        "kept_share": kept_share(row),
        "n": row.average.questions if row.average else None,
        "seeds": len(row.seeds),
        "seeds_asked": row.asked,
        "remark": row.remark,
    }

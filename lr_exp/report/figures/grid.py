"""A heat map of the average accuracy over alpha and beta."""

import math
from typing import Any

import matplotlib

from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import ON_DARK_CELL, ON_PALE_CELL
from lr_exp.report.names import method_label
from lr_exp.report.tables.alpha_beta import grid_rows, values_of
from lr_exp.report.tables.table import number

_CAPTION = "Average accuracy in % for each α (rows) and β (columns)."  # noqa: RUF001
# From dark to pale, also without full colour vision.
_COLOUR_MAP = matplotlib.colormaps["cividis"].resampled(32)
_MIN_RANGE = 1.0  # points that the colour scale spans, so that noise does not look like a peak


def alpha_beta_map(sweep: Sweep) -> Figure | None:
    """One panel per pair and method with at least two values of both alpha and beta."""
    grids = {key: _measured(rows) for key, rows in grid_rows(sweep).items()}
    grids = {
        key: rows
        for key, rows in grids.items()
        if min(len(values_of(rows, "alpha")), len(values_of(rows, "beta"))) > 1
    }
    if not grids:
        return None
    across = min(len(grids), 2)
    mpl_figure, panels = panel_grid(len(grids), across, 2.6 * math.ceil(len(grids) / across))
    values = [value for rows in grids.values() for value in _averages(rows)]
    limits = (min(values), max(values))
    if limits[1] - limits[0] < _MIN_RANGE:
        limits = (limits[0] - _MIN_RANGE / 2, limits[1] + _MIN_RANGE / 2)
    image = None
    for axes, (names, rows) in zip(panels, grids.items(), strict=True):
        expert, amateur, method, data, decoder = names
        image = _panel(axes, rows, limits)
        # Data and decoder are named only where panels differ in them.
        differing = [
            name
            for index, name in ((3, data), (4, decoder))
            if name and len({key[index] for key in grids}) > 1
        ]
        title = ", ".join([method_label(method), *differing])
        axes.set_title(f"{title}\n{expert} / {amateur}", fontsize=7)
    mpl_figure.colorbar(image, ax=panels, label="average accuracy (%)")
    return Figure("map", "Accuracy over α and β", _CAPTION, mpl_figure)  # noqa: RUF001


def _panel(axes: Any, rows: list[Row], limits: tuple[float, float]) -> Any:
    (low, high), alphas, betas = limits, values_of(rows, "alpha"), values_of(rows, "beta")
    grid = [[float("nan")] * len(betas) for _ in alphas]
    for row, value in zip(rows, _averages(rows), strict=True):
        i, j = alphas.index(row.setup.alpha), betas.index(row.setup.beta)
        grid[i][j] = value
        colour = ON_DARK_CELL if value < low + 0.45 * (high - low) else ON_PALE_CELL
        label = (
            f"{value:.1f}\n{len(row.seeds)}/{row.seed_count} seeds"
            if row.missing_seeds
            else f"{value:.1f}"
        )
        axes.text(j + 0.5, i + 0.5, label, ha="center", va="center", color=colour)
    # pcolormesh draws vector cells; imshow would put a bitmap into the SVG.
    image = axes.pcolormesh(grid, cmap=_COLOUR_MAP, vmin=low, vmax=high, edgecolors="face")
    axes.set_xticks([j + 0.5 for j in range(len(betas))], [number(beta, "g") for beta in betas])
    axes.set_yticks([i + 0.5 for i in range(len(alphas))], [number(alpha, "g") for alpha in alphas])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("β (nats)")
    axes.set_ylabel("α")  # noqa: RUF001
    return image


def _measured(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.average and None not in (row.setup.alpha, row.setup.beta)]


def _averages(rows: list[Row]) -> list[float]:
    """Average accuracies in percent, of rows that `_measured` returned."""
    return [100 * row.average.mean for row in rows if row.average]

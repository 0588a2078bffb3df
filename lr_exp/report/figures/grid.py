"""A heat map of the average accuracy over alpha and beta."""

from typing import Any

import pandas as pd

from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.tables.alpha_beta import grid_rows

_CAPTION = "Average accuracy in % for each α (rows) and β (columns)."  # noqa: RUF001
_COLOUR_MAP = "cividis"  # from dark to pale, also without full colour vision
_ON_DARK, _ON_PALE = "#fefefe", "#010101"  # text on the cells, the same in both colour schemes
_MIN_RANGE = 1.0  # points that the colour scale spans, so that noise does not look like a peak


def alpha_beta_map(sweep: Sweep) -> Figure | None:
    """One panel per pair and method with at least two values of both alpha and beta."""
    grids = {setup: _cells(rows) for setup, rows in grid_rows(sweep).items()}
    grids = {
        setup: cells
        for setup, cells in grids.items()
        if min(len(set(cells["alpha"])), len(set(cells["beta"]))) > 1
    }
    if not grids:
        return None
    mpl_figure, panels = panel_grid(len(grids), min(len(grids), 2), 2.6)
    values = [value for cells in grids.values() for value in cells["accuracy"]]
    margin = max(0.0, _MIN_RANGE - (max(values) - min(values))) / 2
    limits = min(values) - margin, max(values) + margin
    image = None
    for axes, (setup, cells) in zip(panels, grids.items(), strict=True):
        image = _panel(axes, cells, *limits)
        data = f", {setup.data}" if len({other.data for other in grids}) > 1 else ""
        axes.set_title(f"{setup.label}{data}\n{setup.expert} / {setup.amateur}", fontsize=7)
    mpl_figure.colorbar(image, ax=panels, label="average accuracy (%)")
    return Figure("map", "Accuracy over α and β", _CAPTION, mpl_figure)  # noqa: RUF001


def _cells(rows: list[Row]) -> pd.DataFrame:
    """One row per measured cell, accuracy in percent; `label` is its text."""
    records = []
    for row in rows:
        if row.average and None not in (row.setup.alpha, row.setup.beta):
            value = 100 * row.average.mean
            seeds = f"\n{len(row.seeds)}/{row.seed_count} seeds" if row.missing_seeds else ""
            records.append((row.setup.alpha, row.setup.beta, value, f"{value:.1f}{seeds}"))
    return pd.DataFrame(records, columns=["alpha", "beta", "accuracy", "label"])


def _panel(axes: Any, cells: pd.DataFrame, low: float, high: float) -> Any:
    import matplotlib

    grid = cells.pivot(index="alpha", columns="beta", values="accuracy")
    # pcolormesh draws vector cells; imshow would put a bitmap into the SVG.
    colours = matplotlib.colormaps[_COLOUR_MAP].resampled(32)
    image = axes.pcolormesh(grid, cmap=colours, vmin=low, vmax=high, edgecolors="face")
    alphas, betas = list(grid.index), list(grid.columns)
    for alpha, beta, accuracy, label in cells.itertuples(index=False, name=None):
        place = betas.index(beta) + 0.5, alphas.index(alpha) + 0.5
        colour = _ON_DARK if accuracy < low + 0.45 * (high - low) else _ON_PALE
        axes.text(*place, label, ha="center", va="center", color=colour)
    axes.set_xticks([j + 0.5 for j in range(len(betas))], [f"{beta:g}" for beta in betas])
    axes.set_yticks([i + 0.5 for i in range(len(alphas))], [f"{alpha:g}" for alpha in alphas])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("β (nats)")
    axes.set_ylabel("α")  # noqa: RUF001
    return image

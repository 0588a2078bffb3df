"""Turns panels into wandb-workspaces objects."""

from typing import Any

import wandb_workspaces.reports.v2

from lr_exp.tracking.dashboard.panels import (
    BARS,
    HISTOGRAM,
    LINES,
    MACHINE,
    METHOD,
    SCATTER,
    TABLE,
    Panel,
)

wr: Any = wandb_workspaces.reports.v2  # its names are not marked as exported

_CONFIG = "config."
# (width, height) on a report's grid of 24 columns.
_SIZES = {TABLE: (24, 14), BARS: (12, 8), SCATTER: (12, 8)}
_DEFAULT_SIZE = (12, 9)
_MAX_RUNS = 50  # per panel; W&B's default of 10 is fewer than a sweep has


def draw_panel(panel: Panel, layout: Any = None) -> Any:
    """The panel as a W&B object. `layout` places it in a report; a workspace needs none."""
    return _FORMS[panel.form](panel, layout or wr.Layout())


def draw_grid(panels: tuple[Panel, ...]) -> list[Any]:
    """The panels in reading order, as many per row as fit."""
    drawn, x, y, height = [], 0, 0, 0
    for panel in panels:
        w, h = _SIZES.get(panel.form, _DEFAULT_SIZE)
        if x + w > 24:
            x, y, height = 0, y + height, 0
        drawn.append(draw_panel(panel, wr.Layout(x=x, y=y, w=w, h=h)))
        x, height = x + w, max(height, h)
    return drawn


def _lines(panel: Panel, layout: Any) -> Any:
    return wr.LinePlot(
        title=panel.title,
        x=panel.x or "Step",
        y=list(panel.keys),
        title_x=panel.x_title,
        title_y=panel.y_title,
        log_y=panel.log_y or None,
        max_runs_to_show=_MAX_RUNS,
        layout=layout,
    )


def _machine(panel: Panel, layout: Any) -> Any:
    (pattern,) = panel.keys
    return wr.LinePlot(
        title=panel.title, x="RelativeTime(Process)", metric_regex=pattern, layout=layout
    )


def _bars(panel: Panel, layout: Any) -> Any:
    # Error bars show the spread between a method's runs, e.g. over seeds. The standard error within
    # one run is in the table and in `eval/<benchmark>/stderr`.
    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.keys),
        title_x=panel.x_title,
        groupby=wr.Config(METHOD),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
        max_runs_to_show=_MAX_RUNS,
        max_bars_to_show=_MAX_RUNS,
        layout=layout,
    )


def _scatter(panel: Panel, layout: Any) -> Any:
    (key,), x = panel.keys, panel.x or ""
    axis = wr.Config(x.removeprefix(_CONFIG)) if x.startswith(_CONFIG) else wr.SummaryMetric(x)
    return wr.ScatterPlot(title=panel.title, x=axis, y=wr.SummaryMetric(key), layout=layout)


def _table(panel: Panel, layout: Any) -> Any:
    (key,) = panel.keys
    return wr.WeavePanelSummaryTable(table_name=key, layout=layout)


_FORMS = {
    LINES: _lines,
    HISTOGRAM: _lines,  # W&B draws histograms as a heat map over steps
    BARS: _bars,
    SCATTER: _scatter,
    TABLE: _table,
    MACHINE: _machine,
}

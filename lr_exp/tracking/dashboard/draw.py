"""Panels as W&B's own objects. Knows both sides' forms and nothing of what is shown."""

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

wr: Any = wandb_workspaces.reports.v2  # it does not mark its names as exported

_CONFIG = "config."
_SIZES = {TABLE: (24, 14), BARS: (12, 8), SCATTER: (12, 8)}  # of a report's 24 columns
_SIZE = (12, 9)
_MOST_RUNS = 50  # in one panel; W&B's own limit is 10, fewer than a sweep has


def drawn(panel: Panel, layout: Any = None) -> Any:
    """The panel as a W&B object.

    Args:
        panel: what is drawn.
        layout: its place in a report; a workspace places panels itself.
    """
    return _FORMS[panel.form](panel, layout or wr.Layout())


def drawn_in_rows(panels: tuple[Panel, ...]) -> list[Any]:
    """The panels one after another, two in a row where they fit."""
    found, x, y, height = [], 0, 0, 0
    for panel in panels:
        w, h = _SIZES.get(panel.form, _SIZE)
        if x + w > 24:
            x, y, height = 0, y + height, 0
        found.append(drawn(panel, wr.Layout(x=x, y=y, w=w, h=h)))
        x, height = x + w, max(height, h)
    return found


def _lines(panel: Panel, layout: Any) -> Any:
    return wr.LinePlot(
        title=panel.title,
        x=panel.x or "Step",
        y=list(panel.keys),
        title_x=panel.x_title,
        title_y=panel.y_title,
        log_y=panel.log_y or None,
        max_runs_to_show=_MOST_RUNS,
        layout=layout,
    )


def _machine(panel: Panel, layout: Any) -> Any:
    (pattern,) = panel.keys
    return wr.LinePlot(
        title=panel.title, x="RelativeTime(Process)", metric_regex=pattern, layout=layout
    )


def _bars(panel: Panel, layout: Any) -> Any:
    # Error bars are between the runs of a method, as over seeds; that of one run's own accuracy
    # stands in the table and in `eval/<benchmark>/stderr`.
    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.keys),
        title_x=panel.x_title,
        groupby=wr.Config(METHOD),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
        max_runs_to_show=_MOST_RUNS,
        max_bars_to_show=_MOST_RUNS,
        layout=layout,
    )


def _scatter(panel: Panel, layout: Any) -> Any:
    (key,), x = panel.keys, panel.x or ""
    over = wr.Config(x.removeprefix(_CONFIG)) if x.startswith(_CONFIG) else wr.SummaryMetric(x)
    return wr.ScatterPlot(title=panel.title, x=over, y=wr.SummaryMetric(key), layout=layout)


def _table(panel: Panel, layout: Any) -> Any:
    (key,) = panel.keys
    return wr.WeavePanelSummaryTable(table_name=key, layout=layout)


_FORMS = {
    LINES: _lines,
    HISTOGRAM: _lines,  # W&B draws a histogram's bins as colours over the steps
    BARS: _bars,
    SCATTER: _scatter,
    TABLE: _table,
    MACHINE: _machine,
}

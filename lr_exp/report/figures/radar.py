"""A radar plot of the ablation, with benchmarks as spokes."""

import math
from typing import Any

from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import method_look
from lr_exp.report.names import benchmark_label

_CAPTION = "Accuracy in % on each benchmark (spokes). Error bars show one standard error."
_MIN_SPOKES = 3


def ablation_radar(sweep: Sweep) -> Figure | None:
    """One panel per expert, for experts with one row per method, since colours mark methods."""
    if len(sweep.benchmarks) < _MIN_SPOKES:
        return None
    panels = {}
    for expert in dict.fromkeys(row.setup.expert for row in sweep.rows):
        rows = [
            row
            for row in sweep.rows
            if row.setup.expert == expert and row.average and row.setup.decoder == "greedy"
        ]
        methods = [row.setup.method for row in rows]
        if len(rows) >= 2 and len(set(methods)) == len(methods):
            panels[expert] = rows
    if not panels:
        return None
    polar = {"projection": "polar"}
    mpl_figure, all_axes = panel_grid(len(panels), min(len(panels), 2), 2.35, subplot_kw=polar)
    drawn = {}
    for axes, (expert, rows) in zip(all_axes, panels.items(), strict=True):
        drawn |= _panel(axes, rows, sweep.benchmarks)
        if len(panels) > 1:
            axes.set_title(expert)
    legend_below(mpl_figure, drawn)
    return Figure("radar", "Accuracy by benchmark", _CAPTION, mpl_figure)


def _panel(axes: Any, rows: list[Row], benchmarks: list[str]) -> dict[str, Any]:
    angles = [2 * math.pi * i / len(benchmarks) for i in range(len(benchmarks))]
    closed = [*angles, angles[0]]
    drawn = {}
    for row in rows:
        look = method_look(row.setup.method)
        estimates = [row.results.accuracies[name] for name in benchmarks]
        values = [100 * estimate.mean for estimate in estimates]
        (drawn[row.label],) = axes.plot(
            closed,
            [*values, values[0]],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=3,
        )
        bars = {"fmt": "none", "ecolor": look.colour, "elinewidth": 0.8}
        axes.errorbar(angles, values, yerr=whiskers(estimates), **bars)
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_ylim(0, 100)
    axes.set_yticks([25, 50, 75, 100], ["25", "50", "75", "100 %"], fontsize=7)
    axes.set_rlabel_position(180 / len(benchmarks))
    axes.set_xticks(angles, [benchmark_label(name) for name in benchmarks])
    for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
        side = math.sin(angle)
        text.set_horizontalalignment(
            "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
        )
    axes.tick_params(axis="x", pad=1)
    axes.grid(linewidth=0.4)
    axes.spines["polar"].set_linewidth(0.4)
    return drawn

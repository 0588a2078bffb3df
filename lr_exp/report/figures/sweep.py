"""Figures of a sweep; each drawing function returns None where the sweep lacks the data."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.costs import HOUR, costs, mean
from lr_exp.report.analyse.gaps import measured_gap
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, captioned, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import MUTED, method_look, variant_look
from lr_exp.report.names import ABSENT, SWEPT, benchmark_label, method_label

_MAX_BARS = 30
_MIN_NUMBERS = 3  # values of a setting that make a line
_COLOUR_MAP = "cividis"  # from dark to pale, also without full colour vision
_MIN_RANGE = 1.0  # points that the colour scale spans, so that noise does not look like a peak
_MIN_SPOKES = 3


def cost_bars(sweep: Sweep) -> Figure | None:
    rows = [(row, costs(row.runs)) for row in sweep.rows if not row.is_baseline and row.runs]
    rows = [(row, spent) for row, spent in rows if spent["hours"] is not None]
    # Evaluation's decoder does not change a method's cost: one decoder's rows are enough.
    rows = [(row, spent) for row, spent in rows if row.setup.decoder == rows[0][0].setup.decoder]
    if len({row.setup.method for row, _ in rows}) < 2 or len(rows) > _MAX_BARS:
        return None
    several = len({row.setup.expert for row, _ in rows}) > 1
    names = [f"{row.setup.expert}: {row.label}" if several else row.label for row, _ in rows]
    in_hours = max(spent["hours"] or 0 for _, spent in rows) >= 1
    panels = (
        (f"sampling + tuning ({'h' if in_hours else 's'})", "hours", 1 if in_hours else HOUR),
        ("problems sampled", "problems", 1),
        ("tuned tokens", "tuned_tokens", 1),
    )
    mpl_figure, all_axes = panel_grid(3, 3, 0.22 * len(rows) + 0.9, sharey=True)
    for axes, (title, key, unit) in zip(all_axes, panels, strict=True):
        values = [spent[key] for _, spent in rows]
        widths = [unit * (value or 0) for value in values]
        seeds = [[unit * (costs([run])[key] or 0) for run in row.runs] for row, _ in rows]
        lowest, highest = np.array([(min(own), max(own)) for own in seeds]).T
        bars = axes.barh(
            range(len(rows)),
            widths,
            xerr=[widths - lowest, highest - widths],
            error_kw={"elinewidth": 0.8, "ecolor": MUTED},
            color=[method_look(row.setup.method).colour for row, _ in rows],
            height=0.7,
        )
        labels = [ABSENT if value is None else _short(unit * value) for value in values]
        axes.bar_label(bars, labels, padding=2, fontsize=7)
        axes.margins(x=0.3)
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set_xlabel(title)
        axes.tick_params(axis="y", length=0)
    all_axes[0].set_yticks(range(len(rows)), names)
    all_axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return captioned("cost_bars", "Cost of each method", mpl_figure)


def _short(value: float) -> str:
    """Three significant digits: 0.5, 300, 16.8k, 1.77M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def gain_against_gap(sweep: Sweep) -> Figure | None:
    """A panel by accuracy and, if reference solutions were scored, one by log-likelihood."""
    points = [
        (row, gap)
        for row in sweep.rows
        if row.gain and not row.is_baseline and (gap := measured_gap(row.runs))
    ]
    # Gaps on other benchmarks or with other decoders do not belong on the same axis.
    points = next(
        iter(grouped(points, lambda one: (one[1].benchmark, one[1].decoder)).values()), []
    )
    if len(points) < 2:
        return None
    gaps = [gap for _, gap in points]
    decoder, title = gaps[0].decoder, f"expertise gap on {benchmark_label(gaps[0].benchmark)}"
    shares = [(gap.difference.mean, *gap.difference.ci95) for gap in gaps]
    panels = {f"{title}, {decoder} (points)": 100 * np.array(shares)}
    nats = [(gap.nats.difference, *gap.nats.ci95) for gap in gaps if gap.nats]
    if len(nats) == len(gaps):
        panels[f"{title} (nats per token)"] = np.array(nats)
    mpl_figure = _drawn_gains([row for row, _ in points], panels)
    return captioned("gain_against_gap", "Gain against expertise gap", mpl_figure)


def gain_by_setting(sweep: Sweep) -> Figure | None:
    """Lines over the number of `SWEPT` that differs between rows; None if several do."""
    rows = [row for row in sweep.rows if row.gain]
    points = [(row, *pair) for row in rows for pair in row.setup.swept if pair[1] != str(pair[1])]
    keys, numbers = {key for _, key, _ in points}, [float(number) for *_, number in points]
    if len(keys) != 1 or len({*numbers}) < _MIN_NUMBERS:
        return None
    title, values = SWEPT[keys.pop()], np.array([numbers] * 3).T
    mpl_figure = _drawn_gains([row for row, *_ in points], {title: values}, line=True)
    if min(numbers) > 0:
        mpl_figure.axes[0].set_xscale("log")
    return captioned("gain_by_setting", f"Gain by {title}", mpl_figure)


def _drawn_gains(rows: list[Row], panels: dict[str, Any], *, line: bool = False) -> Any:
    """Gains against values with the ends of their intervals, `(rows, 3)`, by the axis' title."""
    has_methods = len({row.setup.method for row in rows}) > 1

    def label(index: int) -> str:
        setup = rows[index].setup
        texts = [method_label(setup.method)] if has_methods else []
        texts += [value for _, value in setup.swept if isinstance(value, str)]
        return ", ".join([f"{setup.expert} / {setup.amateur}", *texts])

    mpl_figure, all_axes = panel_grid(len(panels), len(panels), 2.4, sharey=True)
    drawn = {}
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        axes.axhline(0, color=MUTED, linewidth=0.8, linestyle="--", zorder=0)
        for number, (name, own) in enumerate(grouped(range(len(rows)), label).items()):
            look = variant_look(rows[own[0]].setup.method, number)
            gains = [gain for i in own if (gain := rows[i].gain)]
            x, low, high = values[own].T
            drawn[name] = axes.errorbar(
                x,
                [100 * gain.mean for gain in gains],
                xerr=[x - low, high - x],
                yerr=whiskers(gains),
                color=look.colour,
                marker=look.marker,
                linestyle=look.line if line else "",
                elinewidth=0.8,
            )
        axes.set_xlabel(title)
    all_axes[0].set_ylabel("gain of the average (points)")
    legend_below(mpl_figure, drawn)
    return mpl_figure


def alpha_beta_map(sweep: Sweep) -> Figure | None:
    """One panel per pair and method with at least two values of both alpha and beta."""
    trained = [row for row in sweep.rows if not row.is_baseline]
    by_setup = grouped(trained, lambda row: replace(row.setup, alpha=None, beta=None))
    grids = {setup: _cells(rows) for setup, rows in by_setup.items()}
    grids = {
        setup: cells
        for setup, cells in grids.items()
        if min(len({*cells["alpha"]}), len({*cells["beta"]})) > 1
    }
    if not grids:
        return None
    mpl_figure, panels = panel_grid(len(grids), min(len(grids), 2), 2.6)
    values = [value for cells in grids.values() for value in cells["accuracy"]]
    margin = max(0.0, _MIN_RANGE - (max(values) - min(values))) / 2
    limits = min(values) - margin, max(values) + margin
    image = None
    for axes, (setup, cells) in zip(panels, grids.items(), strict=True):
        image = _map_panel(axes, cells, *limits)
        data = f", {setup.data}" if len({other.data for other in grids}) > 1 else ""
        axes.set_title(f"{setup.label}{data}\n{setup.expert} / {setup.amateur}", fontsize=7)
    mpl_figure.colorbar(image, ax=panels, label="average accuracy (%)")
    return captioned("map", "Accuracy over α and β", mpl_figure)  # noqa: RUF001


def _cells(rows: list[Row]) -> pd.DataFrame:
    """One row per measured cell, accuracy in percent; `label` is its text."""
    records = []
    for row in rows:
        if row.average and None not in (row.setup.alpha, row.setup.beta):
            value = 100 * row.average.mean
            lines = [f"{value:.1f}"]
            if (kept := mean([run.sample.kept_share for run in row.runs])) is not None:
                lines.append(f"kept {kept:.1%}")
            if row.missing_seeds:
                lines.append(f"{len(row.seeds)}/{row.seed_count} seeds")
            if row.trained_count < len(row.runs):
                lines.append(f"{row.trained_count}/{len(row.runs)} trained")
            records.append((row.setup.alpha, row.setup.beta, value, "\n".join(lines)))
    return pd.DataFrame(records, columns=["alpha", "beta", "accuracy", "label"])


def _map_panel(axes: Any, cells: pd.DataFrame, low: float, high: float) -> Any:
    import matplotlib

    grid = cells.pivot(index="alpha", columns="beta", values="accuracy")
    # pcolormesh draws vector cells; imshow would put a bitmap into the SVG.
    colours = matplotlib.colormaps[_COLOUR_MAP].resampled(32)
    image = axes.pcolormesh(grid, cmap=colours, vmin=low, vmax=high, edgecolors="face")
    alphas, betas = list(grid.index), list(grid.columns)
    for alpha, beta, accuracy, label in cells.itertuples(index=False, name=None):
        place = betas.index(beta) + 0.5, alphas.index(alpha) + 0.5
        colour = "w" if accuracy < low + 0.45 * (high - low) else "k"
        axes.text(*place, label, ha="center", va="center", color=colour)
    axes.set_xticks([j + 0.5 for j in range(len(betas))], [f"{beta:g}" for beta in betas])
    axes.set_yticks([i + 0.5 for i in range(len(alphas))], [f"{alpha:g}" for alpha in alphas])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("β (nats)")
    axes.set_ylabel("α")  # noqa: RUF001
    return image


def ablation_radar(sweep: Sweep) -> Figure | None:
    """One panel per expert, for experts with one row per method, since colours mark methods."""
    if len(sweep.benchmarks) < _MIN_SPOKES:
        return None
    drawable = [row for row in sweep.rows if row.average and row.setup.decoder == "greedy"]
    panels = {
        expert: rows
        for expert, rows in grouped(drawable, lambda row: row.setup.expert).items()
        if 1 < len(rows) == len({row.setup.method for row in rows})
    }
    if not panels:
        return None
    polar = {"projection": "polar"}
    mpl_figure, all_axes = panel_grid(len(panels), min(len(panels), 2), 2.35, subplot_kw=polar)
    drawn = {}
    for axes, (expert, rows) in zip(all_axes, panels.items(), strict=True):
        drawn |= _radar_panel(axes, rows, sweep.benchmarks)
        if len(panels) > 1:
            axes.set_title(expert)
    legend_below(mpl_figure, drawn)
    return captioned("radar", "Accuracy by benchmark", mpl_figure)


def _radar_panel(axes: Any, rows: list[Row], benchmarks: list[str]) -> dict[str, Any]:
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
        text.set_ha("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    axes.tick_params(axis="x", pad=1)
    axes.grid(linewidth=0.4)
    axes.spines["polar"].set_linewidth(0.4)
    return drawn

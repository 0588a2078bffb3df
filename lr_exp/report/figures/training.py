"""Accuracy and student entropy during training, by optimizer step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lr_exp.report.analyse import accuracies, paired
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import legend_columns, variant_look
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Results

_ACCURACY_CAPTION = (
    "Average accuracy by optimizer step; step 0 is the untuned expert. For a seed that trained "
    "nothing, the untuned expert's accuracy is used at every step. Bands show one standard error "
    "over questions and seeds."
)
_ENTROPY_CAPTION = (
    "Entropy of the student's next-token distribution, averaged over the tokens that the method "
    "trains on: the mean over seeds, with a band of one standard deviation if there are several. "
    "Methods train on different tokens, so compare the shapes of the lines, not their levels. "
    "Seeds that trained nothing are left out."
)
_MAX_LINES_BEFORE_SPLIT = 6  # beyond it, each alpha has its own panel
_MAX_LINES, _MAX_PANELS = 10, 9
_MAX_COLUMNS = 3
_PANEL_HEIGHT, _LEGEND_LINE_HEIGHT = 2.1, 0.15  # inches


@dataclass(frozen=True)
class _Curve:
    label: str
    row: Row
    steps: Sequence[float]  # optimizer steps
    mean: np.ndarray
    spread: np.ndarray  # half the height of the band


def accuracy_by_step(sweep: Sweep) -> Figure | None:
    curves = []
    for row in _tuned_rows(sweep):
        curve = accuracy_curve(row, sweep.benchmarks)
        mean, stderr = (
            np.array([100 * getattr(one, name) for one in curve.values()])
            for name in ("mean", "stderr")
        )
        if curve:
            curves.append(_Curve(row.label, row, list(curve), mean, stderr))
    mpl_figure = _drawn(curves, "average accuracy (%)", with_markers=True)
    if mpl_figure is None:
        return None
    return Figure("accuracy_by_step", "Accuracy during training", _ACCURACY_CAPTION, mpl_figure)


def _tuned_rows(sweep: Sweep) -> list[Row]:
    return [row for row in sweep.rows if not row.is_baseline]


def accuracy_curve(row: Row, benchmarks: Sequence[str]) -> dict[int, Estimate]:
    """Average accuracy by optimizer step, at the steps that all seeds have evaluated."""
    trained = [run for run in row.runs if run.evaluate.curve]
    stopped = [run for run in row.runs if run.stopped and run.results("expert")]
    measured = next((run for run in trained if run.results("expert")), None)
    if measured is None:
        return {}
    untuned = accuracies.read_results([(measured, "expert")])  # the same for all seeds
    start = accuracies.average_of(untuned, benchmarks)
    if start is None:
        return {}
    by_run = [_points(run) for run in trained]
    curve = {0: start}
    for step in sorted(set.intersection(*(set(points) for points in by_run))):
        here = [points[step] for points in by_run] + [run.results("expert") for run in stopped]
        if all(name in one for name in benchmarks for one in here):
            curve[step] = paired.average(
                [
                    paired.accuracy_from_counts(
                        [one[name].correct / one[name].total for one in here],
                        here[0][name].total,
                    )
                    for name in benchmarks
                ]
            )
    return curve if len(curve) > 2 else {}


def _points(run: Run) -> dict[int, Results]:
    """A run's results by optimizer step, including the finished adapter's."""
    points = {point.step: point.results for point in run.evaluate.curve or []}
    last = run.distill.optimizer_steps
    if last and run.results("tuned"):
        points[last] = run.results("tuned")
    return {step: here for step, here in points.items() if step > 0}


def entropy_by_step(sweep: Sweep) -> Figure | None:
    curves = [curve for row in _tuned_rows(sweep) if (curve := _entropy_curve(row))]
    mpl_figure = _drawn(curves, "student entropy (nats)", with_markers=False)
    if mpl_figure is None:
        return None
    for axes in mpl_figure.axes:
        axes.set_ylim(bottom=0)
    return Figure(
        "entropy_by_step", "Student entropy during training", _ENTROPY_CAPTION, mpl_figure
    )


def _entropy_curve(row: Row) -> _Curve | None:
    """The mean over seeds, at the steps that all of them have logged."""
    by_seed = [
        {e["step"]: e["entropy"] for e in run.training() if e.get("entropy") is not None}
        for run in row.runs
    ]
    by_seed = [known for known in by_seed if known]
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if len(steps) < 2:
        return None
    values = np.array([[known[step] for step in steps] for known in by_seed], dtype=float)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    return _Curve(row.label, row, steps, values.mean(axis=0), spread)


def _drawn(curves: list[_Curve], ylabel: str, *, with_markers: bool) -> Any | None:
    """One panel per expert with a common legend; None without curves or with too many."""
    by_panel = _by_panel(curves)
    if not curves or len(by_panel) > _MAX_PANELS or max(map(len, by_panel.values())) > _MAX_LINES:
        return None
    count = len(by_panel)
    across = min(count, _MAX_COLUMNS)
    mpl_figure, panels = panel_grid(count, across, _PANEL_HEIGHT, sharey=True)
    labels: dict[str, Any] = {}
    for axes, (title, own) in zip(panels, by_panel.items(), strict=True):
        for variants in grouped(own, lambda curve: curve.row.setup.method).values():
            for number, curve in enumerate(variants):
                look = variant_look(curve.row.setup.method, number)
                low, high = curve.mean - curve.spread, curve.mean + curve.spread
                axes.fill_between(
                    curve.steps, low, high, color=look.colour, alpha=0.15, linewidth=0
                )
                (labels[curve.label],) = axes.plot(
                    curve.steps,
                    curve.mean,
                    color=look.colour,
                    linestyle=look.line,
                    marker=look.marker if with_markers else "",
                )
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        if count > 1:
            axes.set_title(title)
    for axes in panels[::across]:
        axes.set_ylabel(ylabel)
    columns = legend_columns(labels, 2 if count == 1 else 4)
    # The legend adds to the figure's height, so that panels keep theirs.
    legend_height = _LEGEND_LINE_HEIGHT * math.ceil(len(labels) / columns)
    mpl_figure.set_figheight(_PANEL_HEIGHT * math.ceil(count / across) + legend_height)
    mpl_figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns)
    return mpl_figure


def _by_panel(curves: list[_Curve]) -> dict[str, list[_Curve]]:
    """Curves by panel title: one panel per expert, or per expert and alpha if there are many."""
    by_expert = grouped(curves, lambda curve: curve.row.setup.expert)
    if not curves or max(map(len, by_expert.values())) <= _MAX_LINES_BEFORE_SPLIT:
        return by_expert
    panels: dict[str, list[_Curve]] = {}
    for curve in curves:
        title, alpha = curve.row.setup.expert, curve.row.setup.alpha
        suffix = f", α {alpha:g}" if alpha is not None else ""  # noqa: RUF001
        if suffix and suffix in curve.label:
            title += suffix
            curve = replace(curve, label=curve.label.replace(suffix, ""))
        panels.setdefault(title, []).append(curve)
    return panels

"""Accuracy and student entropy during training, by optimizer step."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lr_exp.report import paired, results
from lr_exp.report.figures.style import DOUBLE, SINGLE, Look, legend_columns, variant_look
from lr_exp.report.paired import Estimate
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.runs import Run
from lr_exp.report.summary import Results

ACCURACY_CAPTION = (
    "Average accuracy by optimizer step; step 0 is the untuned expert. A seed that trained nothing "
    "counts with the untuned expert's accuracy at every step. Bands show one standard error over "
    "questions and seeds."
)
ENTROPY_CAPTION = (
    "Mean entropy of the policy's next-token distribution at the tokens that the method trains on: "
    "the mean over seeds, with a band of one standard deviation if there are several. Methods "
    "train on different tokens, so compare the shapes of the lines, not their levels. Seeds that "
    "trained nothing are left out."
)
_MAX_LINES_BEFORE_SPLIT = 6  # beyond it, each alpha has its own panel
_MAX_LINES, _MAX_PANELS = 10, 9
_MAX_COLUMNS = 3
_Line = tuple[str, Row, Any]  # label, row, data
_PANEL_HEIGHT, _LEGEND_LINE_HEIGHT = 2.1, 0.15  # inches


def accuracy_by_step(new_figure: Any, sweep: Sweep) -> Any | None:
    lines = [
        (row.label, row, curve)
        for row in sweep.rows
        if not row.is_baseline and (curve := accuracy_curve(row, sweep.benchmarks))
    ]

    def draw(axes: Any, label: str, look: Look, curve: dict[int, Estimate]) -> None:
        steps = list(curve)
        mean = np.array([100 * estimate.mean for estimate in curve.values()])
        error = np.array([100 * estimate.stderr for estimate in curve.values()])
        axes.fill_between(
            steps, mean - error, mean + error, color=look.colour, alpha=0.15, linewidth=0
        )
        axes.plot(
            steps, mean, color=look.colour, linestyle=look.line, marker=look.marker, label=label
        )

    return _panels(new_figure, lines, draw, "average accuracy (%)")


def accuracy_curve(row: Row, benchmarks: Sequence[str]) -> dict[int, Estimate]:
    """Average accuracy by optimizer step, at the steps that all seeds have evaluated."""
    trained = [run for run in row.runs if run.evaluate.curve]
    stopped = [run for run in row.runs if run.stopped and run.results("expert")]
    measured = next((run for run in trained if run.results("expert")), None)
    if measured is None:
        return {}
    untuned = results.read_results([(measured, "expert")])  # the same for all seeds
    start = results.average(untuned, benchmarks)
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


def entropy_by_step(new_figure: Any, sweep: Sweep) -> Any | None:
    lines = [
        (row.label, row, table)
        for row in sweep.rows
        if not row.is_baseline and (table := _entropies(row.runs)) is not None
    ]

    def draw(axes: Any, label: str, look: Look, table: np.ndarray) -> None:
        steps, values = table[0], table[1:]
        mean = values.mean(axis=0)
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            axes.fill_between(
                steps, mean - spread, mean + spread, color=look.colour, alpha=0.15, linewidth=0
            )
        axes.plot(steps, mean, color=look.colour, linestyle=look.line, label=label)

    figure = _panels(new_figure, lines, draw, "student entropy (nats)")
    for axes in figure.axes if figure else []:
        axes.set_ylim(bottom=0)
    return figure


def _entropies(runs: Sequence[Run]) -> np.ndarray | None:
    """Shape (1 + seeds, steps): the steps that all seeds have logged, then each seed's entropy."""
    by_seed = []
    for run in runs:
        known = {e["step"]: e["entropy"] for e in run.training() if e.get("entropy") is not None}
        if known:
            by_seed.append(known)
    steps = sorted(set.intersection(*(set(known) for known in by_seed))) if by_seed else []
    if len(steps) < 2:
        return None
    return np.array([steps, *([known[step] for step in steps] for known in by_seed)], dtype=float)


def _panels(new_figure: Any, lines: list[_Line], draw: Any, ylabel: str) -> Any | None:
    """One panel per expert with a common legend; None without lines or with too many."""
    by_panel = _by_panel(lines)
    if not lines or len(by_panel) > _MAX_PANELS or max(map(len, by_panel.values())) > _MAX_LINES:
        return None
    count = len(by_panel)
    across = min(count, _MAX_COLUMNS)
    down = math.ceil(count / across)
    figure = new_figure(figsize=(SINGLE if count == 1 else DOUBLE, _PANEL_HEIGHT))
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for empty in panels[count:]:
        empty.set_visible(False)
    labels: dict[str, Any] = {}
    for axes, (title, own) in zip(panels, by_panel.items(), strict=False):
        for variants in grouped(own, lambda line: line[1].setup.method).values():
            for number, (label, row, data) in enumerate(variants):
                draw(axes, label, variant_look(row.setup.method, number), data)
        handles, names = axes.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        if count > 1:
            axes.set_title(title)
    for axes in panels[:count:across]:
        axes.set_ylabel(ylabel)
    columns = legend_columns(labels, 2 if count == 1 else 4)
    # The legend adds to the figure's height, so that panels keep theirs.
    legend_height = _LEGEND_LINE_HEIGHT * math.ceil(len(labels) / columns)
    figure.set_figheight(_PANEL_HEIGHT * down + legend_height)
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns)
    return figure


def _by_panel(lines: list[_Line]) -> dict[str, list[_Line]]:
    """Lines by panel title: one panel per expert, or per expert and alpha if there are many."""
    by_expert = grouped(lines, lambda line: line[1].setup.expert)
    if not lines or max(map(len, by_expert.values())) <= _MAX_LINES_BEFORE_SPLIT:
        return by_expert
    panels: dict[str, list[_Line]] = {}
    for label, row, data in lines:
        title, alpha = row.setup.expert, row.setup.alpha
        suffix = f", α {alpha:g}" if alpha is not None else ""  # noqa: RUF001
        if suffix and suffix in label:
            title, label = f"{title}{suffix}", label.replace(suffix, "")
        panels.setdefault(title, []).append((label, row, data))
    return panels

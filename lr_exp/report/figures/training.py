"""What happens while the expert is tuned: accuracy and policy entropy over the steps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lr_exp.report import paired, results
from lr_exp.report.figures.style import DOUBLE, SINGLE, Look, legend_columns, of_variant
from lr_exp.report.paired import Estimate
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.runs import Run
from lr_exp.report.summary import Results

ACCURACY_CAPTION = (
    "Average accuracy over optimizer steps; step 0 is the untuned expert, which a seed in which "
    "nothing was trained stays. The band is one standard error (questions and seeds)."
)
ENTROPY_CAPTION = (
    "Entropy of the policy at the steps that the method tunes on; with several seeds their mean, "
    "and a band of one standard deviation over them. Each method tunes on steps of its own, so its "
    "line differs from the others from step 0 on for that reason alone: a line's course compares, "
    "its height does not. Seeds in which nothing was trained have none."
)
_CROWD = 6  # lines in a panel, beyond which each alpha has its own
_MOST_LINES, _MOST_PANELS = 10, 9  # more are no picture
_ACROSS = 3  # panels side by side
Line = tuple[str, Row, Any]  # label, what it is of, its numbers
_PANEL, _LEGEND_LINE = 2.1, 0.15  # inches of height


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
    """The average at each step that all seeds have, decoded as the row is."""
    trained = [run for run in row.runs if run.evaluate.curve]
    stopped = [run for run in row.runs if run.stopped and run.results("expert")]
    measured = next((run for run in trained if run.results("expert")), None)
    if measured is None:
        return {}
    untuned = results.read_results([(measured, "expert")])  # no seed changes it
    start = results.average(untuned, benchmarks)
    if start is None:
        return {}
    by_run = [_points(run) for run in trained]
    found = {0: start}
    for step in sorted(set.intersection(*(set(points) for points in by_run))):
        here = [points[step] for points in by_run] + [run.results("expert") for run in stopped]
        if all(name in one for name in benchmarks for one in here):
            found[step] = paired.average(
                [
                    paired.accuracy_from_counts(
                        [one[name].correct / one[name].total for one in here],
                        here[0][name].total,
                    )
                    for name in benchmarks
                ]
            )
    return found if len(found) > 2 else {}


def _points(run: Run) -> dict[int, Results]:
    """A run's results by step, the finished adapter's among them."""
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

    figure = _panels(new_figure, lines, draw, "policy entropy (nats)")
    for axes in figure.axes if figure else []:
        axes.set_ylim(bottom=0)
    return figure


def _entropies(runs: Sequence[Run]) -> np.ndarray | None:
    """(1 + seeds, steps): the logged steps that all seeds have, then each seed's entropy."""
    by_seed = []
    for run in runs:
        known = {e["step"]: e["entropy"] for e in run.training() if e.get("entropy") is not None}
        if known:
            by_seed.append(known)
    steps = sorted(set.intersection(*(set(known) for known in by_seed))) if by_seed else []
    if len(steps) < 2:
        return None
    return np.array([steps, *([known[step] for step in steps] for known in by_seed)], dtype=float)


def _panels(new_figure: Any, lines: list[Line], draw: Any, what: str) -> Any | None:
    """One panel an expert, one legend below; None where there is nothing, or too much, to draw."""
    by_panel = _apart(lines)
    if not lines or len(by_panel) > _MOST_PANELS or max(map(len, by_panel.values())) > _MOST_LINES:
        return None
    count = len(by_panel)
    across = min(count, _ACROSS)
    down = math.ceil(count / across)
    figure = new_figure(figsize=(SINGLE if count == 1 else DOUBLE, _PANEL))
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for empty in panels[count:]:
        empty.set_visible(False)
    labels: dict[str, Any] = {}
    for axes, (title, own) in zip(panels, by_panel.items(), strict=False):
        for alike in grouped(own, lambda line: line[1].setup.method).values():
            for number, (label, row, data) in enumerate(alike):
                draw(axes, label, of_variant(row.setup.method, number), data)
        handles, names = axes.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        if count > 1:
            axes.set_title(title)
    for axes in panels[:count:across]:
        axes.set_ylabel(what)
    columns = legend_columns(labels, 2 if count == 1 else 4)
    # A long legend takes its own room, not the panels'.
    figure.set_figheight(_PANEL * down + _LEGEND_LINE * math.ceil(len(labels) / columns))
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns)
    return figure


def _apart(lines: list[Line]) -> dict[str, list[Line]]:
    """The lines of each panel, by its title: one an expert, or more where alphas crowd it."""
    by_expert = grouped(lines, lambda line: line[1].setup.expert)
    if not lines or max(map(len, by_expert.values())) <= _CROWD:
        return by_expert
    found: dict[str, list[Line]] = {}
    for label, row, data in lines:
        title, alpha = row.setup.expert, row.setup.alpha
        told = f", α {alpha:g}" if alpha is not None else ""  # noqa: RUF001
        if told and told in label:
            title, label = f"{title}{told}", label.replace(told, "")
        found.setdefault(title, []).append((label, row, data))
    return found

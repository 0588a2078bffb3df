"""Training metrics of a run, and accuracy and student entropy of a sweep, by optimizer step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lr_exp.report.analyse import accuracies, paired
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, captioned, legend_below, panel_grid
from lr_exp.report.figures.style import method_look, variant_look
from lr_exp.report.read.json_file import is_number
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Results

_CURVES = {  # in metrics.jsonl
    "loss": "loss\n(nats)",
    "entropy": "student entropy\n(nats)",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}
_MAX_LINES, _MAX_PANELS = 10, 9
_MAX_COLUMNS = 3

_Band = dict[int, tuple[float, float, float]]  # mean and both ends by optimizer step


def training_curves(run: Run) -> Figure | None:
    entries = sorted(run.metrics()[0], key=lambda entry: entry["step"])
    curves = {
        key: {one["step"]: one[key] for one in entries if is_number(one.get(key))}
        for key in _CURVES
    }
    curves = {key: values for key, values in curves.items() if len(values) > 1}
    if not curves:
        return None
    mpl_figure, panels = panel_grid(len(curves), 1, 0.95, 0.35, sharex=True)
    colour = method_look(run.method).colour
    for axes, (key, values) in zip(panels, curves.items(), strict=True):
        axes.plot(list(values), list(values.values()), color=colour)
        axes.set_ylim(bottom=min(0.0, *values.values()))
        axes.set_ylabel(_CURVES[key])
        axes.yaxis.get_major_locator().set_params(nbins=4)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=False)
    panels[-1].set_xlim(left=0)
    panels[-1].set_xlabel("optimizer step")
    mpl_figure.align_ylabels()
    return captioned("training_curves", "Training", mpl_figure)


def accuracy_by_step(sweep: Sweep) -> Figure | None:
    def band(row: Row) -> _Band:
        curve = accuracy_curve(row, sweep.benchmarks)
        return {
            step: (100 * one.mean, 100 * one.ci95[0], 100 * one.ci95[1])
            for step, one in curve.items()
        }

    mpl_figure = _drawn(sweep, band, "average accuracy (%)", with_markers=True)
    title = "Accuracy during training"
    return mpl_figure and captioned("accuracy_by_step", title, mpl_figure)


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
            by_name = [[one[name] for one in here] for name in benchmarks]
            curve[step] = paired.average([paired.accuracy_from_counts(*own) for own in by_name])
    return curve if len(curve) > 2 else {}


def _points(run: Run) -> dict[int, Results]:
    """A run's results by optimizer step, including the finished adapter's."""
    points = {point.step: point.results for point in run.evaluate.curve or []}
    points |= {run.distill.adapter_steps: run.results("tuned")}
    return {step: here for step, here in points.items() if step > 0 and here}


def entropy_by_step(sweep: Sweep) -> Figure | None:
    mpl_figure = _drawn(sweep, _entropies, "student entropy (nats)", with_markers=False)
    for axes in mpl_figure.axes if mpl_figure else ():
        axes.set_ylim(bottom=0)
    title = "Student entropy during training"
    return mpl_figure and captioned("entropy_by_step", title, mpl_figure)


def _entropies(row: Row) -> _Band:
    """Mean and standard deviation over seeds, at the steps that all of them have logged."""
    by_seed = [
        {e["step"]: e["entropy"] for e in run.metrics()[0] if e.get("entropy") is not None}
        for run in row.runs
    ]
    by_seed = [known for known in by_seed if known]
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    values = {step: [known[step] for known in by_seed] for step in steps}
    band: _Band = {}
    for step, own in values.items():
        mean, spread = float(np.mean(own)), float(np.std(own, ddof=1)) if len(own) > 1 else 0.0
        band[step] = mean, mean - spread, mean + spread
    return band


def _drawn(
    sweep: Sweep, read: Callable[[Row], _Band], ylabel: str, *, with_markers: bool
) -> Any | None:
    """One panel per expert; None without lines of at least two points, or with too many."""
    bands = [(row, read(row)) for row in sweep.rows if not row.is_baseline]
    bands = [(row, band) for row, band in bands if len(band) > 1]
    by_expert = grouped(bands, lambda one: one[0].setup.expert)
    count = len(by_expert)
    if not 0 < count <= _MAX_PANELS or max(map(len, by_expert.values())) > _MAX_LINES:
        return None
    mpl_figure, panels = panel_grid(count, min(count, _MAX_COLUMNS), 2.1, sharey=True)
    drawn = {}
    for axes, (title, own) in zip(panels, by_expert.items(), strict=True):
        for variants in grouped(own, lambda one: one[0].setup.method).values():
            for number, (row, band) in enumerate(variants):
                look, steps = variant_look(row.setup.method, number), list(band)
                mean, low, high = np.array(list(band.values())).T
                axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, linewidth=0)
                (drawn[row.label],) = axes.plot(
                    steps,
                    mean,
                    color=look.colour,
                    linestyle=look.line,
                    marker=look.marker if with_markers else "",
                )
        axes.set_xlim(left=0)
        axes.set_xlabel("optimizer step")
        if count > 1:
            axes.set_title(title)
    mpl_figure.supylabel(ylabel)
    legend_below(mpl_figure, drawn)
    return mpl_figure

"""Gain against expertise gap: one labelled point per pair of models."""

from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MplFigure

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.gaps import PairGap, measured_gap
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure
from lr_exp.report.figures.style import INK, MUTED, SINGLE, method_look
from lr_exp.report.names import benchmark_label, method_label

_CAPTION = (
    "Gain in average accuracy over the untuned expert (dashed line at 0) against the pair's "
    "expertise gap (expert minus amateur accuracy). Error bars show one standard error."
)
_MARKERS = "osD^vP"  # by expert
# Of a name relative to its point, in points: close to it first, then farther above and below.
_NAME_PLACES = [
    (x, y + sign * 9 * distance, alignment)
    for distance in range(5)
    for sign, y in ((1, 4), (-1, -10))
    for x, alignment in ((5, "left"), (-5, "right"))
]
_CLEARANCE = 12  # pixels that a name keeps from other points
_MAX_UNLINKED = 10  # points; a name farther from its point gets a line to it


@dataclass(frozen=True)
class _Point:
    row: Row
    gap: PairGap
    gain: Estimate

    @property
    def position(self) -> tuple[float, float]:
        """(gap, gain) in percentage points."""
        return 100 * self.gap.difference.mean, 100 * self.gain.mean


def gain_against_gap(sweep: Sweep) -> Figure | None:
    points = [
        _Point(row, gap, row.gain)
        for row in sweep.rows
        if row.gain and not row.is_baseline and (gap := measured_gap(row.runs))
    ]
    # Gaps on other benchmarks or with other decoders do not belong on the same axis.
    points = [point for point in points if _measure(point.gap) == _measure(points[0].gap)]
    if len(points) < 2:
        return None
    benchmark, decoder = _measure(points[0].gap)
    mpl_figure = MplFigure(figsize=(SINGLE, 2.7))
    axes = mpl_figure.subplots()
    axes.axhline(0, color=MUTED.light, linewidth=0.8, linestyle="--", zorder=0)
    series = grouped(points, lambda point: (point.row.setup.expert, point.row.setup.method))
    experts, methods = (list(dict.fromkeys(names)) for names in zip(*series, strict=True))
    for (expert, method), own in series.items():
        names = [expert] if len(experts) > 1 else []
        names += [method_label(method)] if len(methods) > 1 else []
        gaps, gains = zip(*(point.position for point in own), strict=True)
        axes.errorbar(
            gaps,
            gains,
            xerr=[100 * point.gap.difference.stderr for point in own],
            yerr=[100 * point.gain.stderr for point in own],
            color=method_look(method).colour,
            marker=_MARKERS[experts.index(expert) % len(_MARKERS)],
            linestyle="",
            elinewidth=0.8,
            label=", ".join(names),
        )
    axes.margins(x=0.22, y=0.2)
    if len(series) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    line = axes.annotate(
        "untuned expert",
        (1, 0),
        xycoords=("axes fraction", "data"),
        xytext=(0, -8),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color=MUTED.light,
    )
    axes.set_xlabel(f"expertise gap on {benchmark_label(benchmark)}, {decoder} (points)")
    axes.set_ylabel("gain of the average (points)")
    _label_points(axes, points, line)
    return Figure("gain_against_gap", "Gain against expertise gap", _CAPTION, mpl_figure)


def _measure(gap: PairGap) -> tuple[str, str]:
    return gap.benchmark, gap.decoder


def _label_points(axes: Any, points: list[_Point], line: Any) -> None:
    """Places each amateur's name near its point, where it overlaps the least."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    axes.figure.draw_without_rendering()  # fixes the axes' limits
    taken = [line.get_window_extent(renderer)]
    frame = axes.get_window_extent(renderer)
    marks = [tuple(axes.transData.transform(point.position)) for point in points]
    for point, mark in zip(points, marks, strict=True):
        text = axes.annotate(
            point.row.setup.amateur or "",
            point.position,
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            color=INK.light,
        )

        def overlaps(
            place: tuple[int, int, str], text: Any = text, mark: tuple[float, float] = mark
        ) -> int:
            x, y, alignment = place
            text.set(position=(x, y), horizontalalignment=alignment)
            box = text.get_window_extent(renderer)
            # Right above or below another point, it would look like that point's name.
            near = box.padded(0, _CLEARANCE)
            others = sum(near.contains(*other) for other in marks if other != mark)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1
            return sum(map(box.overlaps, taken)) + others + outside

        best = min(_NAME_PLACES, key=overlaps)
        overlaps(best)  # moves the name there
        taken.append(text.get_window_extent(renderer))
        x, y, _ = best
        if abs(y) > _MAX_UNLINKED:
            axes.annotate(
                "",
                point.position,
                xytext=(x, y + (0 if y > 0 else 6)),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": MUTED.light, "lw": 0.5, "shrinkB": 3},
            )

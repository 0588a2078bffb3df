"""Gain against expertise gap: one labelled point per pair of models."""

from dataclasses import dataclass
from typing import Any

from lr_exp.report.analyse.gaps import PairGap, measured_gap
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.style import INK, MUTED, SINGLE, method_look
from lr_exp.report.names import benchmark_label, method_label

CAPTION = (
    "Gain in average accuracy over the untuned expert (dashed line at 0) against the pair's "
    "expertise gap (expert minus amateur accuracy). Error bars show one standard error."
)
_MARKERS = "osD^vP"  # by expert


@dataclass(frozen=True)
class _Point:
    row: Row
    gap: PairGap
    gain: Estimate

    @property
    def position(self) -> tuple[float, float]:
        """(gap, gain) in percentage points."""
        return 100 * self.gap.difference.mean, 100 * self.gain.mean


def gain_against_gap(new_figure: Any, sweep: Sweep) -> Any | None:
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
    figure = new_figure(figsize=(SINGLE, 2.7))
    axes = figure.subplots()
    axes.axhline(0, color=MUTED.light, linewidth=0.8, linestyle="--", zorder=0)
    experts = list(dict.fromkeys(point.row.setup.expert for point in points))
    methods = list(dict.fromkeys(point.row.setup.method for point in points))
    for point in points:
        axes.errorbar(
            *point.position,
            xerr=100 * point.gap.difference.stderr,
            yerr=100 * point.gain.stderr,
            color=method_look(point.row.setup.method).colour,
            marker=_MARKERS[experts.index(point.row.setup.expert) % len(_MARKERS)],
            linewidth=0.8,
        )
    axes.margins(x=0.22, y=0.2)
    several = len(experts) > 1 or len(methods) > 1
    if several:
        for expert, method in dict.fromkeys(
            (p.row.setup.expert, p.row.setup.method) for p in points
        ):
            label = ", ".join(
                ([expert] if len(experts) > 1 else [])
                + ([method_label(method)] if len(methods) > 1 else [])
            )
            marker = _MARKERS[experts.index(expert) % len(_MARKERS)]
            axes.plot([], [], color=method_look(method).colour, marker=marker, ls="", label=label)
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
    return figure


def _measure(gap: PairGap) -> tuple[str, str]:
    return gap.benchmark, gap.decoder


_CLEARANCE = 12  # pixels that a name keeps from other points
_MAX_UNLINKED = 10  # points; a name farther from its point gets a line to it


def _label_points(axes: Any, points: list[_Point], line: Any) -> None:
    """Places each amateur's name near its point, where it overlaps the least."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    axes.figure.draw_without_rendering()  # fixes the axes' limits
    taken = [line.get_window_extent(renderer)]
    frame = axes.get_window_extent(renderer)
    marks = [axes.transData.transform(point.position) for point in points]
    # Close to the point first, then farther above and below it.
    offsets = [
        (x, y + sign * 9 * distance, alignment)
        for distance in range(5)
        for sign, y in ((1, 4), (-1, -10))
        for x, alignment in ((5, "left"), (-5, "right"))
    ]
    for point in points:
        best = None
        for x, y, alignment in offsets:
            text = axes.annotate(
                point.row.setup.amateur or "",
                point.position,
                xytext=(x, y),
                textcoords="offset points",
                ha=alignment,
                fontsize=7,
                color=INK.light,
            )
            box = text.get_window_extent(renderer)
            hits = sum(box.overlaps(other) for other in taken)
            # Right above or below another point, it would look like that point's name.
            near = box.padded(0, _CLEARANCE)
            own = axes.transData.transform(point.position)
            hits += sum(near.contains(*mark) for mark in marks if tuple(mark) != tuple(own))
            hits += box.x0 < frame.x0 or box.x1 > frame.x1
            if best is None or hits < best[0]:
                if best:
                    best[1].remove()
                best = (hits, text, box)
            else:
                text.remove()
        if best:
            taken.append(best[2])
            offset = best[1].get_position()
            if abs(offset[1]) > _MAX_UNLINKED:
                axes.annotate(
                    "",
                    point.position,
                    xytext=(offset[0], offset[1] + (0 if offset[1] > 0 else 6)),
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "-", "color": MUTED.light, "lw": 0.5, "shrinkB": 3},
                )

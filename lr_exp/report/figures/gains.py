"""Gain against expertise gap: one point per pair of models."""

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.gaps import PairGap, measured_gap
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import MUTED, variant_look
from lr_exp.report.names import benchmark_label, method_label

_CAPTION = (
    "Gain in average accuracy over the untuned expert (dashed line at 0) against the pair's "
    "expertise gap (expert minus amateur accuracy). Error bars show 95 % intervals over questions."
)


def gain_against_gap(sweep: Sweep) -> Figure | None:
    points = [
        (row, gap)
        for row in sweep.rows
        if row.gain and not row.is_baseline and (gap := measured_gap(row.runs))
    ]
    # Gaps on other benchmarks or with other decoders do not belong on the same axis.
    points = [point for point in points if _measure(point[1]) == _measure(points[0][1])]
    if len(points) < 2:
        return None
    benchmark, decoder = _measure(points[0][1])
    has_methods = len({row.setup.method for row, _ in points}) > 1

    def label(point: tuple[Row, PairGap]) -> str:
        setup = point[0].setup
        method = f", {method_label(setup.method)}" if has_methods else ""
        return f"{setup.expert} / {setup.amateur}{method}"

    mpl_figure, (axes,) = panel_grid(1, 1, 2.4)
    axes.axhline(0, color=MUTED.light, linewidth=0.8, linestyle="--", zorder=0)
    drawn = {}
    for number, (name, own) in enumerate(grouped(points, label).items()):
        look = variant_look(own[0][0].setup.method, number)
        drawn[name] = axes.errorbar(
            [100 * gap.difference.mean for _, gap in own],
            [100 * row.gain.mean for row, _ in own if row.gain],
            xerr=whiskers([gap.difference for _, gap in own]),
            yerr=whiskers([row.gain for row, _ in own if row.gain]),
            color=look.colour,
            marker=look.marker,
            linestyle="",
            elinewidth=0.8,
        )
    axes.set_xlabel(f"expertise gap on {benchmark_label(benchmark)}, {decoder} (points)")
    axes.set_ylabel("gain of the average (points)")
    legend_below(mpl_figure, drawn)
    return Figure("gain_against_gap", "Gain against expertise gap", _CAPTION, mpl_figure)


def _measure(gap: PairGap) -> tuple[str, str]:
    return gap.benchmark, gap.decoder

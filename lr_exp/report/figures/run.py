"""Figures of one run; each drawing function returns None where the run lacks the data."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as MplFigure

from lr_exp.report.analyse import paired
from lr_exp.report.figures.figure import Figure
from lr_exp.report.figures.style import FAINT, GREY, INK, MUTED, SINGLE, method_look
from lr_exp.report.names import benchmark_label
from lr_exp.report.read.json_file import is_number
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Result

_GAIN_CAPTION = (
    "Accuracy (pass@1 in %) on each benchmark before and after tuning. Whiskers show one standard "
    "error over the n questions."
)
_TRAINING_CAPTION = (
    "Training metrics by optimizer step. Student entropy is the mean entropy of the tuned model's "
    "next-token distribution at the tokens trained on; 0 means that it predicts a single token."
)
_BY_DIVERGENCE = "kl_above_beta"  # the step rule that is a threshold on D alone
_MAX_POSITION_BINS = 40  # beyond it, neighbouring bins are merged
_LOG_BASELINE = 0.7  # lower end of a log scale of counts, so that a count of 1 is visible
_CURVES = {  # in metrics.jsonl
    "loss": "loss\n(nats)",
    "entropy": "student entropy\n(nats)",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}
_MAX_MARKED_POINTS = 30  # beyond it, curves have no point markers


def kl_histogram(run: Run) -> Figure | None:
    histogram = run.sample.histogram
    if not histogram or not any(histogram.counts):
        return None
    width, counts = histogram.bin_nats, histogram.counts
    rule = run.settings.get("method", {}).get("select")
    beta = run.beta if rule == _BY_DIVERGENCE else None
    last = max(i for i, count in enumerate(counts) if count)
    shown = min(len(counts), max(last + 2, math.ceil(((beta or 0) + 0.5) / width)))
    edges = [round(width * i, 9) for i in range(shown + 1)]
    mpl_figure = MplFigure(figsize=(SINGLE, 2.3))
    axes = mpl_figure.subplots()
    axes.set_yscale("log")

    def draw(part: list[float], **look: Any) -> None:
        starts = [min(int(edge / width + 1e-6), shown - 1) for edge in part[:-1]]
        heights = [max(counts[i], _LOG_BASELINE) for i in starts]
        axes.stairs(heights, part, baseline=_LOG_BASELINE, fill=True, linewidth=0.6, **look)

    if beta is None or beta >= edges[-1]:
        draw(edges, facecolor=GREY.light)
    else:  # a bin that contains the threshold is drawn on both sides of it
        colour = method_look(run.method).colour
        draw([*(e for e in edges if e < beta), beta], facecolor=GREY.light, label="not kept")
        kept = [beta, *(edge for edge in edges if edge > beta)]
        draw(kept, facecolor="none", edgecolor=colour, hatch="//////", label="kept")
        axes.axvline(beta, color=INK.light, linewidth=0.9, linestyle="--")
        axes.annotate(
            f"β = {beta:g}",
            (beta, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
        )
        axes.legend(loc="upper right")
    axes.set_ylim(_LOG_BASELINE, 2.2 * max(counts))
    axes.set_xlim(0, edges[-1])
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.yaxis.set_minor_formatter(lambda count, _: "")
    axes.set_xlabel("divergence D (nats)")
    axes.set_ylabel("scored steps")
    caption = f"Number of scored steps by divergence D, in bins of {width:g} nats, on a log scale"
    caption += " (the last bin is open). " if counts[-1] else ". "
    if beta is None:
        caption += "This method does not keep steps by a threshold on D."
    else:
        caption += f"Steps above the threshold β = {beta:g} (hatched) are kept."
    return Figure("kl_histogram", "Divergence of scored steps", caption, mpl_figure)


def kept_by_position(run: Run) -> Figure | None:
    counts = run.sample.by_position
    if not counts or not any(counts.steps) or counts.kept == counts.steps:
        return None  # a flat line at 100 %
    merged = math.ceil(len(counts.steps) / _MAX_POSITION_BINS)
    width = counts.bin_tokens * merged
    steps, kept = _sums(counts.steps, merged), _sums(counts.kept, merged)
    bins = [i for i, count in enumerate(steps) if count]
    low, share, high = zip(*(wilson(kept[i], steps[i]) for i in bins), strict=True)
    look = method_look(run.method)
    mpl_figure = MplFigure(figsize=(SINGLE, 2.7))
    upper, lower = mpl_figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    upper.errorbar(
        [width * (i + 0.5) for i in bins],
        [100 * value for value in share],
        yerr=[
            [100 * (value - end) for value, end in zip(share, low, strict=True)],
            [100 * (end - value) for value, end in zip(share, high, strict=True)],
        ],
        color=look.colour,
        marker=look.marker,
        linewidth=1,
        elinewidth=0.8,
        clip_on=False,  # keeps the marker of a share of 0 whole
    )
    upper.set_ylim(bottom=0)
    upper.set_ylabel("kept steps (%)")
    edges = [width * i for i in range(len(steps) + 1)]
    lower.stairs(steps, edges, color=GREY.light, fill=True)
    lower.set_ylim(bottom=0)
    lower.set_xlim(0, edges[-1])
    lower.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    lower.yaxis.get_major_locator().set_params(nbins=3)
    is_scored = run.sample.histogram is not None  # against an amateur
    lower.set_ylabel("scored\nsteps" if is_scored else "steps")
    lower.set_xlabel("position in the answer (tokens)")
    mpl_figure.align_ylabels()
    caption = (
        f"Share of {'scored ' if is_scored else ''}steps that were kept, by the token's position "
        "in its answer. Whiskers show one standard error (Wilson). Below: the number of steps at "
        "these positions. The last bin includes all later positions."
    )
    return Figure("kept_by_position", "Kept steps by position in the answer", caption, mpl_figure)


def _sums(counts: Sequence[int], merged: int) -> list[int]:
    return [sum(counts[i : i + merged]) for i in range(0, len(counts), merged)]


def wilson(kept: int, steps: int) -> tuple[float, float, float]:
    """(low, share, high) of the Wilson interval of one standard error, in [0, 1].

    Unlike the binomial error, it is not 0 where none or all of the steps were kept.
    """
    share = kept / steps
    middle = (share + 0.5 / steps) / (1 + 1 / steps)
    half = math.sqrt(share * (1 - share) / steps + 0.25 / steps**2) / (1 + 1 / steps)
    return max(0.0, min(share, middle - half)), share, min(1.0, max(share, middle + half))


def training_curves(run: Run) -> Figure | None:
    curves = {}
    entries = run.training()
    for key in _CURVES:
        known = {one["step"]: one[key] for one in entries if is_number(one.get(key))}
        if len(known) > 1:
            curves[key] = dict(sorted(known.items()))
    if not curves:
        return None
    mpl_figure = MplFigure(figsize=(SINGLE, 0.95 * len(curves) + 0.35))
    panels = mpl_figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    colour = method_look(run.method).colour
    for axes, (key, values) in zip(panels, curves.items(), strict=True):
        marker = "." if len(values) <= _MAX_MARKED_POINTS else ""
        axes.plot(list(values), list(values.values()), color=colour, marker=marker)
        lowest, highest = min(0.0, *values.values()), max(values.values())
        if lowest < highest:
            axes.set_ylim(lowest, highest + 0.08 * (highest - lowest))
        axes.set_ylabel(_CURVES[key])
        axes.yaxis.get_major_locator().set_params(nbins=4)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=False)
    panels[-1].set_xlim(left=0)
    panels[-1].set_xlabel("optimizer step")
    mpl_figure.align_ylabels()
    return Figure("training_curves", "Training", _TRAINING_CAPTION, mpl_figure)


def gain_by_benchmark(run: Run) -> Figure | None:
    before, after = run.results("expert"), run.results("tuned")
    names = [name for name in run.benchmarks if name in before and name in after]
    if not names:
        return None
    mpl_figure = MplFigure(figsize=(SINGLE, 0.34 * len(names) + 0.95))
    axes = mpl_figure.subplots()
    look = method_look(run.method)
    hollow: dict[str, Any] = {"color": GREY.light, "marker": "o", "markerfacecolor": "w"}
    filled: dict[str, Any] = {"color": look.colour, "marker": look.marker}
    for results, label, shift, style in (
        (before, "before", -0.13, hollow),
        (after, "after", 0.13, filled),
    ):
        axes.errorbar(
            [100 * results[name].accuracy for name in names],
            [y + shift for y in range(len(names))],
            xerr=[100 * _stderr(results[name]) for name in names],
            linestyle="",
            elinewidth=1,
            label=label,
            zorder=3,
            **style,
        )
    for y, name in enumerate(names):
        ends = [100 * results[name].accuracy for results in (before, after)]
        axes.plot(ends, [y - 0.13, y + 0.13], color=MUTED.light, linewidth=0.8, zorder=2)
    labels = [f"{benchmark_label(name)}\n(n = {after[name].total:,})" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.grid(axis="x", color=FAINT.light)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy (%)")
    mpl_figure.legend(loc="outside lower center", ncols=2)
    title = "Accuracy before and after, by benchmark"
    return Figure("gain_by_benchmark", title, _GAIN_CAPTION, mpl_figure)


def _stderr(result: Result) -> float:
    share = result.correct / result.total
    return paired.accuracy_from_counts([share], result.total).stderr

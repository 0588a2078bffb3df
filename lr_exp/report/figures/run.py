"""Figures of one run; each drawing function returns None where the run lacks the data."""

import math
from collections.abc import Sequence
from typing import Any

from lr_exp.report import paired
from lr_exp.report.figures.style import FAINT, GREY, INK, MUTED, SINGLE, method_look
from lr_exp.report.json_file import is_number
from lr_exp.report.names import benchmark_label
from lr_exp.report.runs import Run
from lr_exp.report.summary import Histogram, Result

TRAINING_CAPTION = (
    "Training metrics by optimizer step. Student entropy is the mean entropy of the tuned model's "
    "next-token distribution at the tokens trained on; 0 means that it predicts a single token."
)
GAIN_CAPTION = (
    "Accuracy (pass@1 in %) on each benchmark before and after tuning. Whiskers show one standard "
    "error over the n questions."
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


def histogram_caption(run: Run) -> str:
    beta, histogram = _threshold(run), run.sample.histogram or Histogram(bin_nats=0.1, counts=[0])
    width, counts = histogram.bin_nats, histogram.counts
    caption = f"Number of scored steps by divergence D, in bins of {width:g} nats, on a log scale"
    caption += " (the last bin is open). " if counts[-1] else ". "
    if beta is None:
        return caption + "This method does not keep steps by a threshold on D."
    return caption + f"Steps above the threshold β = {beta:g} (hatched) are kept."


def kl_histogram(new_figure: Any, run: Run) -> Any | None:
    histogram = run.sample.histogram
    if not histogram or not any(histogram.counts):
        return None
    width, counts, beta = histogram.bin_nats, histogram.counts, _threshold(run)
    last = max(i for i, count in enumerate(counts) if count)
    shown = min(len(counts), max(last + 2, math.ceil(((beta or 0) + 0.5) / width)))
    edges = [round(width * i, 9) for i in range(shown + 1)]
    figure = new_figure(figsize=(SINGLE, 2.3))
    axes = figure.subplots()
    axes.set_yscale("log")
    split = edges[-1] if beta is None else min(beta, edges[-1])
    below = [edge for edge in edges if edge < split] + [split]
    above = [split] + [edge for edge in edges if edge > split]
    heights = [max(count, _LOG_BASELINE) for count in counts]
    # A bin that contains the threshold is drawn on both sides of it.
    for part, look in (
        (below, {"facecolor": GREY.light, "label": "steps" if beta is None else "not kept"}),
        (
            above,
            {
                "facecolor": "none",
                "edgecolor": method_look(run.method).colour,
                "hatch": "//////",
                "label": "kept",
            },
        ),
    ):
        if len(part) > 1:
            values = [heights[min(int(edge / width + 1e-6), shown - 1)] for edge in part[:-1]]
            axes.stairs(values, part, baseline=_LOG_BASELINE, fill=True, linewidth=0.6, **look)
    axes.set_ylim(_LOG_BASELINE, 2.2 * max(counts))
    axes.set_xlim(0, edges[-1])
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.yaxis.set_minor_formatter(lambda count, _: "")
    axes.set_xlabel("divergence D (nats)")
    axes.set_ylabel("scored steps")
    if beta is not None and split < edges[-1]:
        axes.axvline(beta, color=INK.light, linewidth=0.9, linestyle="--")
        axes.annotate(
            f"β = {beta:g}",
            (beta, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
        )
        axes.legend(loc="upper right", ncols=1)
    return figure


def _threshold(run: Run) -> float | None:
    """Beta, if the method keeps steps by this threshold alone."""
    rule = run.settings.get("method", {}).get("steps")
    return run.beta if rule == _BY_DIVERGENCE else None


def position_caption(run: Run) -> str:
    steps = "scored steps" if _is_scored(run) else "steps"
    return (
        f"Share of {steps} that were kept, by the token's position in its answer. Whiskers show "
        "one standard error (Wilson). Below: the number of steps at these positions. The last bin "
        "includes all later positions."
    )


def _is_scored(run: Run) -> bool:
    """Whether the steps were scored against an amateur."""
    return run.sample.histogram is not None


def kept_by_position(new_figure: Any, run: Run) -> Any | None:
    counts = run.sample.by_position
    if not counts or not any(counts.steps) or counts.kept == counts.steps:
        return None  # a flat line at 100 %
    together = math.ceil(len(counts.steps) / _MAX_POSITION_BINS)
    width = counts.bin_tokens * together
    steps, kept = _summed(counts.steps, together), _summed(counts.kept, together)
    bins = [i for i, count in enumerate(steps) if count]
    centres = [width * (i + 0.5) for i in bins]
    low, share, high = zip(*(_wilson(kept[i], steps[i]) for i in bins), strict=True)
    look = method_look(run.method)
    figure = new_figure(figsize=(SINGLE, 2.7))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    upper.errorbar(
        centres,
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
    lower.set_ylabel("scored\nsteps" if _is_scored(run) else "steps")
    lower.set_xlabel("position in the answer (tokens)")
    figure.align_ylabels()
    return figure


def _summed(counts: Sequence[int], together: int) -> list[int]:
    return [sum(counts[i : i + together]) for i in range(0, len(counts), together)]


def _wilson(kept: int, steps: int) -> tuple[float, float, float]:
    """(low, share, high) of the Wilson interval of one standard error, in [0, 1].

    Unlike the binomial error, it is not 0 where none or all of the steps were kept.
    """
    share = kept / steps
    middle = (share + 0.5 / steps) / (1 + 1 / steps)
    half = math.sqrt(share * (1 - share) / steps + 0.25 / steps**2) / (1 + 1 / steps)
    return max(0.0, min(share, middle - half)), share, min(1.0, max(share, middle + half))


def training_curves(new_figure: Any, run: Run) -> Any | None:
    curves = {}
    entries = run.training()
    for key in _CURVES:
        known = {one["step"]: one[key] for one in entries if is_number(one.get(key))}
        if len(known) > 1:
            curves[key] = dict(sorted(known.items()))
    if not curves:
        return None
    figure = new_figure(figsize=(SINGLE, 0.95 * len(curves) + 0.35))
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
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
    figure.align_ylabels()
    return figure


def gain_by_benchmark(new_figure: Any, run: Run) -> Any | None:
    before, after = run.results("expert"), run.results("tuned")
    names = [name for name in run.benchmarks if name in before and name in after]
    if not names:
        return None
    figure = new_figure(figsize=(SINGLE, 0.34 * len(names) + 0.95))
    axes = figure.subplots()
    looks = ((before, GREY.light, "w", "before", -0.13), (after, None, None, "after", 0.13))
    for results, colour, face, label, shift in looks:
        colour = colour or method_look(run.method).colour
        values = [100 * results[name].accuracy for name in names]
        errors = [100 * _stderr(results[name]) for name in names]
        axes.errorbar(
            values,
            [y + shift for y in range(len(names))],
            xerr=errors,
            color=colour,
            marker="o" if label == "before" else method_look(run.method).marker,
            markerfacecolor=face or colour,
            linestyle="",
            elinewidth=1,
            label=label,
            zorder=3,
        )
    for y, name in enumerate(names):
        ends = [100 * results[name].accuracy for results in (before, after)]
        axes.plot(ends, [y - 0.13, y + 0.13], color=MUTED.light, linewidth=0.8, zorder=2)
    axes.set_yticks(
        range(len(names)),
        [f"{benchmark_label(name)}\n(n = {after[name].total:,})" for name in names],
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.grid(axis="x", color=FAINT.light)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy (%)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _stderr(result: Result) -> float:
    share = result.correct / result.total
    return paired.accuracy_from_counts([share], result.total).stderr

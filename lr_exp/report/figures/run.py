"""Figures of one run; each drawing function returns None where the run lacks the data."""

import numpy as np

from lr_exp.report.analyse import paired
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import method_look
from lr_exp.report.read.json_file import is_number
from lr_exp.report.read.runs import Run

_TRAINING_CAPTION = (
    "Training metrics by optimizer step. Student entropy is the mean entropy of the tuned model's "
    "next-token distribution at the tokens trained on; 0 means that it predicts a single token."
)
_CURVES = {  # in metrics.jsonl
    "loss": "loss\n(nats)",
    "entropy": "student entropy\n(nats)",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}


def kept_by_position(run: Run) -> Figure | None:
    counts = run.sample.by_position
    if not counts or not any(counts.steps) or counts.kept == counts.steps:
        return None  # a flat line at 100 %
    steps, kept = np.array(counts.steps), np.array(counts.kept)
    known = np.flatnonzero(steps)
    share = 100 * kept[known] / steps[known]
    low, high = 100 * np.array([paired.wilson(kept[i] / steps[i], steps[i]) for i in known]).T
    look = method_look(run.method)
    mpl_figure, (axes,) = panel_grid(1, 1, 2)
    axes.errorbar(
        counts.bin_tokens * (known + 0.5),
        share,
        yerr=[share - low, high - share],
        color=look.colour,
        marker=look.marker,
        linewidth=1,
        elinewidth=0.8,
        clip_on=False,  # keeps the marker of a share of 0 whole
    )
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, counts.bin_tokens * len(steps))
    axes.set_ylabel("kept steps (%)")
    axes.set_xlabel("position in the answer (tokens)")
    scored = "scored " if run.sample.histogram else ""  # against an amateur
    caption = (
        f"Share of {scored}steps that were kept, by the token's position in its answer. Whiskers "
        "show 95 % intervals (Wilson). The last bin includes all later positions."
    )
    return Figure("kept_by_position", "Kept steps by position in the answer", caption, mpl_figure)


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
    return Figure("training_curves", "Training", _TRAINING_CAPTION, mpl_figure)

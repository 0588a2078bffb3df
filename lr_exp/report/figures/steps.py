"""The histograms of step divergences, one panel a pair."""

import math
from typing import Any

from lr_exp.report.figures.style import DOUBLE, GREY, INK, SINGLE
from lr_exp.report.profiles import Profile, profiles
from lr_exp.report.rows import Sweep

CAPTION = (
    "Share of scored steps by their divergence D, in bins of 0.1 nat, on a log scale (the last bin "
    "is open). The vertical line is the threshold β: steps to its right are kept."
)
_ROW = 0.85  # inches of height
_ONE_COLUMN = 5  # panels
_MOST = 20  # more are no picture; the table has them


def kl_histogram(new_figure: Any, sweep: Sweep) -> Any | None:
    found = [one for one in profiles(sweep) if any(one.counts)]
    if not found or len(found) > _MOST:
        return None
    across = 1 if len(found) <= _ONE_COLUMN else 2
    down = math.ceil(len(found) / across)
    height = 2.1 if len(found) == 1 else _ROW * down + 0.4
    figure = new_figure(figsize=(SINGLE if across == 1 else DOUBLE, height))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for empty in panels.flatten()[len(found) :]:
        empty.set_visible(False)
        # The panel above it has nobody else to say what the axis is.
        panels[down - 2, across - 1].xaxis.set_tick_params(labelbottom=True)
    labels = [one.label for one in found]
    lowest = 1.0
    for axes, one in zip(panels.flatten(), found, strict=False):
        label = one.label
        if labels.count(label) > 1:
            label = f"{label} ({one.methods[0]})"
        lowest = min(lowest, _panel(axes, one, label))
    first = panels[0, 0]
    first.set_yscale("log")
    first.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    first.set_ylim(lowest / 2, 1.5)
    # In a low panel every second power of ten has room for its number.
    stride = 1 if len(found) == 1 else 2
    first.set_yticks([10**-n for n in range(0, math.ceil(-math.log10(lowest / 2)), stride)])
    first.minorticks_off()
    first.set_xlim(0, max(one.bin_nats * len(one.counts) for one in found))
    figure.supxlabel("divergence D (nats)")
    figure.supylabel("share of scored steps (%)")
    return figure


def _panel(axes: Any, profile: Profile, label: str) -> float:
    """Draws one pair; gives the smallest share that is not 0."""
    total = sum(profile.counts)
    shares = [count / total for count in profile.counts]
    edges = [profile.bin_nats * i for i in range(len(shares) + 1)]
    axes.stairs(shares, edges, color=GREY.light, fill=True)
    for beta in profile.betas:
        axes.axvline(beta, color=INK.light, linewidth=0.8, linestyle="--")
    betas = f" · β {', '.join(f'{beta:g}' for beta in profile.betas)}" if profile.betas else ""
    axes.set_title(f"{label}{betas}", loc="right", fontsize=7.5, pad=2)
    return min(share for share in shares if share)

"""Histograms of step divergences, one panel per pair of models."""

import math
from typing import Any

from lr_exp.report.analyse.profiles import Profile, profiles
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import GREY, INK

_CAPTION = (
    "Share of scored steps by divergence D, in bins of 0.1 nats, on a log scale (the last bin is "
    "open). Dashed lines mark the thresholds β of the runs; steps above β are kept."
)
_PANEL_HEIGHT = 0.85  # inches
_MAX_PANELS_IN_COLUMN = 5
_MAX_PANELS = 20


def kl_histogram(sweep: Sweep) -> Figure | None:
    shown = [profile for profile in profiles(sweep) if any(profile.counts)]
    if not shown or len(shown) > _MAX_PANELS:
        return None
    across = 1 if len(shown) <= _MAX_PANELS_IN_COLUMN else 2
    height = 2.1 if len(shown) == 1 else _PANEL_HEIGHT * math.ceil(len(shown) / across) + 0.4
    mpl_figure, panels = panel_grid(len(shown), across, height, sharex=True, sharey=True)
    # The panel above an empty one needs its own tick labels.
    panels[-across].xaxis.set_tick_params(labelbottom=True)
    labels = [profile.label for profile in shown]
    lowest = 1.0
    for axes, profile in zip(panels, shown, strict=True):
        label = profile.label
        if labels.count(label) > 1:
            label = f"{label} ({profile.methods[0]})"
        lowest = min(lowest, _panel(axes, profile, label))
    first = panels[0]
    first.set_yscale("log")
    first.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    first.set_ylim(lowest / 2, 1.5)
    # Low panels have room for every second power of ten only.
    stride = 1 if len(shown) == 1 else 2
    first.set_yticks([10**-n for n in range(0, math.ceil(-math.log10(lowest / 2)), stride)])
    first.minorticks_off()
    first.set_xlim(0, max(profile.bin_nats * len(profile.counts) for profile in shown))
    mpl_figure.supxlabel("divergence D (nats)")
    mpl_figure.supylabel("share of scored steps (%)")
    return Figure("kl_histogram", "Divergence of scored steps", _CAPTION, mpl_figure)


def _panel(axes: Any, profile: Profile, label: str) -> float:
    """Draws one pair; returns the smallest nonzero share."""
    total = sum(profile.counts)
    shares = [count / total for count in profile.counts]
    edges = [profile.bin_nats * i for i in range(len(shares) + 1)]
    axes.stairs(shares, edges, color=GREY.light, fill=True)
    for beta in profile.betas:
        axes.axvline(beta, color=INK.light, linewidth=0.8, linestyle="--")
    betas = f" · β {', '.join(f'{beta:g}' for beta in profile.betas)}" if profile.betas else ""
    axes.set_title(f"{label}{betas}", loc="right", fontsize=7.5, pad=2)
    return min(share for share in shares if share)

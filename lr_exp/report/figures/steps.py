"""Histograms of step divergences, one panel per pair of models."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from lr_exp.report.analyse.profiles import Profile, profile_of, profiles
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import GREY, INK
from lr_exp.report.read.runs import Run

_MAX_PANELS_IN_COLUMN = 5
_MAX_PANELS = 20
_TITLE_CHARS = 60


def kl_histogram(run: Run) -> Figure | None:
    """The histogram of one run."""
    return _histograms([profile_of([run])]) if run.sample.histogram else None


def kl_histograms(sweep: Sweep) -> Figure | None:
    """One panel per pair."""
    return _histograms(profiles(sweep))


def _histograms(every: Sequence[Profile]) -> Figure | None:
    shown = [profile for profile in every if any(profile.counts)]
    if not shown or len(shown) > _MAX_PANELS:
        return None
    across = 1 if len(shown) <= _MAX_PANELS_IN_COLUMN else 2
    height = 1.7 if len(shown) == 1 else 0.85
    mpl_figure, panels = panel_grid(len(shown), across, height, 0.4, sharex=True, sharey=True)
    # The panel above an empty one needs its own tick labels.
    panels[-across].xaxis.set_tick_params(labelbottom=True)
    lowest, width = 1.0, 0.0
    for axes, profile in zip(panels, shown, strict=True):
        counts = np.array(profile.counts)
        edges = profile.bin_nats * np.arange(len(counts) + 1)
        axes.stairs(counts / counts.sum(), edges, color=GREY.light, fill=True)
        lowest = min(lowest, counts[counts > 0].min() / counts.sum())
        width = max(width, edges[np.flatnonzero(counts)[-1] + 1], *profile.betas)
        betas = ", ".join(f"{beta:g}" for beta in profile.betas)
        title = f"{profile.label} · β {betas}" if betas else profile.label
        for beta in profile.betas:
            axes.axvline(beta, color=INK.light, linewidth=0.8, linestyle="--")
        axes.set_title(textwrap.fill(title, _TITLE_CHARS), loc="right", fontsize=7.5, pad=2)
    first = panels[0]
    first.set_yscale("log")
    first.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    first.set_ylim(lowest / 2, 1.5)
    # Low panels have room for every second power of ten only.
    stride = 1 if len(shown) == 1 else 2
    first.set_yticks([10**-n for n in range(0, math.ceil(-math.log10(lowest / 2)), stride)])
    first.minorticks_off()
    first.set_xlim(0, width)
    mpl_figure.supxlabel("divergence D (nats)")
    mpl_figure.supylabel("share of scored steps (%)")
    caption = (
        f"Share of scored steps by divergence D, in bins of {shown[0].bin_nats:g} nats, on a log "
        "scale (the last bin is open). "
    )
    if any(profile.betas for profile in shown):
        caption += "Dashed lines mark thresholds β; steps above β are kept."
    else:
        caption += "Steps were not kept by a threshold on D."
    return Figure("kl_histogram", "Divergence of scored steps", caption, mpl_figure)

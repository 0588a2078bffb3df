"""Lorenz curves: how few token positions hold the divergence and the loss, a panel per pair."""

import textwrap
from collections.abc import Sequence

import numpy as np

from lr_exp.report.analyse.profiles import Profile, profile_of, profiles
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, captioned, legend_below, panel_grid
from lr_exp.report.figures.style import BLUE, GOLD, INK, MUTED
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Histogram

_MAX_PANELS_IN_COLUMN = 5
_MAX_PANELS = 20
_TITLE_CHARS = 60


def lorenz_curve(run: Run) -> Figure | None:
    """The curves of one run."""
    return _curves([profile_of([run])]) if run.sample.histogram else None


def lorenz_curves(sweep: Sweep) -> Figure | None:
    """One panel per pair."""
    return _curves(profiles(sweep))


def _curves(every: Sequence[Profile]) -> Figure | None:
    shown = [profile for profile in every if any(profile.histogram.nats or ())]
    if not shown or len(shown) > _MAX_PANELS:
        return None
    across = 1 if len(shown) <= _MAX_PANELS_IN_COLUMN else 2
    mpl_figure, panels = panel_grid(len(shown), across, 1.9, 0.4, sharex=True, sharey=True)
    drawn = {}
    for axes, profile in zip(panels, shown, strict=True):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle=":")
        lines = {
            "divergence D": (profile.histogram, BLUE, "-"),
            "loss before training": (profile.loss, GOLD, "--"),
        }
        for label, (histogram, colour, line) in lines.items():
            if histogram and any(histogram.nats or ()):
                (drawn[label],) = axes.plot(*_lorenz(histogram), color=colour, linestyle=line)
        if profile.kept and profile.by_threshold:
            axes.axvline(100 * (1 - profile.kept), color=INK, linewidth=0.8, linestyle="--")
        title = f"{profile.label} · {profile.selection}"
        title = f"{textwrap.fill(title, _TITLE_CHARS)}\n{_shares(profile)}"
        axes.set_title(title, loc="right", fontsize=7.5, pad=2)
    panels[0].set_xlim(0, 100)
    panels[0].set_ylim(0, 100)
    for axes in panels[-across:]:  # also above an empty panel
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("share of scored steps, lowest first (%)")
    mpl_figure.supylabel("share of the total (%)")
    legend_below(mpl_figure, drawn)
    return captioned("lorenz_curve", "Divergence and loss are in few steps", mpl_figure)


def _lorenz(histogram: Histogram) -> tuple[list[float], list[float]]:
    """Cumulative shares of steps and of their sum, in percent, at the edges of the bins."""
    steps, nats = (np.cumsum([0, *values]) for values in (histogram.counts, histogram.nats or []))
    return (100 * steps / steps[-1]).tolist(), (100 * nats / nats[-1]).tolist()


def _shares(profile: Profile) -> str:
    """`83 % below 0.1 nat · 15 % kept · 1.7 % moving`."""
    shares = {
        "below 0.1 nat": profile.means["share_below_0.1"],
        "kept": profile.kept,
        "moving": profile.moving,
    }
    known = {of: 100 * one for of, one in shares.items() if one is not None}
    return " · ".join(f"{one:.{0 if one >= 10 else 1}f} % {of}" for of, one in known.items())

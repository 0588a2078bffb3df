"""The histogram of step divergences, one outline a pair."""

from typing import Any

from lr_exp.report.figures.style import GREY, SINGLE, of_pair
from lr_exp.report.profiles import profiles
from lr_exp.report.rows import Sweep

CAPTION = (
    "Share of scored steps by their divergence D, in bins of 0.1 nat (the last bin is open). "
    "The vertical line is the threshold β: steps to its right are kept."
)


def kl_histogram(new_figure: Any, sweep: Sweep) -> Any | None:
    found = [one for one in profiles(sweep) if any(one.counts)]
    if not found:
        return None
    height = 2.1 + 0.14 * len(found)  # a line of the legend each
    figure = new_figure(figsize=(SINGLE, height), layout="constrained")
    axes = figure.subplots()
    labels = [one.label for one in found]
    lowest = 1.0
    for number, one in enumerate(found):
        colour, line = of_pair(number)
        total = sum(one.counts)
        shares = [count / total for count in one.counts]
        edges = [one.bin_nats * i for i in range(len(shares) + 1)]
        lowest = min(lowest, min(share for share in shares if share))
        label = one.label
        if labels.count(label) > 1:
            label = f"{label} ({one.methods[0]})"
        alone = len(found) == 1
        axes.stairs(
            shares, edges, color=colour, fill=alone, linestyle=line, linewidth=1, label=label
        )
    betas = sorted({beta for one in found for beta in one.betas})
    for beta in betas:
        axes.axvline(beta, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    if betas:
        axes.annotate(
            f"β {', '.join(f'{beta:g}' for beta in betas)}",
            (betas[-1], 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -7),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g}")
    axes.yaxis.set_minor_formatter(lambda share, _: "")
    axes.set_ylim(lowest / 2, 1)
    axes.set_xlim(left=0, right=max(one.bin_nats * len(one.counts) for one in found))
    axes.set_xlabel("D (nats)")
    axes.set_ylabel("share of steps")
    figure.legend(loc="outside lower center", ncols=1)
    return figure

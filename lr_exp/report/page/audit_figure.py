"""The audit of the labels, by divergence and by position in the answer."""

from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import BLUE, GREY, MUTED, VERMILION, styled
from lr_exp.report.page.audit_table import KINDS, Records, groups, shift
from lr_exp.report.texts import report_text

_HUES = dict(zip(KINDS, (BLUE, GREY, VERMILION), strict=True))
_PANELS = {"KL ": "divergence (nats)", "token ": "tokens before the position"}


@styled()
def audit_figure(records: Records) -> Figure:
    """The difference at each kind of position, with 95 % intervals."""
    mpl_figure, panels = panel_grid(2, 2, 2.6, sharey=True)
    found, drawn = groups(records), {}
    for axes, (prefix, title) in zip(panels, _PANELS.items(), strict=True):
        labels = list(dict.fromkeys(what for _, what in found if what.startswith(prefix)))
        for (kind, hue), offset in zip(_HUES.items(), (-0.15, 0, 0.15), strict=True):
            own = [(n, shift(found[kind, w])) for n, w in enumerate(labels) if (kind, w) in found]
            drawn[kind] = axes.errorbar(
                [place + offset for place, _ in own],
                [100 * one.mean for _, one in own],
                yerr=whiskers([one for _, one in own]),
                color=hue,
                linestyle="",
                marker="o",
                elinewidth=1,
            )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        short = [one.removeprefix(prefix).removesuffix(" nats") for one in labels]
        axes.set_xticks(range(len(labels)), [one.replace(" and ", "\nand ") for one in short])
        axes.set_xlabel(title)
    panels[0].set_ylabel("right answers: label's minus\nexpert's token (points)")
    legend_below(mpl_figure, drawn)
    return Figure("audit", "Audit of the labels", report_text("audit_figure"), mpl_figure)

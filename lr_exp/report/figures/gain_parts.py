"""What gains are made of: a bar for each benchmark of a run, or for each row of a sweep."""

import textwrap
from collections.abc import Mapping

from lr_exp.report.analyse.pooled import Parts, overall, parts_by_row, parts_of
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import BLUE, FAINT, GOLD, INK, MUTED
from lr_exp.report.names import benchmark_label
from lr_exp.report.read.runs import Run
from lr_exp.report.tables import cell
from lr_exp.report.tables.decomposition import in_words
from lr_exp.report.texts import report_text

_MAX_BARS = 30
_MAX_SENTENCES = 6
_LABEL_CHARS = 30


def gain_parts(run: Run) -> Figure | None:
    """A bar per benchmark and, of several, one for their average, which is described in words."""
    parts = parts_of([run.evaluate])
    labelled = {benchmark_label(name): one for name, one in parts.items()}
    return _figure(labelled, in_words([*parts.values()][-1])) if parts else None


def gain_parts_by_row(sweep: Sweep) -> Figure | None:
    """A bar per row, of the average over benchmarks; a few rows are also described in words."""
    several = len({row.setup.expert for row in sweep.rows}) > 1
    labelled = {
        row.full_label if several else row.label: parts
        for row, by_benchmark in parts_by_row(sweep)
        if (parts := overall(by_benchmark, sweep.benchmarks))
    }
    if not 0 < len(labelled) <= _MAX_BARS:
        return None
    sentences = [f"{label}: {in_words(one)}" for label, one in labelled.items()]
    return _figure(labelled, " ".join(sentences if len(sentences) <= _MAX_SENTENCES else []))


def _figure(labelled: Mapping[str, Parts], about: str) -> Figure:
    """A bar for each label; negative parts go to the left of 0."""
    parts, places = [*labelled.values()], range(len(labelled))
    mpl_figure, (axes,) = panel_grid(1, 1, 0.45 * len(parts) + 0.8)
    latent = [100 * one.latent.mean for one in parts]
    form = [100 * one.format.mean for one in parts]
    starts = [one if one * other > 0 else 0.0 for one, other in zip(latent, form, strict=True)]
    drawn = {
        "latent": axes.barh(places, latent, color=BLUE, height=0.6),
        "format": axes.barh(places, form, left=starts, color=GOLD, height=0.6),
        "strict gain": axes.errorbar(
            [100 * one.strict.mean for one in parts],
            places,
            xerr=whiskers([one.strict for one in parts]),
            color=INK,
            linestyle="",
            marker="|",
            elinewidth=1,
        ),
    }
    axes.axvline(0, color=MUTED, linewidth=0.8)
    labels = [
        f"{textwrap.fill(label, _LABEL_CHARS)}\ncut {cell.change(*one.cut_off)} %"
        for label, one in labelled.items()
    ]
    axes.set_yticks(places, labels)
    axes.set_ylim(len(parts) - 0.5, -0.5)  # the first one on top
    axes.grid(axis="x", color=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("gain in strict accuracy (points)")
    legend_below(mpl_figure, drawn)
    return Figure(
        "gain_parts",
        "What the gain is made of",
        f"{about} {report_text('gain_parts')}".strip(),
        mpl_figure,
    )

"""The cost of each method: time, sampled problems and tuned tokens side by side."""

from lr_exp.report.analyse.costs import HOUR, costs
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, panel_grid
from lr_exp.report.figures.style import method_look
from lr_exp.report.names import ABSENT

_CAPTION = "Sampling plus tuning time, sampled problems and tuned tokens of each method."
_MAX_BARS = 30


def cost_bars(sweep: Sweep) -> Figure | None:
    rows = [(row, costs(row.runs)) for row in sweep.rows if not row.is_baseline and row.runs]
    rows = [(row, spent) for row, spent in rows if spent["hours"] is not None]
    # Evaluation's decoder does not change a method's cost: one decoder's rows are enough.
    rows = [(row, spent) for row, spent in rows if row.setup.decoder == rows[0][0].setup.decoder]
    if len({row.setup.method for row, _ in rows}) < 2 or len(rows) > _MAX_BARS:
        return None
    several = len({row.setup.expert for row, _ in rows}) > 1
    names = [f"{row.setup.expert}: {row.label}" if several else row.label for row, _ in rows]
    in_hours = max(spent["hours"] or 0 for _, spent in rows) >= 1
    panels = (
        (f"sampling + tuning ({'h' if in_hours else 's'})", "hours", 1 if in_hours else HOUR),
        ("problems sampled", "problems", 1),
        ("tuned tokens", "tuned_tokens", 1),
    )
    mpl_figure, all_axes = panel_grid(3, 3, 0.22 * len(rows) + 0.9, sharey=True)
    for axes, (title, key, unit) in zip(all_axes, panels, strict=True):
        values = [spent[key] for _, spent in rows]
        bars = axes.barh(
            range(len(rows)),
            [unit * (value or 0) for value in values],
            color=[method_look(row.setup.method).colour for row, _ in rows],
            height=0.7,
        )
        labels = [ABSENT if value is None else _short(unit * value) for value in values]
        axes.bar_label(bars, labels, padding=2, fontsize=7)
        axes.margins(x=0.3)
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set_xlabel(title)
        axes.tick_params(axis="y", length=0)
    all_axes[0].set_yticks(range(len(rows)), names)
    all_axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return Figure("cost_bars", "Cost of each method", _CAPTION, mpl_figure)


def _short(value: float) -> str:
    """Three significant digits: 0.5, 300, 16.8k, 1.77M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"

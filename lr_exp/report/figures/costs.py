"""What each method costs: time, problems and tuned tokens side by side."""

from typing import Any

from lr_exp.report.figures.style import DOUBLE, of_method
from lr_exp.report.names import ABSENT
from lr_exp.report.rows import Sweep
from lr_exp.report.tables.efficiency import Cost, cost

CAPTION = "Sampling and tuning time, problems sampled and tokens tuned of each method."
_LOG_FROM = 20  # times between the largest and the smallest value, from which logs help
_HOUR = 3600.0
_MOST_BARS = 30  # more are no picture; the table has them


def cost_bars(new_figure: Any, sweep: Sweep) -> Any | None:
    rows = [(row, cost(row.runs)) for row in sweep.rows if not row.is_baseline and row.runs]
    rows = [(row, spent) for row, spent in rows if spent.total is not None]
    # Decoding is no cost of a method: one decoder's rows are enough.
    rows = [(row, spent) for row, spent in rows if row.setup.decoder == rows[0][0].setup.decoder]
    if len({row.setup.method for row, _ in rows}) < 2 or len(rows) > _MOST_BARS:
        return None
    several = len({row.setup.expert for row, _ in rows}) > 1
    names = [f"{row.setup.expert}: {row.label}" if several else row.label for row, _ in rows]
    colours = [of_method(row.setup.method)[0] for row, _ in rows]
    figure = new_figure(figsize=(DOUBLE, 0.22 * len(rows) + 0.9), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (title, values) in zip(panels, _panels([spent for _, spent in rows]), strict=True):
        shown = [value or 0.0 for value in values]
        known = [value for value in shown if value > 0]
        logs = bool(known) and max(known) / min(known) > _LOG_FROM
        if logs:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
            axes.set_xlim(min(known) / 3, max(known) * 6)
        else:
            axes.set_xlim(0, 1.3 * max(known, default=1.0))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.barh(range(len(rows)), shown, color=colours, height=0.7)
        for i, value in enumerate(values):
            text = _short(value)
            x = value if value else axes.get_xlim()[0]
            axes.annotate(
                text, (x, i), xytext=(2, 0), textcoords="offset points", va="center", fontsize=6
            )
        axes.set_xlabel(title + (", log scale" if logs else ""))
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].invert_yaxis()
    return figure


def _panels(costs: list[Cost]) -> list[tuple[str, list[float | None]]]:
    totals = [spent.total for spent in costs]
    hours = max(total for total in totals if total is not None) >= _HOUR
    unit = _HOUR if hours else 1.0
    return [
        (
            "sampling + tuning (h)" if hours else "sampling + tuning (s)",
            [None if total is None else total / unit for total in totals],
        ),
        ("problems", [spent.problems for spent in costs]),
        ("tuned tokens", [spent.tuned_tokens for spent in costs]),
    ]


def _short(value: float | None) -> str:
    """A number in three digits: 0.5, 16.8k, 1.77M."""
    if value is None:
        return ABSENT
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"

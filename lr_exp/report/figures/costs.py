"""The cost of each method: time, sampled problems and tuned tokens side by side."""

from typing import Any

from matplotlib.figure import Figure as MplFigure

from lr_exp.report.analyse.costs import Cost, cost
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure
from lr_exp.report.figures.style import DOUBLE, Look, method_look
from lr_exp.report.names import ABSENT

_CAPTION = "Sampling plus tuning time, sampled problems and tuned tokens of each method."
_MIN_LOG_RATIO = 20  # largest to smallest value, above which an axis is logarithmic
_HOUR = 3600.0  # seconds
_MAX_BARS = 30


def cost_bars(sweep: Sweep) -> Figure | None:
    rows = [(row, cost(row.runs)) for row in sweep.rows if not row.is_baseline and row.runs]
    rows = [(row, spent) for row, spent in rows if spent.total is not None]
    # Evaluation's decoder does not change a method's cost: one decoder's rows are enough.
    rows = [(row, spent) for row, spent in rows if row.setup.decoder == rows[0][0].setup.decoder]
    if len({row.setup.method for row, _ in rows}) < 2 or len(rows) > _MAX_BARS:
        return None
    several = len({row.setup.expert for row, _ in rows}) > 1
    names = [f"{row.setup.expert}: {row.label}" if several else row.label for row, _ in rows]
    looks = [method_look(row.setup.method) for row, _ in rows]
    mpl_figure = MplFigure(figsize=(DOUBLE, 0.22 * len(rows) + 0.9))
    panels = mpl_figure.subplots(1, 3, sharey=True)
    for axes, (title, values) in zip(panels, _panels([spent for _, spent in rows]), strict=True):
        _panel(axes, title, values, looks)
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return Figure("cost_bars", "Cost of each method", _CAPTION, mpl_figure)


def _panel(axes: Any, title: str, values: list[float | None], looks: list[Look]) -> None:
    known = [value for value in values if value]
    is_log = bool(known) and max(known) / min(known) > _MIN_LOG_RATIO
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlim(min(known) / 3, max(known) * 6)
        axes.grid(axis="x")
    else:
        axes.set_xlim(0, 1.3 * max(known, default=1.0))
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
    for i, (value, look) in enumerate(zip(values, looks, strict=True)):
        if value and is_log:  # a bar's length means nothing on an axis that does not start at 0
            axes.plot(value, i, color=look.colour, marker=look.marker, markersize=5)
        elif value:
            axes.barh(i, value, color=look.colour, height=0.7)
        axes.annotate(
            _short(value),
            (value or axes.get_xlim()[0], i),
            xytext=(5 if is_log else 2, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_xlabel(title + (" (log)" if is_log else ""))
    axes.tick_params(axis="y", length=0)


def _panels(costs: list[Cost]) -> list[tuple[str, list[float | None]]]:
    totals = [spent.total for spent in costs]
    hours = max(total for total in totals if total is not None) >= _HOUR
    unit = _HOUR if hours else 1.0
    return [
        (
            "sampling + tuning (h)" if hours else "sampling + tuning (s)",
            [None if total is None else total / unit for total in totals],
        ),
        ("problems sampled", [spent.problems for spent in costs]),
        ("tuned tokens", [spent.tuned_tokens for spent in costs]),
    ]


def _tick(value: float) -> str:
    """A tick's number, without the trailing zeros of a measured one."""
    return f"{value:.3g}" if value < 1000 else _short(value)


def _short(value: float | None) -> str:
    """A number with three significant digits: 0.500, 12.0, 300, 16.8k, 1.77M."""
    if value is None:
        return ABSENT
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}" if float(value).is_integer() else f"{value:#.3g}".rstrip(".")

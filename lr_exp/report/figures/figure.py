"""A figure and its files, drawn by matplotlib in the report's style."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.figures.style import DOUBLE, SINGLE, styled
from lr_exp.report.texts import report_text

_LINE_CHARS = 50  # of a legend's label, as fits in a figure of one column
_MAX_COLUMN_CHARS = 24  # a legend with a longer label has half the columns
_LEGEND_LINE_HEIGHT = 0.17  # inches


@dataclass(frozen=True)
class Figure:
    """A figure with its title and caption. Files are rendered on first access."""

    name: str
    title: str
    caption: str
    mpl_figure: Any

    @cached_property
    def svg(self) -> bytes:
        return self._file("svg", {"Date": None, "Creator": None})

    @cached_property
    def png(self) -> bytes:
        """At 300 dpi."""
        return self._file("png", {"Software": None})

    @property
    def is_wide(self) -> bool:
        """Whether it spans two columns."""
        return bool(self.mpl_figure.get_figwidth() > SINGLE)

    def _file(self, kind: str, metadata: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with styled():
            self.mpl_figure.savefig(buffer, format=kind, metadata=metadata)
        return buffer.getvalue()


def captioned(name: str, title: str, mpl_figure: Any) -> Figure:
    """A figure whose caption is the text of its name in `texts.yaml`."""
    return Figure(name, title, report_text(name), mpl_figure)


def panel_grid(
    count: int, across: int, row_height: float, more_height: float = 0.0, **options: Any
) -> tuple[Any, list[Any]]:
    """A figure and its panels (axes) in rows of `across`; a single panel across is one column wide.

    Heights are in inches, `options` are those of matplotlib's `subplots`.
    """
    from matplotlib.figure import Figure as MplFigure

    rows = math.ceil(count / across)
    width = SINGLE if across == 1 else DOUBLE
    mpl_figure = MplFigure(figsize=(width, rows * row_height + more_height))
    panels = mpl_figure.subplots(rows, across, squeeze=False, **options).flatten()
    for empty in panels[count:]:
        empty.set_visible(False)
    return mpl_figure, list(panels[:count])


def whiskers(estimates: Sequence[Estimate]) -> list[list[float]]:
    """The lengths of error bars, in points, from the means to the ends of the 95 % intervals."""
    return [[100 * abs(one.ci95[end] - one.mean) for one in estimates] for end in (0, 1)]


def legend_below(mpl_figure: Any, drawn: Mapping[str, Any]) -> None:
    """Adds a legend of the artists by their labels, which makes the figure higher."""
    columns = 4 if mpl_figure.get_figwidth() > SINGLE else 2
    if max(map(len, drawn)) > _MAX_COLUMN_CHARS:
        columns //= 2
    labels = [textwrap.fill(label, _LINE_CHARS) for label in drawn]
    lines = math.ceil(len(labels) / columns) * max(label.count("\n") + 1 for label in labels)
    mpl_figure.set_figheight(mpl_figure.get_figheight() + _LEGEND_LINE_HEIGHT * lines)
    mpl_figure.legend(drawn.values(), labels, loc="outside lower center", ncols=columns)

"""Draws every figure for which a run or a sweep has the data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lr_exp.report.figures.style import SINGLE, rendered, styled
from lr_exp.report.figures.svg import inline
from lr_exp.report.rows import Sweep
from lr_exp.report.runs import Run


@dataclass(frozen=True)
class Figure:
    """A figure with its title and caption. Files are rendered on first access."""

    name: str
    title: str
    caption: str
    canvas: Any  # matplotlib's Figure

    @cached_property
    def svg(self) -> bytes:
        return rendered(self.canvas, "svg")

    @cached_property
    def png(self) -> bytes:
        """At 300 dpi."""
        return rendered(self.canvas, "png")

    @property
    def files(self) -> dict[str, bytes]:
        """Content by file extension."""
        return {"png": self.png, "svg": self.svg}

    @property
    def wide(self) -> bool:
        """Whether it spans two columns."""
        return self.canvas.get_figwidth() > SINGLE

    @cached_property
    def inline(self) -> str:
        """An `<svg>` element for a page that includes `style.CSS`."""
        return inline(self.svg, self.name, self.caption, self.wide)


def draw_run(run: Run, name: Callable[[str], str] = "run_{}".format) -> list[Figure]:
    """Every figure for which the run has the data.

    Args:
        run: finished or not.
        name: maps a figure's key to its name, which must be unique on its page.
    """
    from lr_exp.report.figures import run as drawers

    figures: dict[str, tuple[Callable[[Any, Run], Any], str, str]] = {
        "gain_by_benchmark": (
            drawers.gain_by_benchmark,
            "Accuracy before and after, by benchmark",
            drawers.GAIN_CAPTION,
        ),
        "kl_histogram": (
            drawers.kl_histogram,
            "Divergence of scored steps",
            drawers.histogram_caption(run),
        ),
        "kept_by_position": (
            drawers.kept_by_position,
            "Kept steps by position in the answer",
            drawers.position_caption(run),
        ),
        "training_curves": (drawers.training_curves, "Training", drawers.TRAINING_CAPTION),
    }
    return _drawn(figures, run, name)


def draw_all(sweep: Sweep, name: Callable[[str], str]) -> list[Figure]:
    """Every figure for which the sweep has the data.

    Args:
        sweep: the runs and their rows.
        name: maps a figure's key to its file name.
    """
    from lr_exp.report.figures import costs, gains, grid, radar, steps, training

    figures: dict[str, tuple[Callable[[Any, Sweep], Any], str, str]] = {
        "kl_histogram": (steps.kl_histogram, "Divergence of scored steps", steps.CAPTION),
        "gain_against_gap": (gains.gain_against_gap, "Gain against expertise gap", gains.CAPTION),
        "radar": (radar.ablation_radar, "Accuracy by benchmark", radar.CAPTION),
        "accuracy_by_step": (
            training.accuracy_by_step,
            "Accuracy during training",
            training.ACCURACY_CAPTION,
        ),
        "entropy_by_step": (
            training.entropy_by_step,
            "Student entropy during training",
            training.ENTROPY_CAPTION,
        ),
        "cost_bars": (costs.cost_bars, "Cost of each method", costs.CAPTION),
        "map": (grid.alpha_beta_map, "Accuracy over α and β", grid.CAPTION),  # noqa: RUF001
    }
    return _drawn(figures, sweep, name)


def _drawn(
    figures: dict[str, tuple[Callable[[Any, Any], Any], str, str]],
    source: Any,
    name: Callable[[str], str],
) -> list[Figure]:
    with styled() as new_figure:
        canvases = [(key, draw(new_figure, source)) for key, (draw, _, _) in figures.items()]
    return [
        Figure(name(key), *figures[key][1:], canvas)
        for key, canvas in canvases
        if canvas is not None
    ]

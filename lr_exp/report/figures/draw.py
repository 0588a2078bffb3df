"""Which figures a run or a sweep has the data for. Knows each figure's module."""

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
    """A drawn figure and what it shows. Its files are made when they are asked for."""

    name: str
    title: str
    caption: str
    canvas: Any  # matplotlib's Figure

    @cached_property
    def svg(self) -> bytes:
        return rendered(self.canvas, "svg")

    @cached_property
    def png(self) -> bytes:
        """At 300 dots an inch."""
        return rendered(self.canvas, "png")

    @property
    def files(self) -> dict[str, bytes]:
        """By kind, which is their ending."""
        return {"png": self.png, "svg": self.svg}

    @property
    def wide(self) -> bool:
        """Whether it is of two columns."""
        return self.canvas.get_figwidth() > SINGLE

    @cached_property
    def inline(self) -> str:
        """An `<svg>` for a page that has the colours of `style.CSS`."""
        return inline(self.svg, self.name, self.caption, self.wide)


def draw_run(run: Run, name: Callable[[str], str] = "run_{}".format) -> list[Figure]:
    """Every figure that one run has the numbers for.

    Args:
        run: finished or not.
        name: gives a figure its name, which no other figure on its page may have.
    """
    from lr_exp.report.figures import run as drawers

    made: dict[str, tuple[Callable[[Any, Run], Any], str, str]] = {
        "gain_by_benchmark": (
            drawers.gain_by_benchmark,
            "Before and after, by benchmark",
            drawers.GAIN_CAPTION,
        ),
        "kl_histogram": (
            drawers.kl_histogram,
            "Divergence of the scored steps",
            drawers.histogram_caption(run),
        ),
        "kept_by_position": (
            drawers.kept_by_position,
            "Kept steps by place in the answer",
            drawers.position_caption(run),
        ),
        "training_curves": (drawers.training_curves, "Training", drawers.TRAINING_CAPTION),
    }
    return _drawn(made, run, name)


def draw_all(sweep: Sweep, name: Callable[[str], str]) -> list[Figure]:
    """Every figure that the sweep's runs have the numbers for.

    Args:
        sweep: the runs and their rows.
        name: gives a figure's file its name.
    """
    from lr_exp.report.figures import costs, gains, grid, radar, steps, training

    made: dict[str, tuple[Callable[[Any, Sweep], Any], str, str]] = {
        "kl_histogram": (steps.kl_histogram, "Divergence of the scored steps", steps.CAPTION),
        "gain_against_gap": (gains.gain_against_gap, "Gain and expertise gap", gains.CAPTION),
        "radar": (radar.ablation_radar, "Accuracy by benchmark", radar.CAPTION),
        "accuracy_by_step": (
            training.accuracy_by_step,
            "Accuracy while training",
            training.ACCURACY_CAPTION,
        ),
        "entropy_by_step": (
            training.entropy_by_step,
            "Policy entropy while training",
            training.ENTROPY_CAPTION,
        ),
        "cost_bars": (costs.cost_bars, "Cost of each method", costs.CAPTION),
        "map": (grid.alpha_beta_map, "Accuracy over α and β", grid.CAPTION),  # noqa: RUF001
    }
    return _drawn(made, sweep, name)


def _drawn(
    made: dict[str, tuple[Callable[[Any, Any], Any], str, str]],
    of: Any,
    name: Callable[[str], str],
) -> list[Figure]:
    with styled() as new_figure:
        canvases = [(key, draw(new_figure, of)) for key, (draw, _, _) in made.items()]
    return [
        Figure(name(key), *made[key][1:], canvas) for key, canvas in canvases if canvas is not None
    ]

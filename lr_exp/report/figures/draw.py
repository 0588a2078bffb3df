"""Which figures a sweep has the data for, drawn to files in memory. Knows each figure's module."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lr_exp.report.rows import Sweep


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its files by kind, and what it shows."""

    name: str
    caption: str
    files: dict[str, bytes]  # png, svg


def draw_all(sweep: Sweep, name: Callable[[str], str]) -> list[Figure]:
    """Every figure that the sweep's runs have the numbers for.

    Args:
        sweep: the runs and their rows.
        name: gives a figure's file its name.
    """
    from lr_exp.report.figures import costs, gains, grid, radar, steps, training
    from lr_exp.report.figures.style import rendered, styled

    drawers: dict[str, tuple[Callable[[Any, Sweep], Any], str]] = {
        "kl_histogram": (steps.kl_histogram, steps.CAPTION),
        "gain_against_gap": (gains.gain_against_gap, gains.CAPTION),
        "radar": (radar.ablation_radar, radar.CAPTION),
        "accuracy_by_step": (training.accuracy_by_step, training.ACCURACY_CAPTION),
        "entropy_by_step": (training.entropy_by_step, training.ENTROPY_CAPTION),
        "cost_bars": (costs.cost_bars, costs.CAPTION),
        "map": (grid.alpha_beta_map, grid.CAPTION),
    }
    drawn = []
    with styled() as new_figure:
        for figure, (draw, caption) in drawers.items():
            canvas = draw(new_figure, sweep)
            if canvas is not None:
                drawn.append(Figure(name(figure), caption, rendered(canvas)))
    return drawn

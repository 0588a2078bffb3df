"""The report's figures. Only drawing imports matplotlib."""

from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure
from lr_exp.report.figures.gain_parts import gain_parts, gain_parts_by_row
from lr_exp.report.figures.steps import lorenz_curve, lorenz_curves
from lr_exp.report.figures.style import STYLE, styled
from lr_exp.report.figures.sweep import (
    ablation_radar,
    alpha_beta_map,
    cost_bars,
    gain_against_gap,
    gain_by_setting,
)
from lr_exp.report.figures.training import accuracy_by_step, entropy_by_step, training_curves
from lr_exp.report.read.runs import Run

__all__ = ["STYLE", "Figure", "draw_run", "draw_sweep"]

_OF_RUN = (gain_parts, lorenz_curve, training_curves)
_OF_SWEEP = (
    gain_parts_by_row,
    lorenz_curves,
    gain_against_gap,
    gain_by_setting,
    ablation_radar,
    accuracy_by_step,
    entropy_by_step,
    cost_bars,
    alpha_beta_map,
)


def draw_run(run: Run) -> list[Figure]:
    """Every figure for which the run, finished or not, has the data."""
    with styled():
        return [figure for draw in _OF_RUN if (figure := draw(run))]


def draw_sweep(sweep: Sweep) -> list[Figure]:
    """Every figure for which the sweep has the data."""
    with styled():
        return [figure for draw in _OF_SWEEP if (figure := draw(sweep))]

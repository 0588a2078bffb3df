"""The report's figures. Only drawing imports matplotlib."""

from lr_exp.report.figures.draw import Figure, draw_all, draw_run
from lr_exp.report.figures.style import CSS, STYLE

__all__ = ["CSS", "STYLE", "Figure", "draw_all", "draw_run"]

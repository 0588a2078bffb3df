"""The report's figures. Importing this package does not import matplotlib; drawing does."""

from lr_exp.report.figures.draw import Figure, draw_all, draw_run
from lr_exp.report.figures.style import CSS, STYLE

__all__ = ["CSS", "STYLE", "Figure", "draw_all", "draw_run"]

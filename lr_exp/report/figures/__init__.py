"""The report's figures. Importing this package does not import matplotlib; drawing does."""

from lr_exp.report.figures.draw import Figure, draw_all

__all__ = ["Figure", "draw_all"]

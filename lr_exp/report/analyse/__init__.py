"""Groups runs into rows, checks that they can be compared, and computes their statistics."""

from lr_exp.report.analyse import paired as paired  # of the public API

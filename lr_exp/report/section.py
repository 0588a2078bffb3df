"""One sweep in the report."""

from dataclasses import dataclass

from lr_exp.report.figures import Figure
from lr_exp.report.rows import Sweep
from lr_exp.report.tables.table import Table


@dataclass(frozen=True)
class Section:
    """A sweep with its tables and figures."""

    sweep: Sweep
    tables: list[Table]  # the sweep's own first
    figures: list[Figure]
    refused: list[str]  # why rows were not compared

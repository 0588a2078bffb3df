"""Explanations of the numbers in a report's tables."""

from collections.abc import Sequence

from lr_exp.report.names import is_micro
from lr_exp.report.read.runs import Found
from lr_exp.report.tables.table import Table
from lr_exp.report.texts import report_text


def reading_notes(found: Found, tables: Sequence[Table]) -> list[str]:
    """Explanations that apply to the tables of this report."""
    lines = [report_text("plus_minus"), report_text("gain")]
    if any(table.has_published for table in tables):
        lines.append(report_text("published"))
    if any(run.settings.get("amateur", {}).get("tokenizer") == "own" for run in found.runs):
        lines.append(report_text("lower_bound"))
    if any(is_micro(run.expert, run.amateur, *run.benchmarks) for run in found.runs):
        lines.append(report_text("micro"))
    return lines

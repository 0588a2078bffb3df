"""Explanations of the numbers in a report's tables."""

from collections.abc import Sequence

from lr_exp.report.names import is_micro
from lr_exp.report.read.runs import Found
from lr_exp.report.tables.table import Table
from lr_exp.report.texts import text_of


def reading_notes(found: Found, tables: Sequence[Table]) -> list[str]:
    """Explanations that apply to the tables of this report."""
    lines = [text_of("plus_minus"), text_of("gain")]
    if any(table.has_published for table in tables):
        lines.append(text_of("published"))
    if any(run.settings.get("amateur", {}).get("tokenizer") == "own" for run in found.runs):
        lines.append(text_of("lower_bound"))
    if any(is_micro(run.expert, run.amateur, *run.benchmarks) for run in found.runs):
        lines.append(text_of("micro"))
    return lines

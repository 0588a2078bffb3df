"""Accuracies and gains by prompt, and between each model's best prompt."""

from lr_exp.report.analyse.prompts import PromptGain, gains_by_prompt
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, estimate_record, table_by_benchmark
from lr_exp.report.texts import report_text

_SHOWN = {  # by field of `PromptGain`: title, text, and name in the CSV file
    "before": ("expert", cell.percent, "accuracy_before"),
    "after": ("tuned", cell.percent, "accuracy_after"),
    "gain": ("gain", cell.points, "gain"),
    "smaller_by": ("smaller by", cell.with_interval, "smaller_by"),
}


def prompts_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant, benchmark and prompt; None if all runs have a single prompt."""
    lines = [
        _line(row, benchmark, prompt, found)
        for row in sweep.rows
        if not row.is_baseline and row.runs
        for benchmark, by_prompt in gains_by_prompt(row.runs, sweep.benchmarks).items()
        for prompt, found in by_prompt.items()
    ]
    about = report_text("prompts")
    return table_by_benchmark(name, "Gains by prompt", lines, about, ("prompt",))


def _line(row: Row, benchmark: str, prompt: str, found: PromptGain) -> Line:
    cells, record = {"prompt": prompt}, {"asked_with": prompt}
    for field, (title, text, key) in _SHOWN.items():
        estimate = getattr(found, field)
        cells[title] = text(estimate)
        record |= estimate_record(key, estimate)
    return Line(row, benchmark, cells, record)

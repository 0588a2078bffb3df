"""Accuracies and gains by prompt, and between each model's best prompt."""

from typing import Any

from lr_exp.report.analyse.prompts import PromptGain, gains_by_prompt
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, estimate_record, table_by_benchmark

_ABOUT = (
    "Best of each: each model is asked each half of the questions with the prompt that it answers "
    "best on the other half, so that no prompt is chosen on the questions that it is scored on; "
    "averages over 8 ways to halve the questions. Smaller by: the gain with the first prompt minus "
    "the gain between the best ones, on the same questions. Both intervals include the choice: a "
    "bootstrap over questions repeats it. Where the interval of smaller by is above 0, part of the "
    "gain points to the prompt; otherwise it may still come from a prompt that was not tried."
)


def prompts_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant, benchmark and prompt; None if all runs have a single prompt."""
    lines = [
        Line(row, benchmark, _cells(prompt, found), _record(prompt, found))
        for row in sweep.rows
        if not row.is_baseline and row.runs
        for benchmark, by_prompt in gains_by_prompt(row.runs, sweep.benchmarks).items()
        for prompt, found in by_prompt.items()
    ]
    return table_by_benchmark(name, "Gains by prompt", lines, _ABOUT, ("prompt",))


def _cells(prompt: str, found: PromptGain) -> dict[str, str]:
    return {
        "prompt": prompt,
        "expert": cell.percent(found.before),
        "tuned": cell.percent(found.after),
        "gain": cell.points(found.gain),
        "smaller by": cell.with_interval(found.smaller_by),
    }


def _record(prompt: str, found: PromptGain) -> dict[str, Any]:
    return {
        "asked_with": prompt,
        **estimate_record("accuracy_before", found.before),
        **estimate_record("accuracy_after", found.after),
        **estimate_record("gain", found.gain),
        **estimate_record("smaller_by", found.smaller_by),
    }

"""Accuracies and gains by prompt, and between each model's best prompt."""

from typing import Any

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.accuracies import read_graded
from lr_exp.report.analyse.paired import Correct, Estimate
from lr_exp.report.analyse.prompts import between_best_prompts
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, estimate_record, table_by_benchmark

BEST = "best of each"
_ABOUT = (
    "Best of each: each model is asked each half of the questions with the prompt that it answers "
    "best on the other half, so that no prompt is chosen on the questions that it is scored on; "
    "averages over 8 ways to halve the questions. Smaller by: the gain with the first prompt minus "
    "the gain between the best ones, on the same questions. Both intervals include the choice: a "
    "bootstrap over questions repeats it. Where the interval of smaller by is above 0, part of the "
    "gain points to the prompt; otherwise it may still come from a prompt that was not tried."
)
_COLUMNS = {  # by name in the CSV file
    "accuracy_before": ("expert", cell.percent),
    "accuracy_after": ("tuned", cell.percent),
    "gain": ("gain", cell.points),
    "smaller_by": ("smaller by", cell.with_interval),
}


def prompts_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant, benchmark and prompt; None if all runs have a single prompt."""
    lines = [
        Line(row, benchmark, *_cells_and_record(prompt, estimates))
        for row in sweep.rows
        if not row.is_baseline and row.runs and len(row.runs[0].prompts) > 1
        for benchmark in sweep.benchmarks
        for prompt, estimates in _by_prompt(row, benchmark).items()
    ]
    return table_by_benchmark(name, "Gains by prompt", lines, _ABOUT, ("prompt",))


def _cells_and_record(
    prompt: str, estimates: dict[str, Estimate]
) -> tuple[dict[str, str], dict[str, Any]]:
    cells, record = {"prompt": prompt}, {"asked_with": prompt}
    for key, (title, shown) in _COLUMNS.items():
        cells[title] = shown(estimates.get(key))
        record |= estimate_record(key, estimates.get(key))
    return cells, record


def _by_prompt(row: Row, benchmark: str) -> dict[str, dict[str, Estimate]]:
    """The estimates of `_COLUMNS` over the row's seeds, by prompt."""
    prompts = row.runs[0].prompts
    runs = [run for run in row.runs if run.prompts == prompts]
    correct: dict[str, dict[str, Correct]] = {"expert": {}, "tuned": {}}
    ids: tuple[str, ...] = ()
    try:
        for who, own in correct.items():
            sources = [(run, run.final_model if who == "tuned" else who) for run in runs]
            for prompt in prompts:
                graded = read_graded(sources, benchmark, prompt)
                own[prompt], ids = graded.correct, graded.ids
    except (AnswersMissingError, KeyError):  # the list of runs says which answers are missing
        return {}
    before, after = correct["expert"], correct["tuned"]
    best = between_best_prompts(before, after, ids)
    models = {prompt: (before[prompt], after[prompt]) for prompt in prompts}
    models[BEST] = best.expert, best.tuned
    found = {
        prompt: {
            "accuracy_before": paired.accuracy(theirs),
            "accuracy_after": paired.accuracy(ours),
            "gain": paired.difference(ours, theirs),
        }
        for prompt, (theirs, ours) in models.items()
    }
    found[BEST] |= {"gain": best.gain, "smaller_by": best.shrinkage}
    return found

"""Accuracies and gains by prompt, and between each model's best prompt."""

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.accuracies import read_graded
from lr_exp.report.analyse.paired import Correct, Estimate
from lr_exp.report.analyse.prompts import halves_of, with_best_prompt
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    label_columns,
    setup_record,
    table_of,
    text_column,
)

BEST = "best of each"
_ABOUT = (
    "Best of each: each model is asked each half of the questions with the prompt that it answers "
    "best on the other half, so that no prompt is chosen on the questions that it is scored on. A "
    "gain that is clearly smaller between the best prompts points to the prompt; one that is not "
    "may still come from a prompt that was not tried."
)


def prompts_table(sweep: Sweep, table_name: str) -> Table | None:
    """One row per variant, benchmark and prompt; None if all runs have a single prompt."""
    lines = [
        (row, benchmark, prompt, estimates)
        for row in sweep.rows
        if not row.is_baseline and row.runs and len(row.runs[0].prompts) > 1
        for benchmark in sweep.benchmarks
        for prompt, estimates in _by_prompt(row, benchmark).items()
    ]
    if not lines:
        return None
    columns = label_columns([row for row, *_ in lines], [benchmark for _, benchmark, *_ in lines])
    columns.append(text_column("prompt", [prompt for _, _, prompt, _ in lines]))
    columns += [
        (Column("expert"), [cell.percent(before) for *_, (before, _, _) in lines]),
        (Column("tuned"), [cell.percent(after) for *_, (_, after, _) in lines]),
        (Column("gain"), [cell.points(gain) for *_, (_, _, gain) in lines]),
    ]
    records = [
        setup_record(row)
        | {"benchmark": benchmark, "asked_with": prompt}
        | estimate_record("accuracy_before", before)
        | estimate_record("accuracy_after", after)
        | estimate_record("gain", gain)
        for row, benchmark, prompt, (before, after, gain) in lines
    ]
    return table_of(table_name, "Gains by prompt", columns, records, [_ABOUT])


def _by_prompt(row: Row, benchmark: str) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """The estimates of the expert, the tuned expert and the gain, over the row's seeds."""
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
    halves = halves_of(ids)
    for own in correct.values():
        own[BEST], _ = with_best_prompt(own, halves)
    return {
        prompt: (paired.accuracy(before), paired.accuracy(after), paired.difference(after, before))
        for (prompt, before), after in zip(
            correct["expert"].items(), correct["tuned"].values(), strict=True
        )
    }

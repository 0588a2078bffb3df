"""The cost of each method: time by stage, problems, tokens and memory, beside its gain."""

from lr_exp.report.analyse.costs import costs
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.tables import cell
from lr_exp.report.tables.accuracy import seeds_and_remarks
from lr_exp.report.tables.table import (
    Table,
    estimate_record,
    label_columns,
    notes_on_rows,
    setup_record,
    table_of,
    with_published,
)
from lr_exp.report.texts import report_text

_PUBLISHED = ("hours", "problems", "solved", "tuned_tokens", "gain")
_TITLES = {
    "hours": "sampling + tuning (h)",
    "generated_tokens": "tokens generated",
    "tuned_tokens": "tokens tuned",
    "kept_steps": "distinct kept steps",
    "passes": "passes over them",
    "tokens_read": "tokens read in training",
    "flops": "FLOPs",
    "peak_memory_gib": "peak memory (GiB)",
}
_FORMS = {"hours": ".3g", "flops": ".2e", "peak_memory_gib": ".2f", "passes": ",.1f"}


def efficiency_table(sweep: Sweep, name: str) -> Table | None:
    """One row per tuned variant; None if nothing was tuned."""
    rows = [row for row in sweep.rows if not row.is_baseline and (row.runs or row.remark)]
    if not any(run.summary.distill for row in rows for run in row.runs):
        return None
    measured = [costs(row.runs) for row in rows]
    beside = [row for row in rows if "hours" in row.published]
    columns = label_columns(rows)
    always = costs([]).keys()
    stages = [key for one in measured for key in one if key not in always]  # come first
    for key in dict.fromkeys([*stages, *always]):
        title = _TITLES.get(key) or key.replace("_seconds", " (s)")
        form = _FORMS.get(key) or (".1f" if key.endswith("_seconds") else ",.0f")
        cells = [cell.number(one.get(key), form) for one in measured]
        columns += with_published(title, cells, rows, key, form)
    columns += with_published("gain", [cell.points(row.gain) for row in rows], rows, "gain", "+.1f")
    columns += seeds_and_remarks(rows)
    records = [
        {
            **setup_record(row),
            **one,
            **estimate_record("gain", row.gain),
            **{f"published_{key}": row.published.get(key) for key in _PUBLISHED},
            "published_differs": "; ".join(row.paper_differences)
            if "hours" in row.published
            else None,
        }
        for row, one in zip(rows, measured, strict=True)
    ]
    notes = [report_text("efficiency")]
    if beside:
        notes.append(report_text("published_times"))
    if any("solved" in row.published for row in beside):
        notes.append(report_text("published_problems"))
    notes += notes_on_rows(beside)
    return table_of(name, "Efficiency", columns, records, notes, "cost")

"""The cost of each method: time by stage, problems, tokens and memory, beside its gain."""

from lr_exp.report import published
from lr_exp.report.analyse.costs import costs
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import BENCHMARKS
from lr_exp.report.tables.accuracy import seeds_and_remarks
from lr_exp.report.tables.table import (
    Table,
    estimate_record,
    label_columns,
    notes_on_rows,
    number,
    points,
    setup_record,
    table_of,
    with_published,
)

_ABOUT = (
    "Seconds, tokens and problems are means over seeds; the time of a reused result is "
    "that of the run that computed it. Evaluation covers expert and tuned expert and is "
    "not part of the total. Peak memory is the maximum of sampling and tuning over runs. "
    "Times on different machines are not comparable."
)
_PAPERS_MACHINE = "Published times are for one H200 GPU without an inference engine."
_PAPERS_PROBLEMS = (
    "The published problems of rejection SFT are the solved ones (our interpretation): they are "
    "shown beside our column solved, not beside the sampled problems."
)
_PUBLISHED_BENCHMARKS = set(BENCHMARKS) - {"math500"}  # behind the published gain
_TITLES = {
    "hours": "sampling + tuning (h)",
    "generated_tokens": "tokens generated",
    "tuned_tokens": "tokens tuned",
    "peak_memory_gib": "peak memory (GiB)",
}
_FORMS = {"hours": ".3g", "peak_memory_gib": ".2f"}


def efficiency_table(sweep: Sweep, name: str) -> Table | None:
    """One row per tuned variant; None if nothing was tuned."""
    rows = [row for row in sweep.rows if not row.is_baseline and (row.runs or row.remark)]
    if not any(run.summary.distill for row in rows for run in row.runs):
        return None
    measured = [costs(row.runs) for row in rows]
    papers = [_paper(row, sweep) for row in rows]
    columns = label_columns(rows)
    # Rows without some stages come last, so that stages precede the sums.
    for key in dict.fromkeys(key for one in sorted(measured, key=len)[::-1] for key in one):
        title = _TITLES.get(key) or key.replace("_seconds", " (s)")
        form = _FORMS.get(key) or (".1f" if key.endswith("_seconds") else ",.0f")
        cells = [number(one.get(key), form) for one in measured]
        columns += with_published(title, cells, rows, [paper.get(key) for paper in papers], form)
    gains = [paper.get("gain") for paper in papers]
    columns += with_published("gain", [points(row.gain) for row in rows], rows, gains, "+.1f")
    columns += seeds_and_remarks(rows)
    records = [
        {
            **setup_record(row),
            **one,
            **estimate_record("gain", row.gain),
            **{f"published_{key}": value for key, value in paper.items()},
            "published_differs": "; ".join(row.paper_differences) if paper else None,
        }
        for row, one, paper in zip(rows, measured, papers, strict=True)
    ]
    notes = [
        _ABOUT,
        *([_PAPERS_MACHINE] if any(papers) else []),
        *([_PAPERS_PROBLEMS] if any("solved" in paper for paper in papers) else []),
        *notes_on_rows(row for row, paper in zip(rows, papers, strict=True) if paper),
    ]
    return table_of(name, "Efficiency", columns, records, notes)


def _paper(row: Row, sweep: Sweep) -> dict[str, float]:
    """The published costs, with the problems of rejection SFT as `solved`."""
    paper = published.efficiency(row.published_setup)
    if row.setup.method == "rejection_sft" and paper:
        paper["solved"] = paper.pop("problems")
    if set(sweep.benchmarks) != _PUBLISHED_BENCHMARKS:
        paper.pop("gain", None)
    return paper

"""The cost of each method: time by stage, problems, tokens and memory, beside its gain."""

from typing import Any

from lr_exp.report import published
from lr_exp.report.analyse.costs import Cost, cost
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import BENCHMARKS
from lr_exp.report.tables.accuracy import seeds_and_remarks
from lr_exp.report.tables.table import (
    Column,
    Filled,
    Table,
    estimate_record,
    notes_on_rows,
    number,
    points,
    setup_record,
    table_of,
    text_column,
    with_published,
    without_lone_expert,
)

_GIB = 2**30
_HOUR = 3600.0
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


def efficiency_table(sweep: Sweep, name: str) -> Table | None:
    """One row per tuned variant; None if nothing was tuned."""
    rows = [row for row in sweep.rows if not row.is_baseline and (row.runs or row.remark)]
    if not any(run.summary.distill for row in rows for run in row.runs):
        return None
    costs = [cost(row.runs) for row in rows]
    papers = [_paper(row, sweep) for row in rows]
    stages = list(dict.fromkeys(stage for one in costs for stage in one.by_stage))
    tuned_tokens = [_count(one.tuned_tokens) for one in costs]
    gibibytes = [None if one.memory is None else one.memory / _GIB for one in costs]

    def beside(title: str, cells: list[str], key: str, form: str) -> list[Filled]:
        return with_published(title, cells, rows, [paper.get(key) for paper in papers], form)

    columns = [
        text_column("expert", [row.setup.expert for row in rows]),
        text_column("variant", [row.label for row in rows]),
        *(
            (Column(f"{stage} (s)"), [number(one.by_stage.get(stage)) for one in costs])
            for stage in stages
        ),
        (Column("sampling (s)"), [number(one.sampling) for one in costs]),
        (Column("tuning (s)"), [number(one.tuning) for one in costs]),
        *beside("sampling + tuning (h)", [_hours(one) for one in costs], "hours", "g"),
        (Column("evaluation (s)"), [number(one.evaluation) for one in costs]),
        *beside("problems", [_count(one.problems) for one in costs], "problems", ",.0f"),
        *beside("solved", [_count(one.solved) for one in costs], "solved", ",.0f"),
        (Column("tokens generated"), [_count(one.generated_tokens) for one in costs]),
        *beside("tokens tuned", tuned_tokens, "tuned_tokens", ",.0f"),
        (Column("peak memory (GiB)"), [number(memory, ".2f") for memory in gibibytes]),
        *beside("gain", [points(row.gain) for row in rows], "gain", "+.1f"),
        *seeds_and_remarks(rows),
    ]
    records = [
        _record(row, one, stages, paper)
        for row, one, paper in zip(rows, costs, papers, strict=True)
    ]
    notes = [
        _ABOUT,
        *([_PAPERS_MACHINE] if any(papers) else []),
        *([_PAPERS_PROBLEMS] if any("solved" in paper for paper in papers) else []),
        *notes_on_rows(row for row, paper in zip(rows, papers, strict=True) if paper),
    ]
    return without_lone_expert(table_of(name, "Efficiency", columns, records, notes))


def _paper(row: Row, sweep: Sweep) -> dict[str, float]:
    """The published costs, with the problems of rejection SFT as `solved`."""
    paper = published.efficiency(row.published_setup)
    if row.setup.method == "rejection_sft" and paper:
        paper["solved"] = paper.pop("problems")
    if set(sweep.benchmarks) != _PUBLISHED_BENCHMARKS:
        paper.pop("gain", None)
    return paper


def _count(value: float | None) -> str:
    return number(value, ",.0f")


def _hours(cost: Cost) -> str:
    hours = None if cost.total is None else cost.total / _HOUR
    return number(hours, ".2g" if hours is not None and hours < 0.1 else ".2f")


def _record(row: Row, cost: Cost, stages: list[str], paper: dict[str, float]) -> dict[str, Any]:
    return {
        **setup_record(row.setup, row.label),
        **{f"{stage}_seconds": cost.by_stage.get(stage) for stage in stages},
        "sampling_seconds": cost.sampling,
        "tuning_seconds": cost.tuning,
        "total_seconds": cost.total,
        "published_hours": paper.get("hours"),
        "evaluation_seconds": cost.evaluation,
        "problems": cost.problems,
        "solved": cost.solved,
        "published_problems": paper.get("problems"),
        "published_solved": paper.get("solved"),
        "generated_tokens": cost.generated_tokens,
        "tuned_tokens": cost.tuned_tokens,
        "published_tuned_tokens": paper.get("tuned_tokens"),
        "peak_memory_bytes": cost.memory,
        **estimate_record("gain", row.gain),
        "published_gain": paper.get("gain"),
        "published_differs": "; ".join(row.paper_differences) if paper else None,
        "seeds": len(row.seeds),
        "seeds_run": row.seed_count,
        "remark": row.remark,
    }

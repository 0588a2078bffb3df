"""The cost of each method: time by stage, problems, tokens and memory, beside its gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lr_exp.report import published
from lr_exp.report.names import ABSENT, BENCHMARKS
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.runs import Run
from lr_exp.report.tables.accuracy import seeds_cell
from lr_exp.report.tables.beside import asterisked, differing_rows
from lr_exp.report.tables.table import (
    PUBLISHED,
    REMARK,
    Column,
    Table,
    mean,
    number,
    points,
    remark,
    scaled,
    setup_record,
    without_empty,
    without_lone_expert,
)

_GIB = 2**30
_HOUR = 3600.0
_PAPERS_MACHINE = "Published times are for one H200 GPU without an inference engine."
_PAPERS_PROBLEMS = (
    "The published problems of rejection SFT are the solved ones (our interpretation): they are "
    "shown beside our column solved, not beside the sampled problems."
)
_PUBLISHED_BENCHMARKS = set(BENCHMARKS) - {"math500"}  # behind the published gain


@dataclass(frozen=True)
class Cost:
    """Means over the seeds of a row; None if no run has the number."""

    by_stage: dict[str, float]  # seconds of each sampling stage
    sampling: float | None  # seconds
    tuning: float | None  # seconds
    evaluation: float | None  # seconds, for expert and tuned expert
    problems: float | None
    solved: float | None  # problems with a correct answer, for rejection SFT
    generated_tokens: float | None
    tuned_tokens: float | None
    memory: float | None  # bytes, the maximum over seeds

    @property
    def total(self) -> float | None:
        """Seconds of sampling and tuning."""
        if self.sampling is None or self.tuning is None:
            return None
        return self.sampling + self.tuning


def cost(runs: Sequence[Run]) -> Cost:
    """The cost of a row's runs, including reused artifacts."""

    def over(read: Callable[[Run], Any]) -> float | None:
        return mean([read(run) for run in runs])

    stages = dict.fromkeys(s for run in runs for s in run.sample.seconds_by_stage or {})
    by_stage = {
        stage: over(lambda run, s=stage: (run.sample.seconds_by_stage or {}).get(s))
        for stage in stages
    }
    memory = [_memory(run) for run in runs]
    return Cost(
        {stage: seconds for stage, seconds in by_stage.items() if seconds is not None},
        over(lambda run: run.sample.seconds),
        over(lambda run: 0 if run.stopped else run.distill.seconds),
        over(lambda run: run.evaluate.seconds),
        over(lambda run: run.sample.questions),
        over(lambda run: run.sample.verified.solved if run.sample.verified else None),
        over(lambda run: run.sample.generated_tokens),
        over(lambda run: 0 if run.stopped else run.distill.tuned_tokens),
        max((value for value in memory if value is not None), default=None),
    )


def _memory(run: Run) -> float | None:
    """Peak bytes of sampling and tuning; for older runs, of any stage."""
    stages = (run.sample.peak_memory_bytes, run.distill.peak_memory_bytes)
    known = [peak for peak in stages if peak]
    return max(known) if known else run.summary.peak_memory_bytes


def efficiency_table(sweep: Sweep, name: str) -> Table | None:
    """One row per tuned variant; None if nothing was tuned."""
    rows = [row for row in sweep.rows if not row.is_baseline and (row.runs or row.remark)]
    costs = {id(row): cost(row.runs) for row in rows}
    if not any(run.summary.distill for row in rows for run in row.runs):
        return None
    beside = [row for row in rows if _paper(row, sweep)]
    stages = list(dict.fromkeys(stage for one in costs.values() for stage in one.by_stage))
    columns = [
        Column("expert", is_text=True),
        Column("variant", is_text=True),
        *(Column(f"{stage} (s)") for stage in stages),
        Column("sampling (s)"),
        Column("tuning (s)"),
        Column("sampling + tuning (h)"),
        Column(PUBLISHED, under="sampling + tuning (h)"),
        Column("evaluation (s)"),
        Column("problems"),
        Column(PUBLISHED, under="problems"),
        Column("solved"),
        Column(PUBLISHED, under="solved"),
        Column("tokens generated"),
        Column("tokens tuned"),
        Column(PUBLISHED, under="tokens tuned"),
        Column("peak memory (GiB)"),
        Column("gain"),
        Column(PUBLISHED, under="gain"),
        Column("seeds"),
        Column(REMARK, is_text=True),
    ]
    table = Table(
        name,
        "Efficiency",
        columns,
        [_cells(row, costs[id(row)], stages, sweep) for row in rows],
        [_record(row, costs[id(row)], stages, sweep) for row in rows],
        [
            "Seconds, tokens and problems are means over seeds; results from the store count with "
            "the time of the run that made them. Evaluation covers expert and tuned expert and is "
            "not part of the total. Peak memory is the maximum of sampling and tuning over runs. "
            "Times on different machines are not comparable.",
            *([_PAPERS_MACHINE] if beside else []),
            *([_PAPERS_PROBLEMS] if any(_draws_answers(row) for row in beside) else []),
            *differing_rows(beside),
        ],
    )
    return without_lone_expert(without_empty(table))


def _paper(row: Row, sweep: Sweep) -> dict[str, float]:
    paper = published.efficiency(row.papers)
    if set(sweep.benchmarks) != _PUBLISHED_BENCHMARKS:
        paper = {key: value for key, value in paper.items() if key != "gain"}
    return paper


def _draws_answers(row: Row) -> bool:
    return row.setup.method == "rejection_sft"


def _cells(row: Row, cost: Cost, stages: list[str], sweep: Sweep) -> list[str]:
    paper = _paper(row, sweep)

    def beside(key: str, form: str) -> str:
        return asterisked(number(paper.get(key), form), row.differs)

    hours = None if cost.total is None else cost.total / _HOUR
    memory = None if cost.memory is None else cost.memory / _GIB
    return [
        row.setup.expert,
        row.label,
        *(number(cost.by_stage.get(stage)) for stage in stages),
        number(cost.sampling),
        number(cost.tuning),
        number(hours, ".2g" if hours is not None and hours < 0.1 else ".2f"),
        beside("hours", "g"),
        number(cost.evaluation),
        number(cost.problems, ",.0f"),
        ABSENT if _draws_answers(row) else beside("problems", ",.0f"),
        number(cost.solved, ",.0f"),
        beside("problems", ",.0f") if _draws_answers(row) else ABSENT,
        number(cost.generated_tokens, ",.0f"),
        number(cost.tuned_tokens, ",.0f"),
        beside("tuned_tokens", ",.0f"),
        number(memory, ".2f"),
        points(row.gain),
        beside("gain", "+.1f"),
        seeds_cell(row),
        remark(row.remarks),
    ]


def _record(row: Row, cost: Cost, stages: list[str], sweep: Sweep) -> dict[str, Any]:
    paper = _paper(row, sweep)
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
        "published_problems": None if _draws_answers(row) else paper.get("problems"),
        "published_solved": paper.get("problems") if _draws_answers(row) else None,
        "generated_tokens": cost.generated_tokens,
        "tuned_tokens": cost.tuned_tokens,
        "published_tuned_tokens": paper.get("tuned_tokens"),
        "peak_memory_bytes": cost.memory,
        "gain": scaled(row.gain.mean) if row.gain else None,
        "gain_stderr": scaled(row.gain.stderr) if row.gain else None,
        "published_gain": paper.get("gain"),
        "published_differs": "; ".join(row.differs) if paper else None,
        "seeds": len(row.seeds),
        "seeds_asked": row.asked,
        "remark": row.remark,
    }

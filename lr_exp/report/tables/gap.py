"""The expertise gap of each pair, beside the gain or on its own."""

from typing import Any

from lr_exp.errors import UserError
from lr_exp.report import published
from lr_exp.report.gaps import PairGap, measured_gap
from lr_exp.report.names import ABSENT, benchmark_label
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row, Sweep
from lr_exp.report.runs import Run
from lr_exp.report.tables.accuracy import notes, records, result_cells, result_columns
from lr_exp.report.tables.beside import asterisked
from lr_exp.report.tables.table import (
    PUBLISHED,
    Column,
    Table,
    number,
    percent,
    points,
    scaled,
    without_empty,
)

_ABOUT = (
    "Accuracy in % ± one standard error of each model alone, on the same n questions. Gap is the "
    "expert's minus the amateur's in points; its error treats the two as independent."
)


def gap_table(sweep: Sweep, name: str) -> Table | None:
    """Pairs by descending gap, then the expert alone, as in the paper."""
    rows = [row for row in sweep.rows if row.results.accuracies or row.remark]
    if not rows:
        return None
    gaps = {id(row): measured_gap(row.runs) for row in rows if not row.is_baseline}
    experts = list(dict.fromkeys(row.setup.expert for row in rows))

    def order(row: Row) -> tuple[int, bool, float]:
        gap = gaps.get(id(row))
        size = gap.difference.mean if gap else 0.0
        return experts.index(row.setup.expert), row.is_baseline, -size

    rows.sort(key=order)
    columns = [
        Column("expert", is_text=True),
        Column("amateur", is_text=True),
        Column("variant", is_text=True),
        Column("amateur alone"),
        Column("gap"),
        Column(PUBLISHED, under="gap"),
        *result_columns(sweep.benchmarks),
    ]
    cells = [
        [*_pair_cells(row, gaps.get(id(row))), *result_cells(row, sweep.benchmarks)] for row in rows
    ]
    records_by_row = [
        _pair_record(row, gaps.get(id(row))) | record
        for row in rows
        for record in records(row, sweep.benchmarks)
    ]
    table = Table(name, "Expertise gap", columns, cells, records_by_row, _notes(rows, gaps, sweep))
    if len({row.setup.method for row in rows if not row.is_baseline}) == 1:
        table = table.without([Column("variant", is_text=True)])
    return without_empty(table)


def pair_gap_table(sweep: Sweep, name: str) -> Table | None:
    """Each pair's gap, for sweeps other than `expertise_gap`; None if it was not measured.

    A pair whose runs disagree gets a note instead of a row.
    """
    measured = [run for run in sweep.runs if run.evaluate.gap]
    gaps, notes = [], [_ABOUT]
    for (expert, amateur), own in grouped(measured, _models).items():
        try:
            gap = measured_gap(own)
        except UserError as reason:
            notes.append(f"Not shown: {reason}")
            continue
        if gap is not None:
            gaps.append((expert, amateur, gap))
            notes += [gap.note] if gap.note else []
    if not measured:
        return None
    columns = [Column(title, is_text=True) for title in ("expert", "amateur", "benchmark")]
    columns += [Column("decoding", is_text=True), *map(Column, ("expert alone", "amateur alone"))]
    columns += map(Column, ("gap", "n"))
    rows = [
        [
            *(expert, amateur, benchmark_label(gap.benchmark), gap.decoder),
            *(percent(gap.expert), percent(gap.amateur), points(gap.difference)),
            f"{gap.expert.questions:,}",
        ]
        for expert, amateur, gap in gaps
    ]
    made = [
        {"expert": expert, "amateur": amateur, "n": gap.expert.questions}
        | {"expert_accuracy": scaled(gap.expert.mean), "expert_stderr": scaled(gap.expert.stderr)}
        | _gap_record(gap)
        for expert, amateur, gap in gaps
    ]
    return Table(name, "Expertise gap", columns, rows, made, notes)


def _models(run: Run) -> tuple[str, str]:
    """The measured pair; methods without an amateur still have one in the settings."""
    configured = run.settings.get("amateur", {}).get("name")
    return run.expert, run.amateur or configured or ABSENT


def _pair_cells(row: Row, gap: PairGap | None) -> list[str]:
    amateur = "none (expert only)" if row.is_baseline else row.setup.amateur or ABSENT
    if gap is None:
        return [row.setup.expert, amateur, row.label, ABSENT, ABSENT, ABSENT]
    paper = asterisked(number(published.gap(row.papers, gap.benchmark), "+.1f"), row.differs)
    return [
        row.setup.expert,
        amateur,
        row.label,
        percent(gap.amateur),
        points(gap.difference),
        paper,
    ]


def _pair_record(row: Row, gap: PairGap | None) -> dict[str, Any]:
    return _gap_record(gap) | {
        "gap_published": published.gap(row.papers, gap.benchmark) if gap else None,
    }


def _gap_record(gap: PairGap | None) -> dict[str, Any]:
    return {
        "gap_benchmark": gap.benchmark if gap else None,
        "gap_decoder": gap.decoder if gap else None,
        "amateur_accuracy": scaled(gap.amateur.mean) if gap else None,
        "amateur_stderr": scaled(gap.amateur.stderr) if gap else None,
        "gap": scaled(gap.difference.mean) if gap else None,
        "gap_stderr": scaled(gap.difference.stderr) if gap else None,
    }


def _notes(rows: list[Row], gaps: dict[int, PairGap | None], sweep: Sweep) -> list[str]:
    ways = {(gap.benchmark, gap.decoder) for gap in gaps.values() if gap}
    about = [
        f"Gap: the expert's accuracy minus the amateur's on {benchmark_label(name)}, {decoder} "
        "decoding, in points."
        for name, decoder in sorted(ways)
    ]
    if not ways and any(row.runs for row in rows):
        about = ["The expertise gap itself was not measured (evaluator.gap)."]
    about += dict.fromkeys(gap.note for gap in gaps.values() if gap and gap.note)
    return [*about, *notes(rows, sweep.benchmarks)]

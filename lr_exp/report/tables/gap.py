"""The expertise gap of each pair of models, beside the published one."""

from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.gaps import PairGap, measured_gap
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, EXPERTS, Setup, benchmark_label, rank
from lr_exp.report.published import GAP_BENCHMARK
from lr_exp.report.read.runs import Run
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    notes_on_rows,
    table_of,
    text_column,
    with_published,
)
from lr_exp.report.texts import report_text


def gap_table(sweep: Sweep, name: str) -> Table | None:
    """Pairs by descending gap, as in the paper; None if it was not measured.

    A pair whose runs disagree gets a note instead of a row.
    """
    pairs = grouped([run for run in sweep.runs if run.evaluate.gap], _models)
    if not pairs:
        return None
    measured: list[tuple[Row, PairGap]] = []
    notes = [report_text("expertise_gap")]
    for (expert, amateur), own in pairs.items():
        try:
            if gap := measured_gap(own):
                measured.append((_row(sweep, expert, amateur), gap))
                notes += gap.notes
        except UserError as reason:
            notes.append(f"Not shown: {reason}")
    measured.sort(key=lambda one: (rank(one[0].setup.expert, EXPERTS), -one[1].difference.mean))
    rows, gaps = [row for row, _ in measured], [gap for _, gap in measured]
    papers = "gap" if {gap.benchmark for gap in gaps} == {GAP_BENCHMARK} else ""
    differences = [cell.points(gap.difference) for gap in gaps]
    columns = [
        text_column("expert", [row.setup.expert for row in rows]),
        text_column("amateur", [row.setup.amateur or ABSENT for row in rows]),
        text_column("benchmark", [benchmark_label(gap.benchmark) for gap in gaps]),
        text_column("decoding", [gap.decoder for gap in gaps]),
        (Column("expert alone"), [cell.percent(gap.expert) for gap in gaps]),
        (Column("amateur alone"), [cell.percent(gap.amateur) for gap in gaps]),
        *with_published("gap", differences, rows, papers, "+.1f"),
        (Column("gap, nats/token"), list(map(_nats, gaps))),
        (Column("n"), [f"{gap.expert.questions:,}" for gap in gaps]),
    ]
    records = [
        {
            "expert": row.setup.expert,
            "amateur": row.setup.amateur,
            "gap_benchmark": gap.benchmark,
            "gap_decoder": gap.decoder,
            **estimate_record("expert_accuracy", gap.expert, "expert_stderr"),
            **estimate_record("amateur_accuracy", gap.amateur, "amateur_stderr"),
            **estimate_record("gap", gap.difference),
            "gap_published": row.published.get(papers),
            "gap_nats": gap.nats.difference if gap.nats else None,
            "n": gap.expert.questions,
        }
        for row, gap in measured
    ]
    notes += notes_on_rows(row for row in rows if papers in row.published)
    return table_of(name, "Expertise gap", columns, records, notes, "results")


def _models(run: Run) -> tuple[str, str | None]:
    """The measured pair; methods without an amateur still have one in the settings."""
    return run.expert, run.amateur or run.settings.get("amateur", {}).get("name")


def _row(sweep: Sweep, expert: str, amateur: str | None) -> Row:
    """A row of the sweep with these models, with the published gap if there is one."""
    rows = [row for row in sweep.rows if (row.setup.expert, row.setup.amateur) == (expert, amateur)]
    rows.append(Row(Setup(expert, None, amateur)))
    return next((row for row in rows if "gap" in row.published), rows[0])


def _nats(gap: PairGap) -> str:
    """`+0.123 ± 0.004`: the expert's log-likelihood of reference solutions minus the amateur's."""
    if gap.nats is None:
        return ABSENT
    return f"{gap.nats.difference:+.3f} ± {gap.nats.ci95[1] - gap.nats.difference:.3f}"

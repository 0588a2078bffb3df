"""The expertise gap of each pair, beside the gain or on its own."""

from typing import Any

from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.gaps import PairGap, measured_gap
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT, EXPERTS, benchmark_label, rank
from lr_exp.report.published import GAP_BENCHMARK
from lr_exp.report.read.runs import Run
from lr_exp.report.tables import cell
from lr_exp.report.tables.accuracy import (
    beside_published,
    evaluated_rows,
    result_columns,
    result_notes,
    result_records,
)
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    table_of,
    text_column,
    with_published,
)

_ABOUT = (
    "Accuracy in % ± the wider side of its 95 % interval of each model alone, on the same n "
    "questions. Gap is the expert's minus the amateur's in points; its interval treats the two as"
    " independent."
)


def gap_table(sweep: Sweep, name: str) -> Table | None:
    """Pairs by descending gap, then the expert alone, as in the paper."""
    measured = [
        (row, None if row.is_baseline else measured_gap(row.runs)) for row in evaluated_rows(sweep)
    ]
    if not measured:
        return None
    measured.sort(key=lambda one: -one[1].difference.mean if one[1] else 0.0)
    measured.sort(key=lambda one: (rank(one[0].setup.expert, EXPERTS), one[0].is_baseline))
    rows, gaps = [row for row, _ in measured], [gap for _, gap in measured]
    amateurs = [
        "none (expert only)" if row.is_baseline else row.setup.amateur or ABSENT for row in rows
    ]
    ways = {(gap.benchmark, gap.decoder) for gap in gaps if gap}
    papers = "gap" if {benchmark for benchmark, _ in ways} == {GAP_BENCHMARK} else ""
    differences = [cell.points(gap.difference if gap else None) for gap in gaps]
    variants = text_column("variant", [row.label for row in rows])
    has_methods = len({row.setup.method for row in rows if not row.is_baseline}) > 1
    columns = [
        text_column("expert", [row.setup.expert for row in rows]),
        text_column("amateur", amateurs),
        *([variants] if has_methods else []),
        (Column("amateur alone"), [cell.percent(gap.amateur if gap else None) for gap in gaps]),
        *with_published("gap", differences, rows, papers, "+.1f"),
        (Column("gap, nats/token"), list(map(_nats, gaps))),
        *result_columns(rows, sweep.benchmarks),
    ]
    records = [
        _record(gap) | {"gap_published": row.published.get(papers)} | record
        for row, gap in measured
        for record in result_records(row, sweep.benchmarks)
    ]
    about = [
        f"Gap: the expert's accuracy minus the amateur's on {benchmark_label(benchmark)}, "
        f"{decoder} decoding, in points."
        for benchmark, decoder in sorted(ways)
    ]
    if not ways and any(row.runs for row in rows):
        about = ["The expertise gap itself was not measured (evaluator.gap)."]
    about += dict.fromkeys(note for gap in gaps if gap for note in gap.notes)
    notes = [*about, *result_notes(rows, sweep.benchmarks)]
    return beside_published(table_of(name, "Expertise gap", columns, records, notes))


def pair_gap_table(sweep: Sweep, name: str) -> Table | None:
    """Each pair's gap, for sweeps other than `expertise_gap`; None if it was not measured.

    A pair whose runs disagree gets a note instead of a row.
    """
    runs = [run for run in sweep.runs if run.evaluate.gap]
    if not runs:
        return None
    measured: list[tuple[str, str, PairGap]] = []
    notes = [_ABOUT]
    for pair, own in grouped(runs, _models).items():
        try:
            if gap := measured_gap(own):
                measured.append((*pair, gap))
                notes += gap.notes
        except UserError as reason:
            notes.append(f"Not shown: {reason}")
    columns = [
        text_column("expert", [expert for expert, _, _ in measured]),
        text_column("amateur", [amateur for _, amateur, _ in measured]),
        text_column("benchmark", [benchmark_label(gap.benchmark) for *_, gap in measured]),
        text_column("decoding", [gap.decoder for *_, gap in measured]),
        (Column("expert alone"), [cell.percent(gap.expert) for *_, gap in measured]),
        (Column("amateur alone"), [cell.percent(gap.amateur) for *_, gap in measured]),
        (Column("gap"), [cell.points(gap.difference) for *_, gap in measured]),
        (Column("gap, nats/token"), [_nats(gap) for *_, gap in measured]),
        (Column("n"), [f"{gap.expert.questions:,}" for *_, gap in measured]),
    ]
    records = [
        {"expert": expert, "amateur": amateur, "n": gap.expert.questions}
        | estimate_record("expert_accuracy", gap.expert, "expert_stderr")
        | _record(gap)
        for expert, amateur, gap in measured
    ]
    return table_of(name, "Expertise gap", columns, records, notes)


def _models(run: Run) -> tuple[str, str]:
    """The measured pair; methods without an amateur still have one in the settings."""
    configured = run.settings.get("amateur", {}).get("name")
    return run.expert, run.amateur or configured or ABSENT


def _nats(gap: PairGap | None) -> str:
    """`+0.123 ± 0.004`: the expert's log-likelihood of reference solutions minus the amateur's."""
    if gap is None or gap.nats is None:
        return ABSENT
    return f"{gap.nats.difference:+.3f} ± {gap.nats.ci95[1] - gap.nats.difference:.3f}"


def _record(gap: PairGap | None) -> dict[str, Any]:
    return {
        "gap_benchmark": gap.benchmark if gap else None,
        "gap_decoder": gap.decoder if gap else None,
        **estimate_record("amateur_accuracy", gap and gap.amateur, "amateur_stderr"),
        **estimate_record("gap", gap and gap.difference),
        "gap_nats": gap.nats.difference if gap and gap.nats else None,
    }

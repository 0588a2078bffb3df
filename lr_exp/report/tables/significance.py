"""Each variant against the baseline and LightReasoner; the CSV file has all pairs of rows."""

from dataclasses import asdict

from lr_exp.report.analyse.compare import Pairs
from lr_exp.report.analyse.paired import FLIPS, holm
from lr_exp.report.names import method_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    label_columns,
    table_of,
    text_column,
)
from lr_exp.report.texts import report_text

_REFERENCE = method_label("lightreasoner")  # the label of an expert's only such row


def significance_table(pairs: Pairs, name: str) -> Table | None:
    """None if no two rows could be compared."""
    if not pairs.pairs:
        return None
    shown = [
        pair
        for pair in pairs.pairs
        if pair.ours.setup.expert == pair.theirs.setup.expert
        and (
            pair.theirs.is_baseline
            or _REFERENCE + pair.ours.mark in (pair.ours.label, pair.theirs.label)
        )
    ]
    shown.sort(key=lambda pair: not pair.theirs.is_baseline)
    overall = [pair.overall for pair in shown]
    corrected = dict(zip(overall, holm([one.p_mean for one in overall]), strict=True))
    columns = [
        *label_columns([pair.ours for pair in shown]),
        text_column("against", [pair.theirs.label for pair in shown]),
        (Column("difference"), [cell.signed(100 * one.difference.mean) for one in overall]),
        (Column("95 % interval"), [cell.between(one.difference.ci95) for one in overall]),
        (Column("over seeds"), [cell.between(one.difference.seeds_ci95) for one in overall]),
        (Column("won"), [f"{one.won:,}" for one in overall]),
        (Column("lost"), [f"{one.lost:,}" for one in overall]),
        (Column("p (majority of seeds)"), [cell.p_value(one.p_majority) for one in overall]),
        (Column("p (mean of seeds)"), [cell.p_value(one.p_mean) for one in overall]),
        (Column("p (Holm)"), [cell.p_value(corrected[one]) for one in overall]),
    ]
    records = [
        {
            "expert": pair.ours.setup.expert,
            "variant": pair.ours.label,
            "against_expert": pair.theirs.setup.expert,
            "against": pair.theirs.label,
            **asdict(comparison),
            "p_holm": corrected.get(comparison),  # of the rows in the table
            **estimate_record("difference", comparison.difference),
        }
        for pair in pairs.pairs
        for comparison in pair.comparisons
    ]
    about = report_text("significance", flips=FLIPS)
    return table_of(name, "Significance", columns, records, [about])

"""What else could explain LightReasoner's gain: its controls, in one table."""

from typing import Any

from lr_exp.report.analyse.controls import REFERENCE, controls
from lr_exp.report.analyse.costs import costs
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT, method_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record, table_of, text_column
from lr_exp.report.texts import report_text

_TITLES = {  # by field of `Control`
    "gain": "gain",
    "gain_best_prompts": "gain, best prompts",
    "latent": "latent",
    "format": "format",
    "against_lightreasoner": f"against {method_label(REFERENCE)}",
}
_COSTS = {
    "tuned_tokens": ("tokens tuned", ",.0f"),
    "tokens_read": ("tokens read in training", ",.0f"),
    "flops": ("FLOPs", ".2e"),
}


def controls_table(sweep: Sweep, name: str) -> Table | None:
    """One row per method; None if the sweep does not compare methods at several learning rates."""
    found = controls(sweep)
    if not found:
        return None
    measured = [costs([run for row in one.rows for run in row.runs]) for one in found]
    columns = [text_column("method", [method_label(one.method) for one in found])]
    columns += [
        (Column(title), [cell.with_interval(getattr(one, key)) for one in found])
        for key, title in _TITLES.items()
    ]
    p_values = [ABSENT if one.p_holm is None else cell.p_value(one.p_holm) for one in found]
    columns += [
        (Column("p (Holm)"), p_values),
        (Column("learning rates"), [", ".join(one.rates) for one in found]),
    ]
    columns += [
        (Column(title), [cell.number(one[key], form) for one in measured])
        for key, (title, form) in _COSTS.items()
    ]
    columns += [
        (Column("seeds"), [str(one.gain.seeds) for one in found]),
        (Column("n"), [f"{one.gain.questions:,}" for one in found]),
    ]
    records = []
    for one, cost in zip(found, measured, strict=True):
        record: dict[str, Any] = {"method": one.method}
        for key in _TITLES:
            record |= estimate_record(key, getattr(one, key))
        record |= {"p_holm": one.p_holm, "learning_rates": " ".join(one.rates)}
        record |= {key: cost[key] for key in _COSTS}
        records.append(record | {"seeds": one.gain.seeds, "n": one.gain.questions})
    notes = [report_text("controls")]
    if edge := [method_label(one.method) for one in found if one.at_edge]:
        notes.append(
            f"At the lowest or highest learning rate that was tried: {', '.join(edge)}. A better "
            "one may lie beyond."
        )
    shown = {one.method for one in found}
    trained = {row.setup.method for row in sweep.rows if not row.is_baseline}
    if missing := [method_label(one) for one in trained - shown]:
        notes.append(
            "Left out, with other seeds or learning rates or without answers: "
            f"{', '.join(sorted(missing))}."
        )
    return table_of(name, "Controls", columns, records, notes)

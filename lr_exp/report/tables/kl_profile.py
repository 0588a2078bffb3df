"""Divergences of the models: one column per pair, beside the published numbers."""

from lr_exp.report import published
from lr_exp.report.analyse.profiles import MEANS, profiles
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    PUBLISHED,
    Column,
    Table,
    notes_on_differences,
    table_of,
    text_column,
)
from lr_exp.report.texts import report_text

_ABOUT = ("share_below_0.1", "share_above_0.4")  # the paper gives them as "about"


def kl_profile_table(sweep: Sweep, name: str) -> Table | None:
    """None if no run scored token positions with two models."""
    pairs = profiles(sweep)
    if not pairs:
        return None
    in_paper = [pair for pair in pairs if pair.is_in_paper]
    differences = notes_on_differences((pair.label, pair.paper_differences) for pair in in_paper)
    papers = [
        ("about " if key in _ABOUT else "") + _number(key, published.KL_PROFILE[key])
        if in_paper and key in published.KL_PROFILE
        else ABSENT
        for key in MEANS
    ]
    columns = [text_column("", ["scored steps", "seeds", *MEANS.values()])]
    for pair in pairs:
        means = [_number(key, pair.means[key]) for key in MEANS]
        columns.append((Column(pair.label), [f"{pair.steps:,}", str(pair.seeds), *means]))
    marked = [cell.asterisked(text, differences) for text in papers]
    columns.append((Column(PUBLISHED), [ABSENT, ABSENT, *marked]))
    records = [
        {
            "expert": pair.setup.expert,
            "amateur": pair.setup.amateur,
            "methods": " ".join(method or "imported records" for method in pair.methods),
            "quantity": key,
            "value": value,
            "published": published.KL_PROFILE.get(key) if pair.is_in_paper else None,
            "published_differs": "; ".join(pair.paper_differences) if pair.is_in_paper else None,
            "seeds": pair.seeds,
        }
        for pair in pairs
        for key, value in {"steps": pair.steps, **pair.means}.items()
    ]
    notes = [report_text("divergence"), *differences]
    title = "Divergence of the pairs"
    return table_of(name, title, columns, records, notes, "divergence")


def _number(key: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1%}" if key.startswith("share") else f"{value:.3g}"

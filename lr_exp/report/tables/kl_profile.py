"""Divergences of the models: one column per pair, beside the published numbers."""

from lr_exp.report import published
from lr_exp.report.analyse.profiles import MEANS, profiles
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import PUBLISHED, Column, Table, notes_on_differences, without_empty

_ABOUT = ("share_below_0.1", "share_above_0.4")  # the paper gives them as "about"


def kl_profile_table(sweep: Sweep, name: str) -> Table | None:
    """None if no run scored token positions with two models."""
    pairs = profiles(sweep)
    if not pairs:
        return None
    papers = any(pair.is_in_paper for pair in pairs)
    rows = [
        ["scored steps", *(f"{pair.steps:,}" for pair in pairs), ABSENT],
        ["seeds", *(str(pair.seeds) for pair in pairs), ABSENT],
    ]
    for key, title in MEANS.items():
        paper = published.KL_PROFILE.get(key) if papers else None
        about = "about " if paper is not None and key in _ABOUT else ""
        cells = [_number(key, pair.means[key]) for pair in pairs]
        rows.append([title, *cells, about + _number(key, paper)])
    columns = [Column("", is_text=True), *(Column(pair.label) for pair in pairs), Column(PUBLISHED)]
    records = [
        {
            "expert": pair.expert,
            "amateur": pair.amateur,
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
    notes = ["Over all scored steps of all seeds together; expert / amateur."]
    notes += notes_on_differences(
        (pair.label, pair.paper_differences) for pair in pairs if pair.is_in_paper
    )
    if len(notes) > 1:
        for row in rows:
            row[-1] = cell.asterisked(row[-1], [True])
    return without_empty(Table(name, "Divergence of the pairs", columns, rows, records, notes))


def _number(key: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1%}" if key.startswith("share") else f"{value:.3g}"

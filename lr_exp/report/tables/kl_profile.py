"""Where two models diverge: one column a pair, the published observations beside them."""

from lr_exp.report import published
from lr_exp.report.names import ABSENT, method_label
from lr_exp.report.profiles import MEANS, profiles
from lr_exp.report.rows import Sweep
from lr_exp.report.tables.beside import asterisked, differing
from lr_exp.report.tables.table import PUBLISHED, Column, Table, without_empty

_TITLES = {
    "share_below_0.1": "steps below 0.1 nat",
    "share_above_0.4": "steps above 0.4 nat",
    "share_same_top1": "steps with the same top-1 token",
    "kl_mean": "mean KL (nats)",
    "kl_mean_same_top1": "mean KL, same top-1 (nats)",
    "kl_mean_other_top1": "mean KL, different top-1 (nats)",
    "expert_entropy_mean": "entropy of the expert (nats)",
    "amateur_entropy_mean": "entropy of the amateur (nats)",
}
_ABOUT = ("share_below_0.1", "share_above_0.4")  # the paper gives them as "about"


def kl_profile_table(sweep: Sweep, name: str) -> Table | None:
    """None where no run scored its steps with two models."""
    found = profiles(sweep)
    if not found:
        return None
    labels = [one.label for one in found]
    titles = [
        label
        if labels.count(label) == 1
        else f"{label} ({', '.join(map(method_label, one.methods))})"
        for one, label in zip(found, labels, strict=True)
    ]
    papers = any(one.is_papers for one in found)
    rows = [
        ["scored steps", *(f"{one.steps:,}" for one in found), ABSENT],
        ["seeds", *(str(one.seeds) for one in found), ABSENT],
    ]
    for key in MEANS:
        paper = published.KL_PROFILE.get(key) if papers else None
        about = "about " if paper is not None and key in _ABOUT else ""
        told = about + _number(key, paper)
        rows.append([_TITLES[key], *(_number(key, one.means[key]) for one in found), told])
    columns = [Column("", is_text=True), *map(Column, titles), Column(PUBLISHED)]
    records = [
        {
            "expert": one.expert,
            "amateur": one.amateur,
            "methods": " ".join(one.methods),
            "quantity": key,
            "value": value,
            "published": published.KL_PROFILE.get(key) if one.is_papers else None,
            "published_differs": "; ".join(one.differs) if one.is_papers else None,
            "seeds": one.seeds,
        }
        for one in found
        for key, value in {"steps": one.steps, **one.means}.items()
    ]
    notes = ["Over all scored steps of all seeds together; expert / amateur."]
    labelled = zip(titles, found, strict=True)
    notes += differing([(title, one.differs) for title, one in labelled if one.is_papers])
    if len(notes) > 1:
        for row in rows:
            row[-1] = asterisked(row[-1], [True])
    return without_empty(Table(name, "Divergence of the pairs", columns, rows, records, notes))


def _number(key: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1%}" if key.startswith("share") else f"{value:.3g}"

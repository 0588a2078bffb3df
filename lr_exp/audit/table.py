"""The audit of the labels: is the label's token followed by a right answer more often?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lr_exp.report.analyse.paired import Correct, Estimate, accuracy, difference
from lr_exp.report.page.trajectories import token_kinds
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record, table_of, text_column

Records = Sequence[Mapping[str, Any]]  # of `continuations.audit`

_KL_EDGES = (0.5, 1.0, 2.0, 4.0)  # nats
_STEP_EDGES = (16, 32, 64, 128)  # tokens
_ABOUT = (
    "At each position the answer was continued from the label's most probable token and from the "
    "expert's, sampled several times; right: the share of continuations with the right answer, in "
    "%. Each question gives one position of a kind at most, so the 95 % intervals are over "
    "questions. Moving: the label's token is not the expert's. Confirming: both are the same, and "
    "the difference shows the noise of the measurement. The difference is that of one token with "
    "the untuned expert before and after it, not that of a tuned expert."
)


def groups(records: Records) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The positions by kind (`moving`, `confirming`) and by what they have in common."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in sorted(records, key=lambda one: not one["moving"]):
        kind = "moving" if one["moving"] else "confirming"
        (token,) = token_kinds([one["label_token"]], "")
        for what in (
            "all",
            f"trajectory {one['trajectory']}",
            f"KL {_interval(one['kl'], _KL_EDGES)} nats",
            f"token {_interval(one['step'], _STEP_EDGES)}",
            f"label's token: {token}",
        ):
            found.setdefault((kind, what), []).append(one)
    order = {"all": 0, "trajectory": 1, "KL": 2, "token": 3, "label's": 4}

    def key(name: tuple[str, str]) -> tuple[object, ...]:
        own = found[name][0]
        size = {"KL": own["kl"], "token": own["step"]}.get(name[1].split()[0], 0)
        return name[0] != "moving", order[name[1].split()[0]], size, name[1]

    return {name: found[name] for name in sorted(found, key=key)}


def _interval(value: float, edges: Sequence[float]) -> str:
    """`0.5 to 1`, `below 0.5` or `4 and more`."""
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"below {edges[0]:g}"
    if place == len(edges):
        return f"{edges[-1]:g} and more"
    return f"{edges[place - 1]:g} to {edges[place]:g}"


def shares(records: Records) -> tuple[Correct, Correct]:
    """The shares of right continuations from the label's and from the expert's token: (1, n)."""
    label, expert = (
        np.array([[one[f"right_from_{arm}"] / one["samples"] for one in records]], dtype=float)
        for arm in ("label", "expert")
    )
    return label, expert


def shift(records: Records) -> Estimate:
    """The difference of the shares: label's token minus expert's token."""
    return difference(*shares(records))


def audit_table(records: Records, name: str) -> Table:
    """One row per kind of position and group of them."""
    found = groups(records)
    both = [shares(own) for own in found.values()]
    shifts = [shift(own) for own in found.values()]
    columns = [
        text_column("positions", [kind for kind, _ in found]),
        text_column("of these", [what for _, what in found]),
        (Column("n"), [f"{len(own):,}" for own in found.values()]),
        (Column("right, label's token"), [f"{100 * label.mean():.1f}" for label, _ in both]),
        (Column("right, expert's token"), [f"{100 * expert.mean():.1f}" for _, expert in both]),
        (Column("difference"), [cell.with_interval(one) for one in shifts]),
    ]
    rows = [
        {
            "positions": kind,
            "of_these": what,
            "n": len(own),
            **estimate_record("right_label", accuracy(label)),
            **estimate_record("right_expert", accuracy(expert)),
            **estimate_record("difference", one),
        }
        for ((kind, what), own), (label, expert), one in zip(
            found.items(), both, shifts, strict=True
        )
    ]
    return table_of(name, "Audit of the labels", columns, rows, [_ABOUT])

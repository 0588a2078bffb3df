"""The audit of the labels: is the label's token followed by a right answer more often?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lr_exp.report.analyse.paired import Z95, Correct, Estimate, accuracy, difference
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record, table_of, text_column
from lr_exp.report.texts import report_text

KINDS = ("moving", "confirming", "second choice")  # of positions; see `continuations.audit`
Records = Sequence[Mapping[str, Any]]  # of `continuations.audit`

_KL_EDGES = (0.5, 1.0, 2.0, 4.0)  # nats
_STEP_EDGES = (16, 32, 64, 128)  # tokens
_OPERATORS = set("+-*/=<>^×÷−·")  # noqa: RUF001


def groups(records: Records) -> dict[tuple[str, str], Records]:
    """The positions by kind and by what they have in common."""
    frame: Any = pd.DataFrame(records)
    criteria = [
        pd.Series("all", index=frame.index),
        "trajectory " + frame["trajectory"],
        _binned(frame["kl"], "KL {} nats", _KL_EDGES),
        _binned(frame["step"], "token {}", _STEP_EDGES),
        "label's token: " + frame["label_token"].map(_token_kind),
    ]
    return {
        (kind, str(what)): own.to_dict("records")
        for kind in KINDS
        for criterion in criteria
        for what, own in frame[frame["kind"] == kind].groupby(criterion, observed=True)
    }


def _token_kind(token: str) -> str:
    bare = token.strip()
    if any(sign.isdigit() for sign in bare):
        return "digits"
    if any(sign.isalpha() for sign in bare) and not bare.startswith(("\\", "<|")):
        return "words"
    return "operators" if bare and set(bare) <= _OPERATORS else "punctuation and format"


def _binned(values: Any, form: str, edges: Sequence[float]) -> Any:
    """Ordered categories `0.5 to 1`, `below 0.5` or `4 and more`, each in `form`."""
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    names = [f"below {edges[0]:g}", *between, f"{edges[-1]:g} and more"]
    bins = [-math.inf, *edges, math.inf]
    return pd.cut(values, bins, right=False, labels=[form.format(name) for name in names])


def shares(records: Records) -> tuple[Correct, Correct]:
    """The shares of right continuations from the label's and from the expert's token: (1, n)."""
    label, expert = (
        np.array([[one[f"right_from_{arm}"] / one["samples"] for one in records]], dtype=float)
        for arm in ("label", "expert")
    )
    return label, expert


def shift(records: Records) -> Estimate:
    """The difference of the shares: label's token minus expert's token.

    The interval is that of `paired.difference`, with the variance of shares: two positions, one
    won and one lost by all continuations, are added, so that its width is never 0.
    """
    label, expert = shares(records)
    found = difference(label, expert)
    added = np.append(label - expert, (1.0, -1.0))
    half = Z95 * added.std() / math.sqrt(len(added))
    return replace(found, question_ci95=(added.mean() - half, added.mean() + half))


def audit_table(records: Records, name: str) -> Table:
    """One row per kind of position and group of them."""
    found = groups(records)
    measured = [(*map(accuracy, shares(own)), shift(own)) for own in found.values()]
    columns = [
        text_column("positions", [kind for kind, _ in found]),
        text_column("of these", [what for _, what in found]),
        (Column("n"), [f"{len(own):,}" for own in found.values()]),
        (Column("right, label's token"), [f"{100 * one.mean:.1f}" for one, _, _ in measured]),
        (Column("right, expert's token"), [f"{100 * one.mean:.1f}" for _, one, _ in measured]),
        (Column("difference"), [cell.with_interval(one) for _, _, one in measured]),
    ]
    rows = [
        {"positions": kind, "of_these": what, "n": len(own)}
        | estimate_record("right_label", label)
        | estimate_record("right_expert", expert)
        | estimate_record("difference", change)
        for ((kind, what), own), (label, expert, change) in zip(
            found.items(), measured, strict=True
        )
    ]
    cut_off = sum(one["cut_off"] for one in records)
    total = 2 * sum(one["samples"] for one in records)
    note = f"Continuations that reached the token limit: {cell.part_of(cut_off, total)}."
    return table_of(name, "Audit of the labels", columns, rows, [report_text("audit"), note])

"""The tables of a sweep: which ones, in which order, under which names."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lr_exp.report.compare import Pairs, compare
from lr_exp.report.rows import Sweep
from lr_exp.report.tables.accuracy import accuracy_table
from lr_exp.report.tables.alpha_beta import alpha_beta_table
from lr_exp.report.tables.efficiency import efficiency_table
from lr_exp.report.tables.gap import gap_table, pair_gap_table
from lr_exp.report.tables.kl_profile import kl_profile_table
from lr_exp.report.tables.significance import significance_table
from lr_exp.report.tables.table import Table

# The sweep's main table has the sweep's name; the others follow, with a suffix.
_LAYOUTS: dict[str, Callable[[Sweep, str], Table | None]] = {
    "expertise_gap": gap_table,
    "alpha_beta": alpha_beta_table,
    "results": accuracy_table,
    "efficiency": efficiency_table,
    "kl_profile": kl_profile_table,
}


@dataclass(frozen=True)
class Tables:
    """A sweep's tables, the main one first, and the comparisons behind them."""

    tables: list[Table]
    pairs: Pairs


def tables_of(sweep: Sweep, prefix: str) -> Tables:
    """All tables for which the sweep has numbers."""
    kind = sweep.table if sweep.table in _LAYOUTS else "results"
    order = [kind, *(name for name in _LAYOUTS if name != kind)]
    # Only one table has the accuracies, and only sweeps over alpha and beta have a grid.
    unwanted = {"results" if kind == "expertise_gap" else "expertise_gap"}
    if kind != "alpha_beta":
        unwanted.add("alpha_beta")
    tables = []
    for layout in order:
        if layout in unwanted:
            continue
        table = _LAYOUTS[layout](sweep, prefix if layout == kind else f"{prefix}_{layout}")
        if table is not None:
            tables.append(table)
    if kind != "expertise_gap":
        gaps = pair_gap_table(sweep, f"{prefix}_pair_gap")
        tables += [gaps] if gaps is not None else []
    pairs = compare(sweep)
    significance = significance_table(pairs, f"{prefix}_significance")
    if significance is not None:
        # directly after the main table, whose claims it supports
        tables.insert(min(1, len(tables)), significance)
    return Tables(tables, pairs)


def prefix_of(name: str | None, taken: set[str]) -> str:
    """The sweep's name as a file name that is unique in the report."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name or "results").strip("_-")[:80] or "results"
    prefix, number = plain, 1
    while prefix in taken:
        number += 1
        prefix = f"{plain}_{number}"
    taken.add(prefix)
    return prefix

"""The tables of a sweep: which ones, in which order, under which names."""

import re
from collections.abc import Callable

from lr_exp.report.analyse.compare import Pairs, compare
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.tables.accuracy import accuracy_table
from lr_exp.report.tables.answers import answers_table
from lr_exp.report.tables.controls import controls_table
from lr_exp.report.tables.decomposition import decomposition_table
from lr_exp.report.tables.efficiency import efficiency_table
from lr_exp.report.tables.explanations import explanations_table
from lr_exp.report.tables.gap import gap_table
from lr_exp.report.tables.kl_profile import kl_profile_table
from lr_exp.report.tables.prompts import prompts_table
from lr_exp.report.tables.samples import samples_table
from lr_exp.report.tables.significance import significance_table
from lr_exp.report.tables.table import Table

_TABLES: dict[str, Callable[[Sweep, str], Table | None]] = {
    "results": accuracy_table,
    "gap": gap_table,
    "controls": controls_table,
    "explanations": explanations_table,
    "decomposition": decomposition_table,
    "samples": samples_table,
    "prompts": prompts_table,
    "answers": answers_table,
    "efficiency": efficiency_table,
    "kl_profile": kl_profile_table,
}


def tables_of(sweep: Sweep, prefix: str) -> tuple[list[Table], Pairs]:
    """All tables for which the sweep has numbers, and the comparisons behind them.

    The main table comes first and has the name `prefix`; the others have a suffix.
    """
    main = sweep.table if sweep.table in _TABLES else "results"
    made = [
        _TABLES[kind](sweep, prefix if kind == main else f"{prefix}_{kind}")
        for kind in dict.fromkeys([main, *_TABLES])
    ]
    pairs = compare(sweep)
    # Directly after the main table, whose claims it supports.
    made.insert(1, significance_table(pairs, f"{prefix}_significance"))
    return [table for table in made if table is not None], pairs


def unique_prefix(name: str | None, taken: set[str]) -> str:
    """Makes a file name from the sweep's name that is not in `taken`, and adds it to `taken`."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name or "results").strip("_-")[:80] or "results"
    prefix, number = plain, 1
    while prefix in taken:
        number += 1
        prefix = f"{plain}_{number}"
    taken.add(prefix)
    return prefix

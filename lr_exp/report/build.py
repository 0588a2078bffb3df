"""From a folder of runs to the files of its report. Nothing is written before all is made."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.report.compare import compare
from lr_exp.report.document import document
from lr_exp.report.figures import draw_all
from lr_exp.report.rows import Row, Sweep, sweeps
from lr_exp.report.runs import Found, find_runs
from lr_exp.report.section import Section
from lr_exp.report.tables.accuracy import accuracy_table
from lr_exp.report.tables.alpha_beta import alpha_beta_table
from lr_exp.report.tables.efficiency import efficiency_table
from lr_exp.report.tables.gap import gap_table
from lr_exp.report.tables.kl_profile import kl_profile_table
from lr_exp.report.tables.significance import significance_table
from lr_exp.report.tables.table import Table, remark
from lr_exp.report.write import csv_text, latex_table, one_line, plain_table

# A sweep's own table has the sweep's name; the others follow, named after it.
_LAYOUTS: dict[str, Callable[[Sweep, str], Table | None]] = {
    "expertise_gap": gap_table,
    "alpha_beta": alpha_beta_table,
    "results": accuracy_table,
    "efficiency": efficiency_table,
    "kl_profile": kl_profile_table,
}


@dataclass(frozen=True)
class Report:
    """The report's files by name, and what a terminal shows of it."""

    files: dict[str, bytes]
    shown: str


def build(folder: Path) -> Report:
    """Reads all runs below `folder` and makes everything of them.

    Raises:
        UserError: the folder or its runs cannot be reported.
    """
    found = find_runs(folder)
    taken: set[str] = set()
    sections = [_section(sweep, taken) for sweep in sweeps(found)]
    files: dict[str, bytes] = {}
    for section in sections:
        for table in section.tables:
            files[f"{table.name}.csv"] = csv_text(table).encode()
            files[f"{table.name}.tex"] = latex_table(table).encode()
        for figure in section.figures:
            files |= {f"{figure.name}.{kind}": made for kind, made in figure.files.items()}
    title = folder.resolve().name
    files["report.md"] = document(title, found, sections).encode()
    return Report(files, _shown(found, sections))


def write(report: Report, out: Path) -> None:
    """Writes the files into `out`, made if it is not there.

    Raises:
        UserError: `out` cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in report.files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--out {out} cannot be written to ({reason}).") from error


def _section(sweep: Sweep, taken: set[str]) -> Section:
    prefix = _prefix(sweep.name, taken)
    kind = sweep.table if sweep.table in _LAYOUTS else "results"
    order = [kind, *(name for name in _LAYOUTS if name != kind)]
    # Accuracies stand in one table; a grid is of a sweep over alpha and beta alone.
    unwanted = {"results" if kind == "expertise_gap" else "expertise_gap"}
    if kind != "alpha_beta":
        unwanted.add("alpha_beta")
    tables = []
    for layout in order:
        if layout in unwanted:
            continue
        name = prefix if layout == kind else f"{prefix}_{layout}"
        table = _LAYOUTS[layout](sweep, name)
        if table is not None:
            tables.append(table)
    pairs = compare(sweep)
    significance = significance_table(pairs, f"{prefix}_significance")
    if significance is not None:
        # What is claimed is read beside what supports it.
        tables.insert(min(1, len(tables)), significance)
    figures = draw_all(sweep, lambda figure: f"{prefix}_{figure}")
    return Section(sweep, tables, figures, pairs.refused)


def _prefix(name: str | None, taken: set[str]) -> str:
    """The sweep's name as a file name that no other sweep of the report has."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name or "results").strip("_-")[:80] or "results"
    prefix, number = plain, 1
    while prefix in taken:
        number += 1
        prefix = f"{plain}_{number}"
    taken.add(prefix)
    return prefix


def _partial(section: Section) -> list[Row]:
    """Rows of which some seeds are not what the others are."""
    return [row for row in section.sweep.rows if row.runs and row.remarks]


def _shown(found: Found, sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        for table in section.tables[:1]:
            title = f"{one_line(section.sweep.name or 'results')}: {table.title}"
            parts += [title, "", plain_table(table), *map(one_line, table.notes[:1]), ""]
        notes = [*dict.fromkeys(section.sweep.notes)]
        # A table that is too wide has lost its remarks.
        notes += [f"{row.label}: {remark(row.remarks)}" for row in _partial(section)]
        parts += [*map(one_line, notes), *([""] if notes else [])]
    parts += [
        f"failed: {one_line(failed.name)}: {one_line(failed.error)}" for failed in found.failed
    ]
    told = f"runs: {len(found.runs)} finished, {len(found.failed)} failed"
    if found.unfinished:
        told += f", {len(found.unfinished)} unfinished"
    return "\n".join([*parts, told])

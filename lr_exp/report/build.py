"""From a folder of runs to the files of its report. Nothing is written before all is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.report.document import document
from lr_exp.report.figures import draw_all
from lr_exp.report.layout import prefix_of, tables_of
from lr_exp.report.page import page_of
from lr_exp.report.rows import Row, Sweep, sweeps
from lr_exp.report.runs import Found, find_runs
from lr_exp.report.section import Section
from lr_exp.report.tables.table import remark
from lr_exp.report.write import csv_text, latex_table, one_line, plain_table
from lr_exp.store.run_folder import PAGE


@dataclass(frozen=True)
class Report:
    """The report's files by name, and what a terminal shows of it."""

    files: dict[str, bytes]
    shown: str


def build(folder: Path, out: Path | None = None) -> Report:
    """Reads all runs below `folder` and makes everything of them, finished or not.

    Args:
        folder: a run's, or a sweep's.
        out: where the report will lie; by default in the folder's `report`.

    Raises:
        UserError: the folder or its runs cannot be reported.
    """
    found = find_runs(folder, finished=False)
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
    page = page_of(folder, found, sections, out or folder / "report")
    files[PAGE] = page.encode()
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
    prefix = prefix_of(sweep.name, taken)
    made = tables_of(sweep, prefix)
    figures = draw_all(sweep, lambda figure: f"{prefix}_{figure}")
    return Section(sweep, made.tables, figures, made.pairs.refused)


def _partial(section: Section) -> list[Row]:
    """Rows of which some seeds are not what the others are."""
    return [row for row in section.sweep.rows if row.runs and row.remarks]


def _shown(found: Found, sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        for table in section.tables[:1]:
            title = f"{one_line(section.sweep.name or 'results')}: {table.title}"
            parts += [title, "", plain_table(table), *map(one_line, table.notes[:1]), ""]
        notes = [*section.sweep.warnings, *dict.fromkeys(section.sweep.notes)]
        # A table that is too wide has lost its remarks.
        notes += [f"{row.label}: {remark(row.remarks)}" for row in _partial(section)]
        parts += [*map(one_line, notes), *([""] if notes else [])]
    parts += [
        f"{'damaged' if one.is_damaged else 'failed'}: {one_line(one.name)}: {one_line(one.error)}"
        for one in found.failed
    ]
    told = f"runs: {found.told}"
    if found.unfinished:
        told += f", {len(found.unfinished)} unfinished"
    return "\n".join([*parts, told])

"""Builds all files of a report in memory, then writes them."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, printable, redact
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.figures import Figure, draw_sweep
from lr_exp.report.page import folder_page
from lr_exp.report.page.comparison import compare_folders
from lr_exp.report.page.sweep_page import SweepSection
from lr_exp.report.read.runs import Found, ReadBundle, find_runs
from lr_exp.report.tables import cell
from lr_exp.report.tables.formats import csv_text, latex_table, one_line, plain_table
from lr_exp.report.tables.layout import tables_of, unique_prefix
from lr_exp.report.tables.table import Table
from lr_exp.store.run_folder import PAGE


@dataclass(frozen=True)
class Report:
    """The report's files by name, and its text for the terminal."""

    files: dict[str, bytes]
    shown: str


def build(
    folder: Path,
    out: Path | None = None,
    where: Mapping[str, Any] | None = None,
    read_bundle: ReadBundle | None = None,
) -> Report:
    """Builds the report of all runs below `folder`, finished or not.

    Its links depend on `out`, the folder where it will be written, by default `folder/report`.

    Args:
        where: values of settings that finished runs must have; others are left out.
        read_bundle: see `find_runs`.

    Raises UserError if the folder or its runs cannot be reported.
    """
    found = find_runs(folder, where, finished=False, read_bundle=read_bundle)
    sections: list[SweepSection] = []
    files: dict[str, bytes] = {}
    prefixes: set[str] = set()
    for sweep in sweeps(found):
        prefix = unique_prefix((sweep.name or "results") + sweep.mark, prefixes)
        tables, pairs = tables_of(sweep, prefix)
        figures = [replace(one, name=f"{prefix}_{one.name}") for one in draw_sweep(sweep)]
        sections.append(SweepSection(sweep, tables, figures, pairs.refused))
        files |= _files(tables, figures)
    files[PAGE] = folder_page(folder, found, sections, out or folder / "report").encode()
    return Report(files, _shown(found, sections))


def build_comparison(folders: Sequence[Path], where: Mapping[str, Any] | None = None) -> Report:
    """Builds the comparison of single runs with the first, one for each folder."""
    results, settings, text = compare_folders(folders, where)
    files = {PAGE: text.encode(), **_files([results, settings])}
    notes = map(_wrapped, results.notes)
    shown = [plain_table(results), *notes, settings.title, plain_table(settings)]
    return Report(files, "\n\n".join(shown))


def write(report: Report, out: Path) -> None:
    """Writes the files into `out`, creating it if needed. Raises UserError if it cannot."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in report.files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--out {out} cannot be written to ({reason}).") from error


def write_and_print(
    table: Table, figure: Figure | None, out: Path, shown: Table | None = None, **texts: str
) -> None:
    """Writes a table, its figure, if any, and other files of the table's name by their endings.

    Args:
        shown: printed in place of the table.
    """
    texts = {**texts, "csv": csv_text(table)}
    files = {f"{table.name}.{ending}": text.encode() for ending, text in texts.items()}
    files |= _files([], [figure] if figure else [])
    notes = map(_wrapped, table.notes)
    lines = [table.title, "", plain_table(shown or table), *notes, ""]
    report = Report(files, "\n".join([*lines, f"All numbers: {', '.join(files)} in {out}"]))
    write(report, out)
    print(printable(redact(report.shown)))


def _files(tables: Sequence[Table], figures: Sequence[Figure] = ()) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for table in tables:
        files[f"{table.name}.csv"] = csv_text(table).encode()
        files[f"{table.name}.tex"] = latex_table(table).encode()
    for figure in figures:
        files[f"{figure.name}.png"], files[f"{figure.name}.svg"] = figure.png, figure.svg
    return files


def _wrapped(note: str) -> str:
    return textwrap.fill(one_line(note), 80)


def _shown(found: Found, sections: Sequence[SweepSection]) -> str:
    """The main table of each sweep, its notes and runs without results."""
    lines = []
    for section in sections:
        sweep = section.sweep
        name = one_line((sweep.name or "results") + sweep.mark)
        for table in section.tables[:1]:
            title = f"{name}: {table.title}"
            lines += [title, "", plain_table(table), *map(_wrapped, table.notes[:1]), ""]
        notes = sweep.all_notes
        notes += [  # plain_table shows no remarks
            f"{row.label}: {cell.remark(row.remarks)}"
            for row in sweep.rows
            if row.runs and row.remarks
        ]
        lines += [*map(_wrapped, notes), *([""] if notes else [])]
    lines += [f"{run.outcome}: {one_line(run.name)}: {one_line(run.error)}" for run in found.failed]
    unfinished = f", {len(found.unfinished)} unfinished" if found.unfinished else ""
    lines += map(_wrapped, found.notes)
    return "\n".join([*lines, f"runs: {found.counts}{unfinished}"])

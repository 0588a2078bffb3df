"""The page of a sweep: tables, figures and a list of runs with links to their pages."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.document import Section as SweepSection
from lr_exp.report.document import reading_notes
from lr_exp.report.names import NO_SWEEP, method_label
from lr_exp.report.page.render import figures_that_fit, page, render, section
from lr_exp.report.read.incomplete import Unfinished
from lr_exp.report.read.runs import Found, Run
from lr_exp.store.run_folder import PAGE

_MAX_IMAGE_BYTES = 1_800_000  # of all figures


@dataclass(frozen=True)
class _ListedRun:
    """A row of the list of runs."""

    name: str
    short_name: str
    state: str
    summary: str
    link: str | None = None


def sweep_page(title: str, found: Found, sweeps: Sequence[SweepSection], out: Path) -> str:
    """The whole page.

    Args:
        title: the folder's name.
        found: the runs below the folder.
        sweeps: tables and figures of each sweep.
        out: the page's folder; links are relative to it.
    """
    counts = f"{found.counts} and {len(found.unfinished):,} unfinished runs."
    head = render("sweep_head.html", counts=counts, notes=found.notes)
    every_figure = [figure for sweep in sweeps for figure in sweep.figures]
    shown, omitted = figures_that_fit(every_figure, _MAX_IMAGE_BYTES)
    sections = []
    for index, sweep in enumerate(sweeps):
        own = sweep.sweep
        sections.append(
            section(
                f"sweep-{index}",
                own.name or NO_SWEEP,
                "tables_and_figures.html",
                first_tables=sweep.tables[:2],
                figures=[figure for figure in sweep.figures if figure.name in shown],
                tables=sweep.tables[2:],
                remarks=[*own.warnings, *dict.fromkeys(own.notes), *sweep.refused],
            )
        )
    sections.append(section("runs", "Runs", "runs.html", runs=_listed_runs(found, out)))
    notes = [*reading_notes(found, sweeps), *omitted]
    return page(f"Report: {title}", "Sweep report", head, sections, notes)


def _listed_runs(found: Found, out: Path) -> list[_ListedRun]:
    """All runs: finished ones with a link to their page, failed ones with the reason."""
    rows = [(run.name, "finished", _choices(run), _link(run, out)) for run in found.runs]
    rows += [(run.name, run.outcome, run.error, None) for run in found.failed]
    rows += [(run.name, "unfinished", _left(run), None) for run in found.unfinished]
    short = short_names([name for name, *_ in rows])
    return [_ListedRun(row[0], name, *row[1:]) for row, name in zip(rows, short, strict=True)]


def _left(run: Unfinished) -> str:
    summary = f"neither a summary nor an error: {run.has}; run the same command again to resume"
    return f"{summary} ({' '.join(run.overrides)})" if run.overrides else summary


def _choices(run: Run) -> str:
    words = [method_label(run.method) if run.method else None, run.expert, run.amateur]
    choices = ", ".join([*filter(None, words), f"seed {run.seed}"])
    return f"{choices}; stopped: {run.stopped}" if run.stopped else choices


def _link(run: Run, out: Path) -> str | None:
    """A URL relative to `out`; the `./` keeps a folder's name from being read as a scheme."""
    path = run.folder / PAGE
    if not path.is_file():
        return None
    relative = os.path.relpath(path.resolve(), out.resolve())
    return "./" + quote(relative.replace(os.sep, "/"))


def short_names(names: Sequence[str]) -> list[str]:
    """Each name without the parts common to all; the full names where these would not be unique.

    Names look like `method=neither,seed=0`, with or without parent folders.
    """
    split = [[folder.split(",") for folder in name.split("/")] for name in names]
    common = set.intersection(*({part for own in name for part in own} for name in split))
    short = []
    for name in split:
        folders = [",".join(part for part in own if part not in common) for own in name]
        short.append("/".join(filter(None, folders)))
    is_clear = len(names) > 1 and all(short) and len(set(short)) == len(set(names))
    return short if is_clear else list(names)

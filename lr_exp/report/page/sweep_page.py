"""The page of a sweep: tables, figures and a list of runs with links to their pages."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.document import reading_notes
from lr_exp.report.incomplete import Unfinished
from lr_exp.report.names import NO_SWEEP, method_label
from lr_exp.report.page.render import Section, figures_that_fit, page, render
from lr_exp.report.runs import Found, Run
from lr_exp.report.section import Section as SweepSection
from lr_exp.store.run_folder import PAGE

_MAX_IMAGE_BYTES = 1_800_000  # of all figures
_DIGEST = re.compile(r"-[0-9a-f]{12}$")
_TRUNCATED_LENGTH = 100  # a folder's name of at least this length that has a digest was truncated


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
        content = render(
            "tables_and_figures.html",
            first_tables=sweep.tables[:2],
            figures=[figure for figure in sweep.figures if figure.name in shown],
            tables=sweep.tables[2:],
            remarks=[*own.warnings, *dict.fromkeys(own.notes), *sweep.refused],
        )
        sections.append(Section(f"sweep-{index}", own.name or NO_SWEEP, content))
    sections.append(Section("runs", "Runs", render("runs.html", runs=_listed_runs(found, out))))
    notes = [*reading_notes(found, sweeps), *omitted]
    return page(f"Report: {title}", "Sweep report", head, sections, notes)


def _listed_runs(found: Found, out: Path) -> list[_ListedRun]:
    """All runs: finished ones with a link to their page, failed ones with the reason."""
    rows = [(run.name, "finished", _choices(run), _link(run, out)) for run in found.runs]
    rows += [
        (run.name, "damaged" if run.is_damaged else "failed", run.error, None)
        for run in found.failed
    ]
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

    Names look like `method=neither,seed=0`, with or without parent folders. A name that was
    truncated, or in which special characters were replaced, ends with a digest.
    """
    split = [[_parts(folder) for folder in name.split("/")] for name in names]
    everywhere = {
        part
        for part in {part for name in split for folder in name for part in folder}
        if all(_may_have(part, own, name) for own, name in zip(split, names, strict=True))
    }
    short = []
    for name in split:
        folders = [",".join(part for part in own if part not in everywhere) for own in name]
        short.append("/".join(filter(None, folders)))
    if len(names) < 2 or not all(short) or len(set(short)) < len(set(names)):
        return list(names)
    return short


def _may_have(part: str, split: list[list[str]], name: str) -> bool:
    """Whether a name has a part, or may have lost it to truncation."""
    own = [part for folder in split for part in folder]
    key = part.split("=")[0]
    has_key = any(other.split("=")[0] == key for other in own)
    return part in own or (_DIGEST.search(name) is not None and not has_key)


def _parts(folder: str) -> list[str]:
    """`a=1,b=2` split at its commas, without the digest and a truncated last part."""
    name = _DIGEST.sub("", folder)
    parts = name.split(",")
    truncated = name != folder and len(name) >= _TRUNCATED_LENGTH
    return parts[:-1] if truncated and parts[1:] else parts

"""The page of a sweep: tables, figures and a list of runs with links to their pages."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.document import Section, reading_notes
from lr_exp.report.names import NO_SWEEP, method_label
from lr_exp.report.page import shell
from lr_exp.report.page.cell_names import short_names
from lr_exp.report.page.figures import PageFigures, omitted_note
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table, scrolling
from lr_exp.report.read.incomplete import Unfinished
from lr_exp.report.read.runs import Found, Run
from lr_exp.store.run_folder import PAGE

_MAX_FIGURE_BYTES = 1_600_000
_MAX_RUNS = 500
_MAX_SUMMARY_CHARS = 400


def sweep_page(title: str, found: Found, sections: Sequence[Section], out: Path) -> str:
    """The whole page.

    Args:
        title: the folder's name.
        found: the runs below the folder.
        sections: tables and figures of each sweep.
        out: the page's folder; links are relative to it.
    """
    drawings = PageFigures(_MAX_FIGURE_BYTES)
    parts = [_part(number, section, drawings) for number, section in enumerate(sections)]
    parts.append(_runs(found, out))
    head = [tag("p", _counts(found), class_="lede"), _warning(found)]
    foot = [
        omitted_note(drawings),
        tag("ul", [tag("li", line) for line in reading_notes(found, sections)]),
    ]
    return shell.page(f"Report: {title}", "Sweep report", head, parts, foot, drawings.style())


def _counts(found: Found) -> str:
    return f"{found.counts} and {len(found.unfinished):,} unfinished runs."


def _warning(found: Found) -> Html:
    lines = [tag("p", note) for note in found.notes]
    return tag("div", lines, class_="status", role="note") if lines else join()


def _part(number: int, section: Section, drawings: PageFigures) -> Part:
    sweep = section.sweep
    remarks = [*sweep.warnings, *dict.fromkeys(sweep.notes), *section.refused]
    content = join(
        [html_table(table) for table in section.tables[:2]],
        drawings.html(section.figures),
        [html_table(table) for table in section.tables[2:]],
        [tag("p", remark, class_="note") for remark in remarks],
    )
    return Part(f"sweep-{number}", sweep.name or NO_SWEEP, content)


def _runs(found: Found, out: Path) -> Part:
    """All runs: finished ones with a link to their page, failed ones with the reason."""
    names = [run.name for runs in (found.runs, found.failed, found.unfinished) for run in runs]
    short = dict(zip(names, short_names(names), strict=True))
    rows = [_finished(run, short[run.name], out) for run in found.runs]
    rows += [
        _row(run.name, short[run.name], "damaged" if run.is_damaged else "failed", run.error)
        for run in found.failed
    ]
    rows += [
        _row(run.name, short[run.name], "unfinished", _unfinished(run)) for run in found.unfinished
    ]
    shown, left = rows[:_MAX_RUNS], max(0, len(rows) - _MAX_RUNS)
    head = [tag("th", word, scope="col", class_="words") for word in ("state", "run", "summary")]
    table = tag(
        "table",
        tag("caption", "Runs", class_="unseen"),
        tag("thead", tag("tr", head)),
        tag("tbody", shown),
        class_="plain cells",
    )
    more = tag("p", f"{left:,} more runs are not listed.", class_="note") if left else None
    return Part("runs", "Runs", join(scrolling(table, "Runs"), more))


def _finished(run: Run, short: str, out: Path) -> Html:
    words = [method_label(run.method) if run.method else None, run.expert, run.amateur]
    choices = ", ".join(word for word in words if word)
    summary = f"{choices}, seed {run.seed}" + (f"; stopped: {run.stopped}" if run.stopped else "")
    path = run.folder / PAGE
    link = _relative_url(path, out) if path.is_file() else None
    return _row(run.name, short, "finished", summary, link)


def _unfinished(run: Unfinished) -> str:
    summary = f"neither a summary nor an error: {run.has}; run the same command again to resume"
    return f"{summary} ({' '.join(run.overrides)})" if run.overrides else summary


def _row(name: str, short: str, state: str, summary: str, link: str | None = None) -> Html:
    """A run under its short name; its full name is in the tooltip and, if longer, in a toggle."""
    shown: Child = tag("bdi", short)
    full = tag("details", tag("summary", "full name"), tag("bdi", name)) if short != name else None
    cut = summary if len(summary) <= _MAX_SUMMARY_CHARS else f"{summary[: _MAX_SUMMARY_CHARS - 1]}…"
    return tag(
        "tr",
        tag("td", state, class_=state),
        tag("th", tag("a", shown, href=link) if link else shown, full, scope="row", title=name),
        tag("td", tag("bdi", cut)),
    )


def _relative_url(path: Path, out: Path) -> str:
    """A URL relative to `out`; the `./` keeps a folder's name from being read as a scheme."""
    relative = os.path.relpath(path.resolve(), out.resolve())
    return "./" + quote(relative.replace(os.sep, "/"))

"""The page of many runs: their tables and figures, and the way to each run's own page.

Knows a folder's runs and what was made of them; computes no number.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.document import reading_notes
from lr_exp.report.incomplete import Unfinished
from lr_exp.report.names import NO_SWEEP, method_label
from lr_exp.report.page import shell
from lr_exp.report.page.cell_names import short_names
from lr_exp.report.page.figures import Drawings, notes
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table, scrolling
from lr_exp.report.runs import Found, Run
from lr_exp.report.section import Section
from lr_exp.store.run_folder import PAGE

_DRAWINGS = 1_600_000  # bytes
_MOST_CELLS = 500
_LONGEST = 400  # characters of a reason


def sweep_page(title: str, found: Found, sections: Sequence[Section], out: Path) -> str:
    """The page.

    Args:
        title: the folder's name.
        found: what lies below the folder.
        sections: what was made of each sweep.
        out: where the page will lie, to which links are relative.
    """
    drawings = Drawings(_DRAWINGS)
    parts = [_part(number, section, drawings) for number, section in enumerate(sections)]
    parts.append(_cells(found, out))
    head = [tag("p", _counts(found), class_="lede"), _warning(found)]
    foot = [
        notes(drawings),
        tag("ul", [tag("li", line) for line in reading_notes(found, sections)]),
    ]
    return shell.page(f"Report: {title}", "Sweep report", head, parts, foot, drawings.style())


def _counts(found: Found) -> str:
    return f"{found.told} and {len(found.unfinished):,} unfinished runs."


def _warning(found: Found) -> Html:
    told = [tag("p", note) for note in found.notes]
    return tag("div", told, class_="status", role="note") if told else join()


def _part(number: int, section: Section, drawings: Drawings) -> Part:
    sweep = section.sweep
    remarks = [*sweep.warnings, *dict.fromkeys(sweep.notes), *section.refused]
    content = join(
        [html_table(table) for table in section.tables[:2]],
        drawings.html(section.figures),
        [html_table(table) for table in section.tables[2:]],
        [tag("p", remark, class_="note") for remark in remarks],
    )
    return Part(f"sweep-{number}", sweep.name or NO_SWEEP, content)


def _cells(found: Found, out: Path) -> Part:
    """Every run with the way to its own page; failed ones with the reason."""
    names = [one.name for some in (found.runs, found.failed, found.unfinished) for one in some]
    short = dict(zip(names, short_names(names), strict=True))
    rows = [_finished(run, short[run.name], out) for run in found.runs]
    rows += [
        _row(one.name, short[one.name], "damaged" if one.is_damaged else "failed", one.error)
        for one in found.failed
    ]
    rows += [_row(one.name, short[one.name], "unfinished", _begun(one)) for one in found.unfinished]
    shown, left = rows[:_MOST_CELLS], max(0, len(rows) - _MOST_CELLS)
    head = [tag("th", word, scope="col", class_="words") for word in ("state", "run", "what")]
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
    told = ", ".join(word for word in words if word)
    what = f"{told}, seed {run.seed}" + (f"; stopped: {run.stopped}" if run.stopped else "")
    place = run.folder / PAGE
    link = _relative(place, out) if place.is_file() else None
    return _row(run.name, short, "finished", what, link)


def _begun(one: Unfinished) -> str:
    told = f"neither a summary nor an error: {one.has}; the same command goes on"
    return f"{told} ({' '.join(one.overrides)})" if one.overrides else told


def _row(name: str, short: str, state: str, what: str, link: str | None = None) -> Html:
    """A run under its short name; the whole one is there for those who point, touch or type."""
    shown: Child = tag("bdi", short)
    whole = (
        tag("details", tag("summary", "whole name"), tag("bdi", name)) if short != name else None
    )
    return tag(
        "tr",
        tag("td", state, class_=state),
        tag("th", tag("a", shown, href=link) if link else shown, whole, scope="row", title=name),
        tag("td", tag("bdi", what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…")),
    )


def _relative(place: Path, out: Path) -> str:
    """A relative address; a folder's name is never taken for a scheme."""
    path = os.path.relpath(place.resolve(), out.resolve())
    return "./" + quote(path.replace(os.sep, "/"))

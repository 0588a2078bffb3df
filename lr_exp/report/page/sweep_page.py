"""The page of many runs: their tables and figures, and the way to each run's own page.

Knows a folder's runs and what was made of them; computes no number.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.document import reading_notes
from lr_exp.report.incomplete import Unfinished
from lr_exp.report.names import method_label
from lr_exp.report.page import shell
from lr_exp.report.page.figures import Drawings, notes
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table, scrolling
from lr_exp.report.runs import Found, Run
from lr_exp.report.section import Section
from lr_exp.run_folder import PAGE

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
    told = f"{len(found.runs):,} finished, {len(found.failed):,} failed"
    return f"{told} and {len(found.unfinished):,} unfinished runs."


def _warning(found: Found) -> Html:
    told = [tag("p", note) for note in found.notes]
    return tag("div", told, class_="status", role="note") if told else join()


def _part(number: int, section: Section, drawings: Drawings) -> Part:
    sweep = section.sweep
    remarks = [*dict.fromkeys(sweep.notes), *section.refused]
    content = join(
        [html_table(table) for table in section.tables[:2]],
        drawings.html(section.figures),
        [html_table(table) for table in section.tables[2:]],
        [tag("p", remark, class_="note") for remark in remarks],
    )
    return Part(f"sweep-{number}", sweep.name or "Runs of no sweep", content)


def _cells(found: Found, out: Path) -> Part:
    """Every run with the way to its own page; failed ones with the reason."""
    rows = [_finished(run, out) for run in found.runs]
    rows += [_row(one.name, "failed", one.error) for one in found.failed]
    rows += [_row(one.name, "unfinished", _begun(one)) for one in found.unfinished]
    shown, left = rows[:_MOST_CELLS], max(0, len(rows) - _MOST_CELLS)
    head = [tag("th", word, scope="col", class_="words") for word in ("run", "state", "what")]
    table = tag(
        "table",
        tag("caption", "Runs", class_="unseen"),
        tag("thead", tag("tr", head)),
        tag("tbody", shown),
        class_="plain",
    )
    more = tag("p", f"{left:,} more runs are not listed.", class_="note") if left else None
    return Part("runs", "Runs", join(scrolling(table, "Runs"), more))


def _finished(run: Run, out: Path) -> Html:
    words = [method_label(run.method) if run.method else None, run.expert, run.amateur]
    told = ", ".join(word for word in words if word)
    what = f"{told}, seed {run.seed}" + (f"; nothing trained: {run.stopped}" if run.stopped else "")
    place = run.folder / PAGE
    link = _relative(place, out) if place.is_file() else None
    return _row(run.name, "finished", what, link)


def _begun(one: Unfinished) -> str:
    told = f"neither a summary nor an error: {one.has}; the same command goes on"
    return f"{told} ({' '.join(one.overrides)})" if one.overrides else told


def _row(name: str, state: str, what: str, link: str | None = None) -> Html:
    shown: Child = tag("bdi", name)
    return tag(
        "tr",
        tag("th", tag("a", shown, href=link) if link else shown, scope="row"),
        tag("td", state, class_=state),
        tag("td", tag("bdi", what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…")),
    )


def _relative(place: Path, out: Path) -> str:
    """A relative address; a folder's name is never taken for a scheme."""
    path = os.path.relpath(place.resolve(), out.resolve())
    return "./" + quote(path.replace(os.sep, "/"))

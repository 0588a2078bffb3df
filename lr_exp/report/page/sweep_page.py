"""The page of a sweep: tables, figures and a list of runs with links to their pages."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures import Figure
from lr_exp.report.names import method_label
from lr_exp.report.page.reading_notes import reading_notes
from lr_exp.report.page.render import page, render, section
from lr_exp.report.page.run_page import choices_of
from lr_exp.report.read.run import Incomplete, Run
from lr_exp.report.read.runs import Found
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Table
from lr_exp.store.run_folder import PAGE


@dataclass(frozen=True)
class SweepSection:
    """A sweep with its tables and figures."""

    sweep: Sweep
    tables: list[Table]  # the sweep's own first
    figures: list[Figure]
    refused: list[str]  # why rows were not compared


def sweep_page(title: str, found: Found, sweeps: Sequence[SweepSection], out: Path) -> str:
    """The whole page, whose links are relative to its folder `out`."""
    counts = f"{found.counts} and {len(found.unfinished):,} unfinished runs."
    status = [("Bundle:", note) for note in found.notes]
    head = render("head.html", status=status, facts={"runs": counts})
    sections = [
        section(
            f"sweep-{index}",
            one.sweep.title,
            head=render("head.html", status=[], facts=_facts(one.sweep)),
            first_tables=one.tables[:2],
            figures=one.figures,
            tables=one.tables[2:],
            files_linked=True,
            remarks=[*one.sweep.all_notes, *one.refused],
        )
        for index, one in enumerate(sweeps)
    ]
    rows = [{"run": run, "summary": _summary(run), "link": _link(run, out)} for run in found.every]
    sections.append(section("runs", "Runs", "runs.html", rows=rows))
    notes = reading_notes(found, [table for one in sweeps for table in one.tables])
    return page(f"Report: {title}", "Sweep report", head, sections, notes)


def _facts(sweep: Sweep) -> dict[str, str]:
    """The best rows, and what runs used, each value once: models with the start of digests."""
    facts: dict[str, dict[str, None]] = {}
    for row in sweep.best:
        gain = f", gain {cell.with_interval(row.gain)} points" if row.gain else ""
        text = f"{row.full_label}: {cell.percent(row.average)} %{gain}"
        facts.setdefault("highest average on these questions (bold)", {})[text] = None
    for run in sweep.runs:
        models = {"expert": run.provenance.expert, "amateur": run.provenance.amateur}
        digests = {
            role: f"{getattr(run, role)} ({model.fingerprint[:12]})"
            for role, model in models.items()
            if model and model.fingerprint and getattr(run, role)
        }
        steps = {"optimizer steps": str(run.distill.optimizer_steps or "")}
        for key, value in (choices_of(run) | digests | steps).items():
            facts.setdefault(key, {}).update({value: None} if value else {})
    facts.pop("sweep", None)  # the title
    return {key: ", ".join(values) for key, values in facts.items()}


def _summary(run: Run) -> str:
    """What a finished run is, why another one failed, or what it left."""
    if isinstance(run, Incomplete):
        if run.outcome != "unfinished":
            return run.error
        files = ", ".join(run.existing_files) or "no results"
        left = f"neither a summary nor an error: has {files}; run the same command again to resume"
        return f"{left} ({' '.join(run.overrides)})" if run.overrides else left
    words = [method_label(run.method) if run.method else None, run.expert, run.amateur]
    choices = ", ".join([*filter(None, words), f"seed {run.seed}"])
    return f"{choices}; stopped: {run.stopped}" if run.stopped else choices


def _link(run: Run, out: Path) -> str | None:
    """A URL relative to `out`; the `./` keeps a folder's name from being read as a scheme."""
    path = run.folder / PAGE
    if run.outcome != "finished" or not path.is_file():
        return None
    relative = os.path.relpath(path.resolve(), out.resolve())
    return "./" + quote(relative.replace(os.sep, "/"))

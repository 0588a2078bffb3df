"""The page of one run: finished, failed or unfinished.

A missing or damaged file affects only its own section, which says so in one line.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError
from lr_exp.progress import duration
from lr_exp.report import names
from lr_exp.report.analyse.answer_pairs import read_pairs
from lr_exp.report.analyse.comparable import grouped, machine
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.figures import draw_run
from lr_exp.report.page.accuracy_change import Change, accuracy_change_table, accuracy_changes
from lr_exp.report.page.audit_figure import audit_figure
from lr_exp.report.page.audit_table import audit_table
from lr_exp.report.page.reading_notes import reading_notes
from lr_exp.report.page.render import Section, page, render, section
from lr_exp.report.page.trajectories import read_trajectories
from lr_exp.report.read.json_file import read_json_lines, reason_of
from lr_exp.report.read.run import Incomplete, Run, flat, read_unfinished
from lr_exp.report.read.runs import Found
from lr_exp.report.tables import cell
from lr_exp.report.tables.layout import tables_of
from lr_exp.report.tables.table import Column, Table
from lr_exp.report.texts import report_text
from lr_exp.store.run_folder import AUDIT, TRAJECTORIES

_MAX_WARNINGS, _MAX_WARNING_CHARS = 20, 2_000
_HEADINGS = {
    "failed": "This run failed:",
    "damaged": "This run's record is damaged:",
    "unfinished": "This run has not finished.",
}


def run_page(folder: Path, found: Found) -> str:
    """The page of the run in `folder`; `found` is what this folder itself contains."""
    run = next(iter(found.every), None) or read_unfinished(folder, folder.resolve().name)
    figures = grouped(draw_run(run), lambda figure: figure.name)
    tables: list[Table] = []
    changes: dict[str, Change] = {}
    results = settings = None
    notes = [report_text("micro")] if names.is_micro(run.expert, run.amateur) else []
    if found.runs:
        (sweep,) = sweeps(found)
        tables, pairs = tables_of(sweep, "results")
        notes = reading_notes(found, tables)
        changes = accuracy_changes(sweep, pairs)
        table = accuracy_change_table(changes)
        nothing = [] if table else ["Nothing was evaluated."]
        results = section(
            "results",
            "Results",
            first_tables=[table] if table else [],
            figures=figures.get("gain_parts", []),
            tables=[one for one in tables if one.section == "results"],
            remarks=[*nothing, *pairs.refused, *dict.fromkeys(sweep.notes)],
        )
        settings = _settings(run)
    in_sections = grouped(tables, lambda table: table.section)
    sections = [
        results,
        section("explanations", "Explanations", tables=in_sections.get("explanations", [])),
        _reader(run),
        section(
            "divergence",
            "Where the models diverge",
            figures=figures.get("lorenz_curve", []),
            tables=in_sections.get("divergence", []),
        ),
        section(
            "training",
            "Training",
            damage=run.metrics()[1],
            figures=figures.get("training_curves", []),
        ),
        _audit(run),
        _answers(run),
        section("cost", "Cost", tables=[*map(_transposed, in_sections.get("cost", []))]),
        settings,
    ]
    label = f"{_method_label(run)}: expert {run.expert or 'unknown'}"
    return page(
        f"{label}, amateur {run.amateur}" if run.amateur else label,
        "Run report",
        render("head.html", status=_status(run), facts=_numbers(run, changes) | choices_of(run)),
        sections,
        notes,
    )


def _method_label(run: Run) -> str:
    """The method, or the source of the supervision, or `Evaluation only`."""
    if run.method:
        return names.method_label(run.method)
    trained = run.summary.sample or run.summary.distill
    return f"supervision from {run.data}" if trained else "Evaluation only"


def _status(run: Run) -> list[tuple[str, str]]:
    """How the run ended and its warnings: pairs of a heading and a text."""
    lines = []
    if isinstance(run, Incomplete):
        why = report_text("unfinished") if run.outcome == "unfinished" else run.error
        lines.append((_HEADINGS[run.outcome], why))
        if run.overrides:
            lines.append(("Command-line overrides:", " ".join(run.overrides)))
    if run.stopped:
        lines.append(("Stopped after sampling:", run.stopped))
    warnings = run.warnings[:_MAX_WARNINGS]
    lines += [("Warning:", warning[:_MAX_WARNING_CHARS]) for warning in warnings]
    return lines


def choices_of(run: Run) -> dict[str, str | None]:
    """The choices that produced the results; None where unknown."""
    versions = run.summary.versions or {}
    packages = [name for name in ("lr_exp", "torch", "transformers") if name in versions]
    return {
        "method": _method_label(run),
        "expert": run.expert,
        "amateur": run.amateur,
        "α": None if run.alpha is None else f"{run.alpha:g}",  # noqa: RUF001
        "β": None if run.beta is None else f"{run.beta:g} nats",
        "seed": None if run.seed is None else str(run.seed),
        "questions": run.data,
        "prompt": run.prompt,
        "decoding": None if run.decoder == "greedy" else run.decoder,
        "sweep": run.sweep,
        "machine": machine(run).get("device_name", ""),
        "dtype": run.provenance.dtype,
        "versions": ", ".join(f"{name} {versions[name]}" for name in packages),
    }


def _numbers(run: Run, changes: dict[str, Change]) -> dict[str, str]:
    """The headline numbers."""
    numbers = {}
    for name, change in [*changes.items()][-1:]:  # the average, or the only benchmark
        scope = f"average of {len(changes) - 1} benchmarks" if len(changes) > 1 else name
        if change.before is not None:
            shares = cell.change(*(one.mean for one in (change.before, change.after) if one))
            numbers["accuracy"] = f"{shares} % ({scope})"
        if change.gain is not None:
            gain, interval = cell.signed(100 * change.gain.mean), cell.between(change.gain.ci95)
            numbers["gain"] = f"{gain} points (95 % interval: {interval})"
    sample, distill = run.sample, run.distill
    if sample.steps:
        kept = sample.kept or 0
        moving = "" if sample.moving is None else f", {sample.moving:,} of them moving"
        share = f"{100 * kept / sample.steps:.1f} %"
        numbers["steps kept"] = f"{share} ({kept:,} of {sample.steps:,}{moving})"
        if sample.conflicts is not None:
            numbers["steps dropped"] = f"{sample.conflicts:,} in confident conflict"
    if distill.tuned_tokens:
        numbers["tuned tokens"] = f"{distill.tuned_tokens:,}"
        if distill.passes and distill.kept_steps:
            passes = f"{distill.passes:,.1f} passes over {distill.kept_steps:,} kept steps"
            numbers["tuned tokens"] += f" ({passes})"
    if distill.best_step is not None:
        steps = f"{distill.optimizer_steps:,} made, the adapter after {distill.best_step:,} kept"
        numbers["optimizer steps"] = steps
    if sample.seconds is not None and distill.seconds is not None:
        stored = [name for name, one in (("sampling", sample), ("tuning", distill)) if one.reused]
        note = f" ({' and '.join(stored)} from the store)" if stored else ""
        numbers["sampling and tuning"] = duration(sample.seconds + distill.seconds) + note
    return numbers


def _reader(run: Run) -> Section | None:
    shown, damage = None, ""
    try:
        shown = read_trajectories(run.folder)
    except UserError as reason:
        damage = str(reason)
    note = "" if run.summary.sample is None else f"There is no {TRAJECTORIES} in the run's folder."
    if shown is not None:
        note = "" if shown.answers else "No answer was sampled."
    elif run.is_imported:
        note = "This run used imported records and sampled no answers, so there are none to show."
    return section(
        "reader",
        "Trajectory reader",
        "reader.html",
        damage=damage,
        note="" if damage else note,
        shown=shown if shown and shown.answers else None,
    )


def _audit(run: Run) -> Section | None:
    """The audit of the run's labels, if there is one in its folder."""
    path, damage, figures, tables = run.folder / AUDIT, "", [], []
    if not path.exists():
        return None
    try:
        records = [*read_json_lines(path)]
        if {one["supervision"] for one in records} != {run.sample.supervision}:
            raise ValueError("its labels are not those of this run")
        tables, figures = [audit_table(records, "audit")], [audit_figure(records)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = f"{AUDIT} cannot be shown: {reason_of(error)}."
    title = "Audit of the labels"
    return section("audit", title, damage=damage, figures=figures, tables=tables)


def _answers(run: Run) -> Section | None:
    if not run.results("tuned"):
        return None
    pairs = read_pairs((run, "expert"), (run, "tuned"))
    damage = " ".join(pairs.missing) or "The expert and the tuned expert share no benchmark."
    count = sum(map(len, pairs.groups.values()))
    shown = (
        f"Counts cover all {pairs.questions:,} questions. This page holds {count:,} of "
        "them, evenly spaced within each outcome of each benchmark."
    )
    return section(
        "answers",
        "Answers before and after",
        "answers.html",
        damage="" if pairs.questions else damage,
        titles=["Before: untuned expert", "After: tuned expert"],
        remarks=[shown, *pairs.missing],
        groups=pairs.groups,
    )


def _transposed(table: Table) -> Table:
    """A table of one row as a column, without empty cells; any other table unchanged."""
    if len(table.rows) != 1:
        return table
    (row,) = table.rows
    named = table.columns[0].is_text
    columns = [Column("", is_text=True), Column(row[0] if named else "")]
    pairs = zip(table.columns[named:], row[named:], strict=True)
    rows = [[column.full_title, cell] for column, cell in pairs if cell]
    return replace(table, columns=columns, rows=rows)


def _settings(run: Run) -> Section | None:
    versions = run.summary.versions or {}
    provenance = {
        **flat(run.provenance.to_dict()),
        **{f"{name} version": value for name, value in versions.items()},
        "command": shlex.join(["python", "-m", "lr_exp", *run.settings.get("overrides", [])]),
        "sample.artifact": run.sample.artifact,
        "distill.artifact": run.distill.artifact,
    }
    tables = {
        "Settings": {key: _as_word(value) for key, value in flat(run.settings).items()},
        "Provenance": {key: _as_word(value) for key, value in provenance.items() if value},
    }
    return section("settings", "Settings and provenance", "settings.html", tables=tables)


def _as_word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_as_word, value))}]"
    return "null" if value is None else str(value)

"""The page of one run: finished, failed or unfinished.

A missing or damaged file affects only its own section, which says so in one line.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lr_exp.progress import duration
from lr_exp.report import names
from lr_exp.report.analyse.comparable import flat, machine
from lr_exp.report.analyse.rows import Sweep, sweeps
from lr_exp.report.document import MICRO, reading_notes
from lr_exp.report.document import Section as SweepSection
from lr_exp.report.figures import Figure, draw_run
from lr_exp.report.page.accuracy_change import accuracy_change
from lr_exp.report.page.answers import OUTCOMES, read_pairs
from lr_exp.report.page.render import Section, figures_that_fit, page, render, section
from lr_exp.report.page.trajectories import DamagedError, read_trajectories
from lr_exp.report.read.incomplete import Failed, Unfinished
from lr_exp.report.read.json_file import is_number, reason_of
from lr_exp.report.read.runs import Found, Run
from lr_exp.report.read.summary import Summary
from lr_exp.report.tables.gap import pair_gap_table
from lr_exp.report.tables.layout import Tables, tables_of
from lr_exp.report.tables.table import (
    PUBLISHED,
    Column,
    Table,
    between,
    number,
    signed,
    without_empty,
)
from lr_exp.store.run_folder import METRICS, TRAJECTORIES

_MAX_IMAGE_BYTES = 600_000  # of all figures
_MAX_WARNINGS, _MAX_WARNING_CHARS = 20, 2_000
_MAX_LOG_ENTRIES = 12
_LOGGED = {  # in metrics.jsonl
    "loss": ("loss (nats)", ".4f"),
    "entropy": ("entropy (nats)", ".4f"),
    "grad_norm": ("gradient norm", ".3f"),
    "learning_rate": ("learning rate", ".2e"),
}


@dataclass(frozen=True)
class _Tile:
    """A headline number."""

    label: str
    value: str
    unit: str = ""
    detail: str = ""
    before: str = ""  # the number that it replaced


def run_page(folder: Path, found: Found) -> str:
    """The page of the single run in `found`.

    Args:
        folder: the run's folder.
        found: the contents of this folder, without its subfolders.
    """
    if found.runs:
        (sweep,) = sweeps(found)
        state = _State(folder, found.runs[0], None, sweep, tables_of(sweep, "results"))
        notes = reading_notes(found, [SweepSection(sweep, state.all_tables, [], [])])
    else:
        state = _state_without_summary(folder, found)
        notes = [MICRO] if names.is_micro(state.run.expert, state.run.amateur) else []
    head = render(
        "run_head.html", status=_status(state), choices=_choices(state.run), tiles=_tiles(state)
    )
    figures, omitted = figures_that_fit(draw_run(state.run), _MAX_IMAGE_BYTES)
    sections = [
        _results(state, figures),
        _reader(state),
        _divergence(state, figures),
        _training(state, figures),
        _answers(state),
        _cost(state),
        _settings(state),
    ]
    models = f"expert {state.run.expert}"
    models += f", amateur {state.run.amateur}" if state.run.amateur else ""
    title = f"{_method_label(state.run)}: {models}"
    return page(title, "Run report", head, [one for one in sections if one], [*notes, *omitted])


@dataclass(frozen=True)
class _State:
    """A run's folder, and its record if it failed or is unfinished."""

    folder: Path
    run: Run  # without a summary, as much of it as other files record
    incomplete: Failed | Unfinished | None  # None for a finished run
    sweep: Sweep | None = None  # of this run alone; None unless it finished
    tables: Tables | None = None

    @property
    def is_finished(self) -> bool:
        return self.sweep is not None

    @property
    def all_tables(self) -> list[Table]:
        return self.tables.tables if self.tables else []


def _state_without_summary(folder: Path, found: Found) -> _State:
    incomplete = next(iter([*found.failed, *found.unfinished]), None)
    known: dict[str, Any] = {"method": None, "amateur": None, "alpha": None, "beta": None}
    known |= {"expert": "unknown", "seed": None, "settings": {}}
    with contextlib.suppress(DamagedError):  # the reader's section reports it
        if shown := read_trajectories(folder):
            choices = {"method", "expert", "amateur", "alpha", "beta"}
            known |= shown.model_dump(include=choices, exclude_none=True)
    keys = ("expert", "amateur", "method", "data", "alpha", "beta", "seed", "sweep")
    recorded = {key: getattr(incomplete, key, None) for key in keys}
    known |= {key: value for key, value in recorded.items() if value is not None}
    run = Run(folder, folder.resolve().name, Summary.model_construct(**known))
    return _State(folder, run, incomplete)


def _method_label(run: Run) -> str:
    """The method, or the source of the supervision, or `Evaluation only`."""
    if run.method:
        return names.method_label(run.method)
    trained = run.summary.sample or run.summary.distill
    return f"supervision from {run.data}" if trained else "Evaluation only"


def _status(state: _State) -> list[tuple[str, str]]:
    """How the run ended, its warnings and what is missing: pairs of a heading and a text."""
    run, incomplete = state.run, state.incomplete
    lines = []
    if isinstance(incomplete, Failed):
        heading = "This run's record is damaged:" if incomplete.is_damaged else "This run failed:"
        lines.append((heading, incomplete.error))
    elif not state.is_finished:
        explanation = (
            "It is still running or was interrupted: it wrote neither a summary nor an error. "
            "Run the same command again to resume it."
        )
        lines.append(("This run has not finished.", explanation))
    if incomplete is not None and incomplete.overrides:
        lines.append(("Command-line overrides:", " ".join(incomplete.overrides)))
    if run.stopped:
        says_so = "nothing was trained" in run.stopped.lower()
        lines.append(
            ("Stopped after sampling:" if says_so else "Nothing was trained:", run.stopped)
        )
    warnings = run.warnings[:_MAX_WARNINGS]
    lines += [("Warning:", warning[:_MAX_WARNING_CHARS]) for warning in warnings]
    missing = _missing(state)
    return [*lines, ("Missing:", f"{'; '.join(missing)}.")] if missing else lines


def _missing(state: _State) -> list[str]:
    """The stages whose results the page lacks, and the stages that were requested."""
    summary = state.run.summary
    if not state.is_finished:
        return ["everything that summary.json holds (accuracies, costs, settings)"]
    missing = []
    if summary.sample is None:
        missing.append("sampling (no divergences)")
    if summary.distill is None and not state.run.stopped:
        missing.append("tuning (no training curves)")
    if summary.evaluate is None:
        missing.append("evaluation (no accuracies)")
    stages = f"requested stages: {', '.join(summary.stages or ['unknown'])}"
    return [*missing, stages] if missing else []


def _choices(run: Run) -> dict[str, str | None]:
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
        "decoding": None if run.decoder == "greedy" else run.decoder,
        "sweep": run.sweep,
        "machine": names.machine_name(machine(run).get("device_name", "")),
        "dtype": run.provenance.dtype,
        "versions": ", ".join(f"{name} {versions[name]}" for name in packages),
    }


def _tiles(state: _State) -> list[_Tile]:
    tiles = _accuracy_tiles(state)
    sample, distill = state.run.sample, state.run.distill
    if sample.steps:
        kept = sample.kept or 0
        detail = f"{kept:,} of {sample.steps:,} steps"
        tiles.append(_Tile("Steps kept", f"{100 * kept / sample.steps:.1f}", " %", detail))
    if distill.tuned_tokens:
        steps = distill.optimizer_steps
        detail = f"in {steps:,} optimizer steps" if steps else ""
        tiles.append(_Tile("Tuned tokens", f"{distill.tuned_tokens:,}", "", detail))
    if sample.seconds is not None and distill.seconds is not None:
        detail = "from the store" if sample.reused and distill.reused else ""
        seconds = duration(sample.seconds + distill.seconds)
        tiles.append(_Tile("Sampling and tuning time", seconds, "", detail))
    return tiles


def _accuracy_tiles(state: _State) -> list[_Tile]:
    if state.sweep is None or state.tables is None:
        return []
    change, pairs = accuracy_change(state.sweep, state.tables.pairs), state.tables.pairs.pairs
    before, after = (row.average if row else None for row in (change.before, change.after))
    if before is None:
        return []
    count = len(change.benchmarks)
    scope = f"average of {count} benchmarks" if count > 1 else "".join(change.benchmarks)
    first = f"{100 * before.mean:.1f}"
    if after is None:
        return [_Tile("Accuracy", first, " %", scope)]
    tiles = [_Tile("Accuracy", f"{100 * after.mean:.1f}", " %", scope, before=first)]
    gain = change.gain(change.benchmarks)
    if gain is not None:
        overall = pairs[0].overall if pairs else None
        detail = f"95 % interval: {between(overall.low, overall.high)}" if overall else ""
        error = f" ± {100 * gain.stderr:.1f} points"
        tiles.append(_Tile("Gain", signed(100 * gain.mean), error, detail))
    return tiles


_Figures = dict[str, Figure]  # by name


def _named(figures: _Figures, *wanted: str) -> list[Figure]:
    return [figures[name] for name in wanted if name in figures]


def _results(state: _State, figures: _Figures) -> Section | None:
    if state.sweep is None or state.tables is None:
        return None
    table = accuracy_change(state.sweep, state.tables.pairs).table
    beside = [
        one
        for one in state.all_tables
        if one.name == "results" and any(column.title == PUBLISHED for column in one.columns)
    ]
    gap = pair_gap_table(state.sweep, "gap")
    remarks = [*state.tables.pairs.refused, *dict.fromkeys(state.sweep.notes)]
    return section(
        "results",
        "Results",
        "tables_and_figures.html",
        first_tables=[table] if table else [],
        last_is_sum=table is not None and len(table.rows) > 1,
        figures=_named(figures, "gain_by_benchmark"),
        tables=[*([gap] if gap else []), *beside],
        remarks=remarks if table else ["Nothing was evaluated.", *remarks],
    )


def _reader(state: _State) -> Section | None:
    title = "Trajectory reader"
    try:
        shown = read_trajectories(state.folder)
    except DamagedError as reason:
        return section("reader", title, "note.html", text=str(reason), is_damaged=True)
    if shown is not None and shown.answers:
        return section(
            "reader",
            title,
            "reader.html",
            about=shown.about,
            remarks=shown.remarks,
            filter_labels=shown.filter_labels,
            data=shown.data,
        )
    if shown is not None:
        note = "No answer was sampled."
    elif not state.is_finished:
        note = f"There is no {TRAJECTORIES} in the run's folder: it is written after sampling."
    elif state.run.summary.sample is None:
        return None  # the status lists sampling as missing
    elif state.run.is_imported:
        note = "This run used imported records and sampled no answers, so there are none to show."
    else:
        note = f"There is no {TRAJECTORIES} in the run's folder."
    return section("reader", title, "note.html", text=note, is_damaged=False)


def _divergence(state: _State, figures: _Figures) -> Section | None:
    profile = [table for table in state.all_tables if table.name.endswith("kl_profile")]
    shown = _named(figures, "kl_histogram", "kept_by_position")
    if not profile and not shown:
        return None
    scored = profile or state.run.sample.histogram
    title = "Where the models diverge" if scored else "Which steps were kept"
    return section("divergence", title, "tables_and_figures.html", figures=shown, tables=profile)


def _training(state: _State, figures: _Figures) -> Section | None:
    damage, table = _damaged_metrics(state.folder), _training_log(state.run)
    shown = _named(figures, "training_curves")
    if not damage and not shown and table is None:
        return None
    values = {"damage": damage, "figures": shown, "table": table}
    return section("training", "Training", "training.html", **values)


def _damaged_metrics(folder: Path) -> str | None:
    """Why the file, or its first damaged line, cannot be read; None if all of it can."""
    path = folder / METRICS
    if not path.is_file():
        return None
    line_number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line_number, line in enumerate(lines, 1):  # noqa: B007  for the message
                if not isinstance(json.loads(line), dict):
                    raise ValueError
    except (OSError, UnicodeDecodeError) as error:
        return f"{METRICS} cannot be read ({reason_of(error)})."
    except (ValueError, RecursionError):
        return f"{METRICS} is damaged at line {line_number}; only the lines before it are shown."
    return None


def _training_log(run: Run) -> Table | None:
    """Evenly spaced log entries, first and last included; None where nothing was tuned."""
    logged = run.training()
    if not logged:
        return None
    rows = []
    for index in np.linspace(0, len(logged) - 1, min(len(logged), _MAX_LOG_ENTRIES)):
        entry = logged[round(index)]
        values = [(entry.get(key), form) for key, (_, form) in _LOGGED.items()]
        cells = [number(value if is_number(value) else None, form) for value, form in values]
        rows.append([f"{entry['step']:,}", *cells])
    columns = [Column("optimizer step", is_text=True)]
    columns += [Column(title) for title, _ in _LOGGED.values()]
    notes = [] if len(rows) == len(logged) else [f"{len(rows)} of {len(logged):,} log entries."]
    return without_empty(Table("training", "Training log", columns, rows, [], notes))


def _answers(state: _State) -> Section | None:
    if not state.run.results("tuned"):
        return None
    title, pairs = "Answers before and after", read_pairs(state.run)
    if not pairs.counts:
        note = " ".join(pairs.missing) or "The expert and the tuned expert share no benchmark."
        return section("answers", title, "note.html", text=note, is_damaged=True)
    shown = (
        f"Counts cover all {pairs.questions:,} questions. This page holds {len(pairs.shown):,} of "
        "them, evenly spaced within each outcome of each benchmark."
    )
    return section(
        "answers",
        title,
        "answers.html",
        table=pairs.table,
        remarks=[shown, *pairs.missing],
        filter_labels={outcome: outcome.capitalize() for outcome in OUTCOMES},
        data=pairs.data,
    )


def _cost(state: _State) -> Section | None:
    tables = [_transposed(one) for one in state.all_tables if one.name.endswith("efficiency")]
    return section("cost", "Cost", "tables_and_figures.html", tables=tables) if tables else None


def _transposed(table: Table) -> Table:
    """A table of one row as a column, without empty cells; any other table unchanged."""
    if len(table.rows) != 1:
        return table
    (row,) = table.rows
    named = table.columns[0].is_text
    columns = [Column("", is_text=True), Column(row[0] if named else "")]
    pairs = zip(table.columns[named:], row[named:], strict=True)
    rows = [[column.full_title, cell] for column, cell in pairs if cell]
    return Table(table.name, table.title, columns, rows, table.records, table.notes)


def _settings(state: _State) -> Section | None:
    if not state.is_finished:
        return None
    run = state.run
    provenance = flat(run.provenance.to_dict()) | {
        f"{name} version": value for name, value in (run.summary.versions or {}).items()
    }
    provenance |= {"sample.artifact": run.sample.artifact, "distill.artifact": run.distill.artifact}
    return section(
        "settings",
        "Settings and provenance",
        "settings.html",
        settings={key: _as_word(value) for key, value in flat(run.settings).items()},
        provenance={key: _as_word(value) for key, value in provenance.items() if value},
    )


def _as_word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_as_word, value))}]"
    return "null" if value is None else str(value)

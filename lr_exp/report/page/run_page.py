"""The page of one run: finished, failed or unfinished.

A missing or damaged file costs only its own section, which says so in one line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.progress import duration
from lr_exp.report.analyse.rows import Sweep, sweeps
from lr_exp.report.document import MICRO, Section, reading_notes
from lr_exp.report.figures import Figure, draw_run
from lr_exp.report.names import is_micro
from lr_exp.report.page import answers, facts, reader, shell, trajectories
from lr_exp.report.page.figures import PageFigures, omitted_note
from lr_exp.report.page.headline import baseline_row, gain_of, headline_table, tuned_row
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.page.metrics import damaged_metrics, training_table
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table, turned
from lr_exp.report.read.incomplete import Failed, Unfinished
from lr_exp.report.read.runs import Found, Run
from lr_exp.report.read.summary import Summary
from lr_exp.report.tables.gap import pair_gap_table
from lr_exp.report.tables.layout import Tables, tables_of
from lr_exp.report.tables.table import PUBLISHED, Table, between, signed
from lr_exp.store.run_folder import TRAJECTORIES

# Together these stay below `shell.MAX_PAGE_BYTES`.
_MAX_READER_BYTES, _MAX_ANSWERS_BYTES, _MAX_FIGURE_BYTES = 1_300_000, 500_000, 700_000
_SECTION_OF_FIGURE = {
    "run_gain_by_benchmark": "results",
    "run_kl_histogram": "divergence",
    "run_kept_by_position": "divergence",
    "run_training_curves": "training",
}
_MAX_WARNINGS, _MAX_WARNING_CHARS = 20, 2_000


@dataclass(frozen=True)
class _State:
    """A run's folder and how the run ended."""

    folder: Path
    run: Run  # without a summary, as much of it as other files record
    ended: Failed | Unfinished | None  # None for a finished run
    sweep: Sweep | None  # of this run alone; None unless it finished
    tables: Tables | None

    @property
    def is_finished(self) -> bool:
        return self.sweep is not None


def run_page(folder: Path, found: Found) -> str:
    """The page of the single run in `found`.

    Args:
        folder: the run's folder.
        found: the contents of this folder, without its subfolders.
    """
    state = _state(folder, found)
    drawings = PageFigures(_MAX_FIGURE_BYTES)
    by_section = _by_section(draw_run(state.run))
    parts = [
        _results(state, drawings, by_section["results"]),
        _reader(state),
        _divergence(state, drawings, by_section["divergence"]),
        _training(state, drawings, by_section["training"]),
        _answers(state),
        _cost(state),
        _settings(state),
    ]
    head = [
        _status(state),
        facts.fact_list(facts.choices(state.run)),
        facts.tiles(_tiles(state)),
    ]
    shown = [part for part in parts if part is not None]
    return shell.page(
        facts.title(state.run),
        "Run report",
        head,
        shown,
        _foot(state, found, drawings),
        drawings.style(),
    )


def _state(folder: Path, found: Found) -> _State:
    if found.runs:
        (sweep,) = sweeps(found)
        return _State(folder, found.runs[0], None, sweep, tables_of(sweep, "results"))
    ended = next(iter([*found.failed, *found.unfinished]), None)
    known: dict[str, Any] = {"method": None, "amateur": None, "alpha": None, "beta": None}
    known |= {"expert": "unknown", "seed": None, "settings": {}}
    known |= trajectories.head(folder)
    keys = ("expert", "amateur", "method", "data", "alpha", "beta", "seed", "sweep")
    recorded = {key: getattr(ended, key, None) for key in keys}
    known |= {key: value for key, value in recorded.items() if value is not None}
    run = Run(folder, folder.resolve().name, Summary.model_construct(**known))
    return _State(folder, run, ended, None, None)


def _by_section(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    sections: dict[str, list[Figure]] = {name: [] for name in _SECTION_OF_FIGURE.values()}
    for figure in figures:
        sections[_SECTION_OF_FIGURE[figure.name]].append(figure)
    return sections


def _status(state: _State) -> Html:
    """How the run ended, its warnings and what is missing."""
    run = state.run
    lines: list[Child] = []
    ended = state.ended
    if isinstance(ended, Failed):
        heading = "This run's record is damaged: " if ended.is_damaged else "This run failed: "
        lines.append(_status_line(heading, ended.error))
    elif not state.is_finished:
        explanation = (
            "It is still running or was interrupted: it wrote neither a summary nor an error. "
            "Run the same command again to resume it."
        )
        lines.append(_status_line("This run has not finished. ", explanation))
    if ended is not None and ended.overrides:
        words = " ".join(ended.overrides)
        lines.append(tag("p", "Command-line overrides: ", tag("code", tag("bdi", words))))
    if run.stopped:
        says_so = "nothing was trained" in run.stopped.lower()
        heading = "Stopped after sampling: " if says_so else "Nothing was trained: "
        lines.append(_status_line(heading, run.stopped))
    lines += [
        _status_line("Warning: ", warning[:_MAX_WARNING_CHARS])
        for warning in run.warnings[:_MAX_WARNINGS]
    ]
    missing = _missing(state)
    if missing:
        lines.append(_status_line("Missing: ", f"{'; '.join(missing)}."))
    return tag("div", lines, class_="status", role="note") if lines else join()


def _status_line(heading: str, text: str) -> Html:
    return tag("p", tag("strong", heading), text)


def _missing(state: _State) -> list[str]:
    """The stages whose results the page lacks, and the stages that were requested."""
    run = state.run
    if not state.is_finished:
        return ["everything that summary.json holds (accuracies, costs, settings)"]
    parts = {
        "sample": "sampling (no divergences)",
        "distill": "tuning (no training curves)",
        "evaluate": "evaluation (no accuracies)",
    }
    missing = [
        description
        for name, description in parts.items()
        if getattr(run.summary, name) is None and not (name == "distill" and run.stopped)
    ]
    if not missing:
        return []
    stages = ", ".join(run.summary.stages or ["unknown"])
    return [*missing, f"requested stages: {stages}"]


def _tiles(state: _State) -> list[tuple[str, Child, str]]:
    entries: list[tuple[str, Child, str]] = []
    run, sweep = state.run, state.sweep
    if sweep is not None:
        entries += _accuracy_tiles(sweep, state.tables)
    sample, distill = run.sample, run.distill
    if sample.steps:
        kept = sample.kept or 0
        share = _percent(kept / sample.steps)
        detail = f"{kept:,} of {sample.steps:,} steps"
        entries.append(("Steps kept", share, detail))
    if distill.tuned_tokens:
        steps = distill.optimizer_steps
        detail = f"in {steps:,} optimizer steps" if steps else ""
        entries.append(("Tuned tokens", f"{distill.tuned_tokens:,}", detail))
    if sample.seconds is not None and distill.seconds is not None:
        detail = "from the store" if sample.reused and distill.reused else ""
        seconds = duration(sample.seconds + distill.seconds)
        entries.append(("Sampling and tuning time", seconds, detail))
    return entries


def _accuracy_tiles(sweep: Sweep, tables: Tables | None) -> list[tuple[str, Child, str]]:
    before, after = baseline_row(sweep), tuned_row(sweep)
    count = len(sweep.benchmarks)
    scope = f"average of {count} benchmarks" if count > 1 else "".join(sweep.benchmarks)
    if before is None or before.average is None:
        return []
    first = f"{100 * before.average.mean:.1f}"
    if after is None or after.average is None:
        return [("Accuracy", _percent(before.average.mean), scope)]
    arrow = [first, tag("span", " → ", class_="arrow"), _percent(after.average.mean)]
    entries: list[tuple[str, Child, str]] = [("Accuracy", join(arrow), scope)]
    gain = gain_of(before, after, sweep.benchmarks)
    if gain is not None:
        error = f" ± {100 * gain.stderr:.1f} points"
        value = join(signed(100 * gain.mean), tag("span", error, class_="unit"))
        entries.append(("Gain", value, _interval(tables)))
    return entries


def _interval(tables: Tables | None) -> str:
    if tables is None or not tables.pairs.pairs:
        return ""
    overall = tables.pairs.pairs[0].overall
    return f"95 % interval: {between(overall.low, overall.high)}"


def _percent(share: float) -> Html:
    return join(f"{100 * share:.1f}", tag("span", " %", class_="unit"))


def _results(state: _State, drawings: PageFigures, figures: list[Figure]) -> Part | None:
    if state.sweep is None or state.tables is None:
        return None
    table = headline_table(state.sweep, state.tables.pairs)
    beside = [one for one in state.tables.tables if one.name == "results" and _has_published(one)]
    gap = pair_gap_table(state.sweep, "gap")
    content = join(
        html_table(table, strong_last=len(table.rows) > 1) if table else None,
        None if table else tag("p", "Nothing was evaluated.", class_="note"),
        drawings.html(figures),
        html_table(gap) if gap else None,
        list(map(html_table, beside)),
        [tag("p", reason, class_="note") for reason in state.tables.pairs.refused],
        [tag("p", note, class_="note") for note in dict.fromkeys(state.sweep.notes)],
    )
    return Part("results", "Results", content)


def _has_published(table: Table) -> bool:
    return any(column.title == PUBLISHED for column in table.columns)


def _reader(state: _State) -> Part | None:
    title = "Trajectory reader"
    try:
        reading = trajectories.read(state.folder, _MAX_READER_BYTES)
    except trajectories.DamagedError as reason:
        return Part("reader", title, tag("p", str(reason), class_="note damaged"))
    if reading is not None and reading.answers:
        return reader.reader_part(reading)
    if reading is not None:
        return Part("reader", title, tag("p", "No answer was sampled.", class_="note"))
    if state.is_finished and state.run.summary.sample is None:
        return None  # the status lists sampling as missing
    if state.is_finished and state.run.is_imported:
        note = "This run used imported records and sampled no answers, so there are none to show."
        return Part("reader", title, tag("p", note, class_="note"))
    note = f"There is no {TRAJECTORIES} in the run's folder"
    note += ": it is written after sampling." if not state.is_finished else "."
    return Part("reader", title, tag("p", note, class_="note"))


def _divergence(state: _State, drawings: PageFigures, figures: list[Figure]) -> Part | None:
    tables = state.tables.tables if state.tables else []
    profile = [html_table(one) for one in tables if one.name.endswith("kl_profile")]
    shown = drawings.html(figures)
    if not profile and shown is None:
        return None
    scored = profile or state.run.sample.histogram
    heading = "Where the models diverge" if scored else "Which steps were kept"
    return Part("divergence", heading, join(shown, profile))


def _training(state: _State, drawings: PageFigures, figures: list[Figure]) -> Part | None:
    damaged = damaged_metrics(state.folder)
    shown = drawings.html(figures)
    table = training_table(state.run)
    if not damaged and shown is None and table is None:
        return None
    logged = html_table(table) if table else None
    beside = tag("div", shown, tag("div", logged), class_="beside")
    content = join(
        tag("p", damaged, class_="note damaged") if damaged else None,
        beside if shown and logged else [shown, logged],
    )
    return Part("training", "Training", content)


def _answers(state: _State) -> Part | None:
    if not state.run.results("tuned"):
        return None
    pairs = answers.read(state.run, _MAX_ANSWERS_BYTES)
    if pairs.compared:
        return reader.answers_part(pairs)
    note = " ".join(pairs.missing) or "The expert and the tuned expert share no benchmark."
    return Part("answers", "Answers before and after", tag("p", note, class_="note damaged"))


def _cost(state: _State) -> Part | None:
    tables = state.tables.tables if state.tables else []
    shown = [html_table(turned(one)) for one in tables if one.name.endswith("efficiency")]
    return Part("cost", "Cost", join(shown)) if shown else None


def _settings(state: _State) -> Part | None:
    if not state.is_finished:
        return None
    lists = join(facts.settings_list(state.run.settings), facts.provenance_list(state.run))
    return Part("settings", "Settings and provenance", lists)


def _foot(state: _State, found: Found, drawings: PageFigures) -> list[Child]:
    run = state.run
    lines = [MICRO] if not state.is_finished and is_micro(run.expert, run.amateur) else []
    if state.sweep is not None and state.tables is not None:
        lines = reading_notes(found, [Section(state.sweep, state.tables.tables, [], [])])
    return [
        omitted_note(drawings),
        tag("ul", [tag("li", line) for line in lines]) if lines else None,
    ]

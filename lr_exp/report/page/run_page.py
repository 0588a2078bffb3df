"""The page of one run, finished, failed or not: what there is, and what is missing.

Knows a run's folder; knows nothing of other runs. A file that is damaged or not there costs its own
section, which says so in a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.progress import duration
from lr_exp.report.document import MICRO, reading_notes
from lr_exp.report.figures import Figure, draw_run
from lr_exp.report.incomplete import Failed, Unfinished
from lr_exp.report.layout import Tables, tables_of
from lr_exp.report.names import is_micro
from lr_exp.report.page import answers, facts, reader, shell, trajectories
from lr_exp.report.page.figures import Drawings, notes
from lr_exp.report.page.headline import baseline_row, gain_of, headline_table, tuned_row
from lr_exp.report.page.markup import Child, Html, join, tag
from lr_exp.report.page.metrics import damaged_metrics, training_table
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table, turned
from lr_exp.report.rows import Sweep, sweeps
from lr_exp.report.runs import Found, Run
from lr_exp.report.section import Section
from lr_exp.report.summary import Summary
from lr_exp.report.tables.gap import pair_gap_table
from lr_exp.report.tables.table import PUBLISHED, Table, between, signed
from lr_exp.store.run_folder import TRAJECTORIES

# Bytes of a page's parts; together they stay under `shell.MOST_BYTES`.
_READER, _ANSWERS, _DRAWINGS = 1_300_000, 500_000, 700_000
_SECTIONS = {  # that the figures of a run belong to
    "run_gain_by_benchmark": "results",
    "run_kl_histogram": "divergence",
    "run_kept_by_position": "divergence",
    "run_training_curves": "training",
}
_MOST_WARNINGS, _LONGEST = 20, 2_000  # characters of one


@dataclass(frozen=True)
class _State:
    """Of what folder the page is, and how its run ended."""

    folder: Path
    run: Run  # of one without a summary, with what little is known
    ended: Failed | Unfinished | None  # how, if not with a summary
    sweep: Sweep | None  # of this run alone, once it is finished
    tables: Tables | None

    @property
    def is_finished(self) -> bool:
        return self.sweep is not None


def run_page(folder: Path, found: Found) -> str:
    """The page of the one run that `found` holds.

    Args:
        folder: the run's.
        found: what lies in this folder alone.
    """
    state = _state(folder, found)
    drawings = Drawings(_DRAWINGS)
    drawn = _by_section(draw_run(state.run))
    parts = [
        _results(state, drawings, drawn["results"]),
        _reader(state),
        _divergence(state, drawings, drawn["divergence"]),
        _training(state, drawings, drawn["training"]),
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
    known |= {"expert": "not known yet", "seed": None, "settings": {}}
    known |= trajectories.head(folder)
    keys = ("expert", "amateur", "method", "data", "alpha", "beta", "seed", "sweep")
    told = {key: getattr(ended, key, None) for key in keys}
    known |= {key: value for key, value in told.items() if value is not None}
    run = Run(folder, folder.resolve().name, Summary.model_construct(**known))
    return _State(folder, run, ended, None, None)


def _by_section(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Figures by the section that they belong to."""
    sections: dict[str, list[Figure]] = {name: [] for name in _SECTIONS.values()}
    for figure in figures:
        sections[_SECTIONS[figure.name]].append(figure)
    return sections


def _status(state: _State) -> Html:
    """How the run ended, and all that a reader should know before the numbers."""
    run = state.run
    told: list[Child] = []
    ended = state.ended
    if isinstance(ended, Failed):
        what = "Its record cannot be used: " if ended.is_damaged else "This run failed: "
        told.append(tag("p", tag("strong", what), ended.error))
    elif not state.is_finished:
        told.append(
            tag(
                "p",
                tag("strong", "This run is not finished. "),
                "It was stopped or is still running: it has left neither a summary nor an error. "
                "The same command goes on with it.",
            )
        )
    if ended is not None and ended.overrides:
        words = " ".join(ended.overrides)
        told.append(tag("p", "It was started with ", tag("code", tag("bdi", words)), "."))
    if run.stopped:
        says_so = "nothing was trained" in run.stopped.lower()
        heading = "Stopped after sampling: " if says_so else "Nothing was trained: "
        told.append(tag("p", tag("strong", heading), run.stopped))
    told += [
        tag("p", tag("strong", "Warning: "), one[:_LONGEST])
        for one in run.warnings[:_MOST_WARNINGS]
    ]
    missing = _missing(state)
    if missing:
        told.append(tag("p", tag("strong", "Missing: "), "; ".join(missing), "."))
    return tag("div", told, class_="status", role="note") if told else join()


def _missing(state: _State) -> list[str]:
    """What a page of a whole run would have, and why this one has not."""
    run = state.run
    if not state.is_finished:
        return ["all that the summary tells (accuracies, costs, settings)"]
    parts = {
        "sample": "sampling (no divergences)",
        "distill": "tuning (no training curves)",
        "evaluate": "evaluation (no accuracies)",
    }
    left = [
        told
        for name, told in parts.items()
        if getattr(run.summary, name) is None and not (name == "distill" and run.stopped)
    ]
    if not left:
        return []
    stages = ", ".join(run.summary.stages or ["not known"])
    return [*left, f"the stages asked for were: {stages}"]


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
        entries.append(("Tokens tuned on", f"{distill.tuned_tokens:,}", detail))
    if sample.seconds is not None and distill.seconds is not None:
        detail = "from the store" if sample.reused and distill.reused else ""
        seconds = duration(sample.seconds + distill.seconds)
        entries.append(("Sampling and tuning", seconds, detail))
    return entries


def _accuracy_tiles(sweep: Sweep, tables: Tables | None) -> list[tuple[str, Child, str]]:
    before, after = baseline_row(sweep), tuned_row(sweep)
    names = len(sweep.benchmarks)
    over = f"average of {names} benchmarks" if names > 1 else "".join(sweep.benchmarks)
    if before is None or before.average is None:
        return []
    first = f"{100 * before.average.mean:.1f}"
    if after is None or after.average is None:
        return [("Accuracy", _percent(before.average.mean), over)]
    arrow = [first, tag("span", " → ", class_="arrow"), _percent(after.average.mean)]
    entries: list[tuple[str, Child, str]] = [("Accuracy", join(arrow), over)]
    gain = gain_of(before, after, sweep.benchmarks)
    if gain is not None:
        error = f" ± {100 * gain.stderr:.1f} points"
        told = join(signed(100 * gain.mean), tag("span", error, class_="unit"))
        entries.append(("Gain", told, _interval(tables)))
    return entries


def _interval(tables: Tables | None) -> str:
    if tables is None or not tables.pairs.pairs:
        return ""
    one = tables.pairs.pairs[0].overall
    return f"95 %: {between(one.low, one.high)}"


def _percent(share: float) -> Html:
    return join(f"{100 * share:.1f}", tag("span", " %", class_="unit"))


def _results(state: _State, drawings: Drawings, figures: list[Figure]) -> Part | None:
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
        [tag("p", one, class_="note") for one in state.tables.pairs.refused],
        [tag("p", one, class_="note") for one in dict.fromkeys(state.sweep.notes)],
    )
    return Part("results", "Results", content)


def _has_published(table: Table) -> bool:
    return any(column.title == PUBLISHED for column in table.columns)


def _reader(state: _State) -> Part | None:
    title = "Trajectory reader"
    try:
        reading = trajectories.read(state.folder, _READER)
    except trajectories.DamagedError as reason:
        return Part("reader", title, tag("p", str(reason), class_="note damaged"))
    if reading is not None and reading.answers:
        return reader.reader_part(reading)
    if reading is not None:
        return Part("reader", title, tag("p", "No answer was sampled.", class_="note"))
    if state.is_finished and state.run.summary.sample is None:
        return None  # nothing was sampled: it is told above
    if state.is_finished and state.run.is_imported:
        told = "Its records were imported and nothing was sampled, so there are no answers to read."
        return Part("reader", title, tag("p", told, class_="note"))
    told = f"There is no {TRAJECTORIES} in the run's folder"
    told += ": it is written after sampling." if not state.is_finished else "."
    return Part("reader", title, tag("p", told, class_="note"))


def _divergence(state: _State, drawings: Drawings, figures: list[Figure]) -> Part | None:
    tables = state.tables.tables if state.tables else []
    profile = [html_table(one) for one in tables if one.name.endswith("kl_profile")]
    shown = drawings.html(figures)
    if not profile and shown is None:
        return None
    scored = profile or state.run.sample.histogram
    heading = "Where the models diverge" if scored else "Which steps were kept"
    return Part("divergence", heading, join(shown, profile))


def _training(state: _State, drawings: Drawings, figures: list[Figure]) -> Part | None:
    damaged = damaged_metrics(state.folder)
    shown = drawings.html(figures)
    table = training_table(state.run)
    if not damaged and shown is None and table is None:
        return None
    told = html_table(table) if table else None
    content = join(
        tag("p", damaged, class_="note damaged") if damaged else None,
        tag("div", shown, tag("div", told), class_="beside") if shown and told else [shown, told],
    )
    return Part("training", "Training", content)


def _answers(state: _State) -> Part | None:
    if not state.run.results("tuned"):
        return None
    found = answers.read(state.run, _ANSWERS)
    if found.compared:
        return reader.answers_part(found)
    told = " ".join(found.missing) or "No benchmark was answered by both."
    return Part("answers", "Answers before and after", tag("p", told, class_="note damaged"))


def _cost(state: _State) -> Part | None:
    tables = state.tables.tables if state.tables else []
    shown = [html_table(turned(one)) for one in tables if one.name.endswith("efficiency")]
    return Part("cost", "Cost", join(shown)) if shown else None


def _settings(state: _State) -> Part | None:
    if not state.is_finished:
        return None
    lists = join(facts.settings_list(state.run.settings), facts.provenance_list(state.run))
    return Part("settings", "Settings and provenance", lists)


def _foot(state: _State, found: Found, drawings: Drawings) -> list[Child]:
    run = state.run
    told = [MICRO] if not state.is_finished and is_micro(run.expert, run.amateur) else []
    if state.sweep is not None and state.tables is not None:
        told = reading_notes(found, [Section(state.sweep, state.tables.tables, [], [])])
    return [notes(drawings), tag("ul", [tag("li", line) for line in told]) if told else None]

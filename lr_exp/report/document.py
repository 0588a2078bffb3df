"""Writes `report.md`: tables, figures and the text around them."""

from collections.abc import Sequence

from lr_exp.report.check import machine
from lr_exp.report.names import NO_SWEEP, is_micro, machine_name
from lr_exp.report.rows import Sweep
from lr_exp.report.runs import Found, Run, Unfinished
from lr_exp.report.section import Section
from lr_exp.report.summary import ModelProvenance
from lr_exp.report.tables.table import PUBLISHED
from lr_exp.report.write import markdown_table, markdown_text

_PLUS_MINUS = (
    "± is one standard error of accuracy (pass@1 in %). It is the square root of the variance over "
    "questions, Var(correctness averaged over seeds) / n, plus the variance over seeds, "
    "Var(accuracy) / number of seeds. With one seed it is the binomial error of the questions "
    "alone. Errors of averages treat benchmarks as independent."
)
_GAIN = (
    "AVG is the unweighted mean over the benchmarks shown. Gain is the difference in AVG to the "
    "untuned expert with greedy decoding, in points; it is shown only if that expert was "
    "evaluated, and its error is paired by question if the graded answers are available. The "
    "untuned expert does not depend on the seed and is counted once. If a method trained nothing "
    "with some seed, that seed counts with the expert's own results."
)
_PUBLISHED = (
    "Columns named published are numbers from arXiv 2510.07962, in rows with the paper's models, "
    "method, data and thresholds; all other numbers were measured in the runs below. An asterisk "
    "marks rows in which another known setting differs from the paper's (training questions and "
    "answers, rollout length, optimizer steps, batch size, learning rate, LoRA, a limit on "
    "evaluated questions); a note under the table lists the differences. The number of questions "
    "and answers behind the paper's SFT is our interpretation. A published average is shown only "
    "if it is over the same benchmarks."
)
MICRO = (
    "Numbers of the micro world (names with micro) show the mechanism on tiny models; the paper "
    "has no numbers to compare them with."
)


def document(title: str, found: Found, sections: Sequence[Section]) -> str:
    """The whole report as Markdown, which links to files beside it."""
    parts = [f"# Report: {markdown_text(title)}", *_counts(found), _reading(found, sections)]
    for section in sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _counts(found: Found) -> list[str]:
    parts = [f"{found.counts} and {len(found.unfinished)} unfinished runs."]
    if found.unfinished:
        parts.append(
            "Unfinished (neither a summary nor an error; the same command resumes the run):\n\n"
            + "\n".join(f"- {_unfinished(run)}" for run in found.unfinished)
        )
    return parts + [markdown_text(note) for note in found.notes]


def _unfinished(run: Unfinished) -> str:
    overrides = f"; {' '.join(run.overrides)}" if run.overrides else ""
    return markdown_text(f"{run.name}: {run.has}{overrides}")


def reading_notes(found: Found, sections: Sequence[Section]) -> list[str]:
    """Explanations that apply to the tables of this report."""
    lines = [_PLUS_MINUS, _GAIN]
    tables = [table for section in sections for table in section.tables]
    if any(column.title == PUBLISHED for table in tables for column in table.columns):
        lines.append(_PUBLISHED)
    if any(is_micro(run.expert, run.amateur, *run.benchmarks) for run in found.runs):
        lines.append(MICRO)
    return lines


def _reading(found: Found, sections: Sequence[Section]) -> str:
    lines = reading_notes(found, sections)
    lines.append("CSV files have unrounded accuracies in percent and gains in points.")
    return "## How to read the tables\n\n" + "\n".join(f"- {line}" for line in lines)


def _section(section: Section) -> list[str]:
    sweep = section.sweep
    parts = [f"## {markdown_text(sweep.name or NO_SWEEP)}", _what_ran(sweep)]
    notes = [*sweep.warnings, *dict.fromkeys(sweep.notes)]
    if notes:
        parts.append("\n".join(f"- {markdown_text(note)}" for note in notes))
    for table in section.tables:
        parts += [f"### {table.title}"]
        if table.rows:
            parts.append(markdown_table(table))
        parts += [markdown_text(note) for note in table.notes]
        parts.append(
            f"Files: [{table.name}.csv]({table.name}.csv), [{table.name}.tex]({table.name}.tex)"
        )
    parts += [markdown_text(note) for note in section.refused]
    if sweep.failed:
        cells = "\n".join(
            f"- {markdown_text(failed.name)}: {markdown_text(failed.error)}"
            for failed in sweep.failed
        )
        parts += ["### Failed runs", cells]
    stopped = dict.fromkeys(
        f"- {markdown_text(f'{row.label}, seed {run.seed}')}: {markdown_text(run.stopped)}"
        for row in sweep.rows
        for run in row.runs
        if run.stopped and not row.is_baseline
    )
    if stopped:
        parts += ["### Runs in which nothing was trained", "\n".join(stopped)]
    if section.figures:
        parts.append("### Figures")
        for figure in section.figures:
            parts += [f"![{figure.name}]({figure.name}.png)", markdown_text(figure.caption)]
    return parts


def _what_ran(sweep: Sweep) -> str:
    """Models, data, seeds and machine, one per line."""
    runs = sweep.runs
    seeds = sorted({run.seed for run in runs})
    facts = {
        "runs": f"{len(runs)} finished, {len(sweep.failed)} failed",
        "experts": ", ".join(dict.fromkeys(_model(run, "expert") for run in runs)),
        "amateurs": ", ".join(dict.fromkeys(_model(run, "amateur") for run in runs if run.amateur)),
        "questions": ", ".join(dict.fromkeys(run.data for run in runs if run.data)),
        "benchmarks": ", ".join(sweep.benchmarks),
        "seeds": ", ".join(map(str, seeds)),
        "machine": machine_name(_each(runs, "device_name")),
        "numbers": _each(runs, "dtype"),
        "versions": ", ".join(
            f"{key.removesuffix(' version')} {_each(runs, key)}"
            for key in machine(runs[0])
            if key.endswith(" version")
        )
        if runs
        else "",
    }
    return "\n".join(f"- {key}: {markdown_text(value)}" for key, value in facts.items() if value)


def _model(run: Run, role: str) -> str:
    """A model's name with its source and the start of its fingerprint."""
    name = run.expert if role == "expert" else str(run.amateur)
    model = run.provenance.expert if role == "expert" else run.provenance.amateur
    model = model or ModelProvenance()
    place = f"{model.path}@{model.revision}" if model.path and model.revision else model.path
    fingerprint = (model.fingerprint or "")[:12]
    details = ", ".join(part for part in (place, fingerprint) if part)
    return f"{name} ({details})" if details else name


def _each(runs: Sequence[Run], key: str) -> str:
    """All values in the runs; more than one only with a warning."""
    return " / ".join(dict.fromkeys(machine(run)[key] for run in runs if key in machine(run)))

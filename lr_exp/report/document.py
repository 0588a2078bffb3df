"""Writes `report.md`: tables, figures and the text around them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lr_exp.report.analyse.comparable import machine
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures import Figure
from lr_exp.report.names import NO_SWEEP, is_micro
from lr_exp.report.read.run import Incomplete
from lr_exp.report.read.runs import Found
from lr_exp.report.read.summary import ModelProvenance
from lr_exp.report.tables.formats import markdown_table, markdown_text
from lr_exp.report.tables.table import Table

_PLUS_MINUS = (
    "± is the wider side of the 95 % interval of an accuracy (pass@1 in %) or a gain. Over "
    "questions the interval is Wilson's, or the one of the questions won and lost; with several "
    "seeds, Student's t interval over their means is added (squared distances add up). With one "
    "seed it does not cover another training run. Questions of different benchmarks count as "
    "independent; a seed's effect is shared by all benchmarks. CSV files have the standard errors "
    "and both ends of the intervals."
)
_GAIN = (
    "AVG is the unweighted mean over the benchmarks shown. Gain is the difference in AVG to the "
    "untuned expert with greedy decoding, in points; it is shown only if that expert was "
    "evaluated, and its interval is paired by question if the graded answers are available. The "
    "untuned expert does not depend on the seed and is counted once. If a method trained nothing "
    "for a seed, the expert's own results are used for that seed."
)
_PUBLISHED = (
    "Columns named published are numbers from arXiv 2510.07962, in rows with the paper's models, "
    "method, data and thresholds; all other numbers were measured in the runs below. An asterisk "
    "marks rows in which another known setting differs from the paper's (training questions and "
    "answers, prompts, rollout and answer length, optimizer steps, batch size, learning rate, "
    "LoRA, a limit on evaluated questions); a note under the table lists the differences. The "
    "number of questions and answers behind the paper's SFT is our interpretation. A published "
    "average is shown only if it is over the same benchmarks."
)
_UNFINISHED = "Unfinished (neither a summary nor an error; the same command resumes the run):"
MICRO = (
    "Numbers of the micro world (names with micro) show the mechanism on tiny models; the paper "
    "has no numbers to compare them with."
)


@dataclass(frozen=True)
class Section:
    """A sweep with its tables and figures."""

    sweep: Sweep
    tables: list[Table]  # the sweep's own first
    figures: list[Figure]
    refused: list[str]  # why rows were not compared


def document(title: str, found: Found, sections: Sequence[Section]) -> str:
    """The whole report as Markdown, which links to files beside it."""
    reading = [
        *reading_notes(found, [table for section in sections for table in section.tables]),
        "CSV files have unrounded accuracies in percent and gains in points.",
    ]
    parts = [
        f"# Report: {markdown_text(title)}",
        f"{found.counts} and {len(found.unfinished)} unfinished runs.",
        *_listed("Failed:", [f"{run.name}: {run.error}" for run in found.failed]),
        *_listed(_UNFINISHED, [_left(run) for run in found.unfinished]),
        *map(markdown_text, found.notes),
        "## How to read the tables",
        _list(reading),
        *(part for section in sections for part in _section(section)),
    ]
    return "\n\n".join(parts) + "\n"


def reading_notes(found: Found, tables: Sequence[Table]) -> list[str]:
    """Explanations that apply to the tables of this report."""
    lines = [_PLUS_MINUS, _GAIN]
    if any(table.has_published for table in tables):
        lines.append(_PUBLISHED)
    if any(is_micro(run.expert, run.amateur, *run.benchmarks) for run in found.runs):
        lines.append(MICRO)
    return lines


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _listed(heading: str, lines: Iterable[str]) -> list[str]:
    """A heading and a list, each line once; empty without lines."""
    texts = list(dict.fromkeys(map(markdown_text, lines)))
    return [heading, _list(texts)] if texts else []


def _left(run: Incomplete) -> str:
    return "; ".join(filter(None, [f"{run.name}: {run.has}", " ".join(run.overrides)]))


def _section(section: Section) -> list[str]:
    sweep = section.sweep
    parts = [f"## {markdown_text(sweep.name or NO_SWEEP)}", _what_ran(sweep)]
    if notes := sweep.all_notes:
        parts.append(_list(map(markdown_text, notes)))
    for table in section.tables:
        files = (f"{table.name}.{kind}" for kind in ("csv", "tex"))
        parts += [
            f"### {table.title}",
            *([markdown_table(table)] if table.rows else []),
            *map(markdown_text, table.notes),
            f"Files: {', '.join(f'[{name}]({name})' for name in files)}",
        ]
    parts += map(markdown_text, section.refused)
    stopped = [
        f"{row.label}, seed {run.seed}: {run.stopped}"
        for row in sweep.rows
        for run in row.runs
        if run.stopped and not row.is_baseline
    ]
    parts += _listed("### Runs in which nothing was trained", stopped)
    if section.figures:
        parts.append("### Figures")
        for figure in section.figures:
            parts += [f"![{figure.name}]({figure.name}.png)", markdown_text(figure.caption)]
    return parts


def _what_ran(sweep: Sweep) -> str:
    """Models, data, seeds and machine, one per line."""
    runs = sweep.runs
    machines = [machine(run) for run in runs]

    def listed(values: Iterable[str | None], separator: str = ", ") -> str:
        return separator.join(dict.fromkeys(filter(None, values)))

    def on_machines(key: str) -> str:  # more than one value only with a warning
        return listed([one.get(key) for one in machines], " / ")

    versions = [key for key in (machines[0] if machines else ()) if key.endswith(" version")]
    facts = {
        "finished runs": str(len(runs)),
        "experts": listed(_model(run.expert, run.provenance.expert) for run in runs),
        "amateurs": listed(_model(run.amateur, run.provenance.amateur) for run in runs),
        "questions": listed(run.data for run in runs),
        "benchmarks": ", ".join(sweep.benchmarks),
        "seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "machine": on_machines("device_name"),
        "dtype": on_machines("dtype"),
        "versions": ", ".join(
            f"{key.removesuffix(' version')} {on_machines(key)}" for key in versions
        ),
    }
    return _list(f"{key}: {markdown_text(value)}" for key, value in facts.items() if value)


def _model(name: str | None, model: ModelProvenance | None) -> str | None:
    """A model's name with its source and the start of its fingerprint."""
    if name is None or model is None:
        return name
    place = f"{model.path}@{model.revision}" if model.path and model.revision else model.path
    details = ", ".join(filter(None, (place, (model.fingerprint or "")[:12])))
    return f"{name} ({details})" if details else name

"""Tables and a page that compare single runs, with the answers side by side."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, counted
from lr_exp.report.analyse import paired
from lr_exp.report.analyse.answer_pairs import read_pairs
from lr_exp.report.analyse.questions import Side, compare, differing_facts, sides_of
from lr_exp.report.names import AVERAGE, benchmark_label, is_micro, method_label
from lr_exp.report.page.render import page, render, section
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record
from lr_exp.report.texts import report_text

_MAX_VALUE_CHARS = 24  # in the table; the CSV file has all
_SHARED_CHARS = 4  # shown before the first difference


def compare_folders(
    folders: Sequence[Path], where: Mapping[str, Any] | None = None
) -> tuple[Table, Table, str]:
    """The table of the comparison, that of differing settings, and the page.

    Raises UserError: the folders are not those of single runs, or the runs cannot be compared.
    """
    sides = sides_of(folders, where)
    try:
        results = _results(sides)
    except AnswersMissingError as error:
        raise UserError(f"{error}.") from error
    settings, (first, *others) = _settings(sides), sides
    sections = [section("results", "Results", first_tables=[results, settings])]
    for other in others:
        pairs = read_pairs((first.run, first.who), (other.run, other.who))
        title = f"{first.label} and {other.label} side by side"
        titles = [_title(first), _title(other)]
        sections.append(
            section(
                f"answers-{other.label}",
                title,
                "answers.html",
                damage="",
                titles=titles,
                remarks=pairs.missing,
                groups=pairs.groups,
            )
        )
    is_of_micro = any(is_micro(one.run.expert, *one.run.benchmarks) for one in sides)
    notes = [report_text("micro")] if is_of_micro else []
    head = render("head.html", status=[], facts={one.label: _described(one) for one in sides})
    return results, settings, page("Comparison of runs", "Runs compared", head, sections, notes)


def _title(side: Side) -> str:
    return f"{side.label}: {_described(side)}"


def _described(side: Side) -> str:
    run = side.run
    method = method_label(run.method) if run.method and side.who == "tuned" else "untuned expert"
    decoder = "" if run.decoder == "greedy" else f", {run.decoder} decoding"
    return f"{side.place} ({method}{decoder}, {run.expert}, seed {run.seed})"


def _results(sides: Sequence[Side]) -> Table:
    first, *others = sides
    found = [(other, one) for other in others for one in compare(first, other)]
    tested = [one for _, one in found if one.benchmark != AVERAGE]
    adjusted = iter(paired.holm([one.p_majority for one in tested]))
    rows, records, notes = [], [], [_title(side) for side in sides]
    for other, one in found:
        holm = None if one.benchmark == AVERAGE else next(adjusted)
        p = "" if holm is None else cell.p_value(holm)
        shares = cell.change(one.first, one.other)
        counts = (one.difference.questions, one.won, one.lost)
        questions, *won_lost = (f"{count:,}" for count in counts)
        name = benchmark_label(one.benchmark)
        difference = cell.with_interval(one.difference)
        pair = f"{other.label} vs {first.label}"
        rows.append([pair, name, questions, shares, difference, *won_lost, p])
        records.append(
            {"first": str(first.place), "other": str(other.place), "benchmark": one.benchmark}
            | {"questions": one.difference.questions, "won": one.won, "lost": one.lost}
            | {"first_accuracy": 100 * one.first, "other_accuracy": 100 * one.other}
            | {"p": None if holm is None else one.p_majority, "p_holm": holm}
            | estimate_record("difference", one.difference)
        )
        if one.unshared:
            notes.append(
                f"{name}, {pair}: left out: {counted(one.unshared, 'question')}, not the same or "
                "not answered in the other run."
            )
    notes.append(
        "Won: only the later run is right. The interval (95 %, points) is over questions: it does "
        "not cover another training run. p: McNemar's exact test with Holm's correction for the "
        f"{counted(len(tested), 'test')} of this table."
    )
    titles = ("runs", "benchmark", "n", "right, %", "difference", "won", "lost")
    columns = [
        Column(title, is_text=title in ("runs", "benchmark")) for title in (*titles, "p (Holm)")
    ]
    return Table("comparison", "Question by question", columns, rows, records, notes)


def _settings(sides: Sequence[Side]) -> Table:
    found = differing_facts(sides)
    columns = [Column(one, is_text=True) for one in ("differs", *(side.label for side in sides))]
    rows = [[key, *_shortened(own)] for key, own in found.items()]
    labels = [side.label for side in sides]
    records = [
        {"setting": key, **dict(zip(labels, own, strict=True))} for key, own in found.items()
    ]
    return Table("settings", "What differs between the runs", columns, rows, records)


def _shortened(values: Sequence[str]) -> list[str]:
    """The values, or the parts of long ones in which they begin to differ."""
    start = 0
    if max(map(len, values)) > _MAX_VALUE_CHARS:
        alike = (len({*chars}) == 1 for chars in zip(*values, strict=False))
        start = max(0, sum(takewhile(bool, alike)) - _SHARED_CHARS)
    ends = [value[start:] for value in values]
    return [
        ("…" if start else "")
        + (end if len(end) <= _MAX_VALUE_CHARS else f"{end[: _MAX_VALUE_CHARS - 1]}…")
        for end in ends
    ]

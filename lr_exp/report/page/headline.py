"""The first table of a run's page: accuracy before and after tuning, with intervals and tests."""

from collections.abc import Sequence

from lr_exp.report.analyse import accuracies
from lr_exp.report.analyse.compare import Comparison, Pairs
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.tables.table import (
    Column,
    Table,
    between,
    p_value,
    percent,
    points,
    without_empty,
)

_PAIRED = (
    "pass@1 in % ± one standard error over the questions, for this run's one seed. Before is the "
    "untuned expert, with the same decoding as the tuned one. Gain is in points, with a 95 % "
    "bootstrap interval over questions. Won counts the questions that only the tuned expert "
    "answers correctly, lost those that only the untuned expert does; p is the exact two-sided "
    "McNemar test of these counts, not corrected for multiple tests. AVG is the unweighted mean "
    "over the benchmarks; its counts and its p pool their questions."
)
_UNPAIRED = "pass@1 in % ± one standard error over the questions."


def baseline_row(sweep: Sweep) -> Row | None:
    """The untuned expert with the run's decoding."""
    return next((row for row in sweep.rows if row.is_baseline), None)


def tuned_row(sweep: Sweep) -> Row | None:
    """The method's row; None where nothing was tuned."""
    rows = (row for row in sweep.rows if not row.is_baseline and row.runs)
    return next((row for row in rows if not row.runs[0].stopped), None)


def gain_of(before: Row | None, after: Row | None, benchmarks: Sequence[str]) -> Estimate | None:
    """Gain in the average over `benchmarks`; None where one of them was not measured."""
    if before is None or after is None:
        return None
    return accuracies.gain_of(after.results, before.results, benchmarks)


def headline_table(sweep: Sweep, pairs: Pairs) -> Table | None:
    """One row per benchmark; None where nothing was evaluated."""
    before, tuned = baseline_row(sweep), tuned_row(sweep)
    after = tuned if tuned and tuned.results.accuracies else None
    if before is None and after is None:
        return None
    by_benchmark = _comparisons(pairs, before, after)
    measured = [row.results.accuracies for row in (before, after) if row]
    names = [name for name in sweep.benchmarks if any(name in one for one in measured)]
    rows = [
        _line(
            benchmark_label(name),
            before.results.accuracies.get(name) if before else None,
            after.results.accuracies.get(name) if after else None,
            gain_of(before, after, [name]),
            by_benchmark.get(name),
        )
        for name in names
    ]
    if len(names) > 1:
        first, second = (row.average if row else None for row in (before, after))
        gain = gain_of(before, after, sweep.benchmarks)
        rows.append(_line(AVERAGE, first, second, gain, by_benchmark.get(AVERAGE)))
    columns = [Column("benchmark", is_text=True), *map(Column, ("before", "after", "gain"))]
    columns += map(Column, ("95 % interval", "won", "lost", "p", "questions"))
    notes = [_PAIRED if by_benchmark else _UNPAIRED]
    return without_empty(Table("results", "Accuracy before and after", columns, rows, [], notes))


def _comparisons(pairs: Pairs, before: Row | None, after: Row | None) -> dict[str, Comparison]:
    for pair in pairs.pairs:
        if pair.ours is after and pair.theirs is before:
            return {one.benchmark: one for one in pair.comparisons}
    return {}


def _line(
    label: str,
    before: Estimate | None,
    after: Estimate | None,
    gain: Estimate | None,
    compared: Comparison | None,
) -> list[str]:
    known = after or before
    questions = f"{known.questions:,}" if known else ABSENT
    cells = [label, percent(before), percent(after), points(gain)]
    if compared is None:
        return [*cells, ABSENT, ABSENT, ABSENT, ABSENT, questions]
    cells += [between(compared.low, compared.high), f"{compared.won:,}", f"{compared.lost:,}"]
    return [*cells, p_value(compared.p_majority), questions]

"""The first table of a run's page: accuracy before and after tuning, with intervals and tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lr_exp.report.analyse import accuracies
from lr_exp.report.analyse.compare import Comparison, Pairs
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, table_of, text_column
from lr_exp.report.texts import report_text


@dataclass(frozen=True)
class Change:
    """The change on one benchmark, or on the average of all; None where it was not measured."""

    before: Estimate | None
    after: Estimate | None
    gain: Estimate | None
    compared: Comparison | None  # only if both models' graded answers are available


def accuracy_changes(sweep: Sweep, pairs: Pairs) -> dict[str, Change]:
    """The changes of a sweep of one run, by benchmark; of several, the last is their average."""
    before = next((row for row in sweep.rows if row.is_baseline), None)
    after = next((row for row in sweep.rows if not row.is_baseline and row.trained_count), None)
    compared = {
        one.benchmark: one
        for pair in pairs.pairs
        if pair.ours is after and pair.theirs is before
        for one in pair.comparisons
    }

    def mean(row: Row | None, names: Sequence[str]) -> Estimate | None:
        return accuracies.average_of(row.results, names) if row else None

    scopes = {name: [name] for name in sweep.benchmarks}
    if len(scopes) > 1:
        scopes[AVERAGE] = sweep.benchmarks
    return {
        key: Change(
            mean(before, names),
            mean(after, names),
            accuracies.gain_of(after.results, before.results, names) if after and before else None,
            compared.get(key),
        )
        for key, names in scopes.items()
    }


def accuracy_change_table(changes: dict[str, Change]) -> Table | None:
    """None where nothing was evaluated."""
    every = [*changes.values()]
    gains, tests = [one.gain for one in every], [one.compared for one in every]
    known = [one.after or one.before for one in every]
    if not any(known):
        return None
    columns = [
        text_column("benchmark", map(benchmark_label, changes)),
        (Column("before"), [cell.percent(one.before) for one in every]),
        (Column("after"), [cell.percent(one.after) for one in every]),
        (Column("gain"), [cell.signed(100 * one.mean) if one else ABSENT for one in gains]),
        (Column("95 % interval"), [cell.between(one and one.ci95) for one in gains]),
        (Column("won"), [f"{one.won:,}" if one else ABSENT for one in tests]),
        (Column("lost"), [f"{one.lost:,}" if one else ABSENT for one in tests]),
        (Column("p"), [cell.p_value(one.p_majority) if one else ABSENT for one in tests]),
        (Column("questions"), [f"{one.questions:,}" if one else ABSENT for one in known]),
    ]
    note = report_text("accuracy_change") if any(tests) else report_text("accuracy_change_unpaired")
    table = table_of("results", "Accuracy before and after", columns, [], [note])
    return replace(table, bold=frozenset({len(changes) - 1} if len(changes) > 1 else ()))

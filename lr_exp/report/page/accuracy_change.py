"""The first table of a run's page: accuracy before and after tuning, with intervals and tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.report.analyse import accuracies
from lr_exp.report.analyse.compare import Comparison, Pairs
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, AVERAGE, benchmark_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, table_of, text_column

_PAIRED = (
    "pass@1 in % ± the wider side of its 95 % interval over the questions (Wilson), for this "
    "run's one seed: no interval here covers another training run. Before is the untuned expert, "
    "with the same decoding as the tuned one. Gain is in points, with its 95 % interval. Won "
    "counts the questions that only the tuned expert answers correctly, lost those that only the "
    "untuned expert does; p is the exact two-sided McNemar test of these counts, not corrected "
    "for multiple tests. AVG is the unweighted mean over the benchmarks; its counts and its p "
    "pool their questions."
)
_UNPAIRED = "pass@1 in % ± the wider side of its 95 % interval over the questions (Wilson)."


@dataclass(frozen=True)
class AccuracyChange:
    """The rows of the untuned expert and of the tuned one, where they were evaluated."""

    before: Row | None
    after: Row | None
    benchmarks: Sequence[str]
    compared: dict[str, Comparison]  # by benchmark; empty without both rows' graded answers

    def gain(self, benchmarks: Sequence[str]) -> Estimate | None:
        """Gain in the average over `benchmarks`; None where one of them was not measured."""
        if self.before is None or self.after is None:
            return None
        return accuracies.gain_of(self.after.results, self.before.results, benchmarks)

    @property
    def table(self) -> Table | None:
        """One row per benchmark; None where nothing was evaluated."""
        rows = [self._line(benchmark_label(name), name, [name]) for name in self.benchmarks]
        if len(rows) > 1:
            rows.append(self._line(AVERAGE, AVERAGE, self.benchmarks))
        if all(row[-1] == ABSENT for row in rows):
            return None
        names, *numbers = map(list, zip(*rows, strict=True))
        titles = ("before", "after", "gain", "95 % interval", "won", "lost", "p", "questions")
        columns = [text_column("benchmark", names), *zip(map(Column, titles), numbers, strict=True)]
        note = _PAIRED if self.compared else _UNPAIRED
        return table_of("results", "Accuracy before and after", columns, [], [note])

    def _line(self, label: str, key: str, benchmarks: Sequence[str]) -> list[str]:
        before, after = (
            accuracies.average_of(row.results, benchmarks) if row else None
            for row in (self.before, self.after)
        )
        known, gain = after or before, self.gain(benchmarks)
        cells = [label, cell.percent(before), cell.percent(after)]
        cells += [cell.signed(100 * gain.mean), cell.between(gain.ci95)] if gain else [ABSENT] * 2
        compared = self.compared.get(key)
        if compared is None:
            cells += [ABSENT] * 3
        else:
            cells += [f"{compared.won:,}", f"{compared.lost:,}", cell.p_value(compared.p_majority)]
        return [*cells, f"{known.questions:,}" if known else ABSENT]


def accuracy_change(sweep: Sweep, pairs: Pairs) -> AccuracyChange:
    """The change in a sweep of one run."""
    before = next((row for row in sweep.rows if row.is_baseline), None)
    tuned = (row for row in sweep.rows if not row.is_baseline and row.runs)
    after = next((row for row in tuned if not row.runs[0].stopped), None)
    compared = {
        one.benchmark: one
        for pair in pairs.pairs
        if pair.ours is after and pair.theirs is before
        for one in pair.comparisons
    }
    return AccuracyChange(before, after, sweep.benchmarks, compared)

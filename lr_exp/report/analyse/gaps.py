"""The expertise gap of a pair: the expert's accuracy minus the amateur's on one benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import RERUN, SEPARATE, differences, machine
from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts, independent_difference
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Gap


@dataclass(frozen=True)
class PairGap:
    """Both models of a pair on the same questions with the same decoder."""

    benchmark: str
    decoder: str
    expert: Estimate
    amateur: Estimate
    difference: Estimate
    note: str | None = None  # a warning about runs with another result


def measured_gap(runs: Sequence[Run]) -> PairGap | None:
    """The gap on the first benchmark of the settings; None if it was not measured.

    It does not depend on a run's seed (sampling for the gap has a fixed seed), so all runs have the
    same gap and it is counted once.

    Raises:
        UserError: runs on the same machine disagree, or used different decoders or benchmarks.
    """
    measured = [(run, run.evaluate.gap) for run in runs if run.evaluate.gap]
    if not measured:
        return None
    first, gap = measured[0]
    gaps = {run.name: own for run, own in measured}
    pair = f"the expertise gap of {first.expert} and {first.amateur}"

    def way(run: Run) -> dict[str, str]:
        own = gaps[run.name]
        return {"way": f"{own.decoder or 'greedy'} on {_benchmark(run, own)}"}

    def accuracies(run: Run) -> dict[str, str]:
        results = {"expert": gaps[run.name].expert, "amateur": gaps[run.name].amateur}
        counts = {who: own[benchmark] for who, own in results.items()}
        return {who: f"{one.correct}/{one.total}" for who, one in counts.items()}

    for found in differences([run for run, _ in measured], way):
        raise UserError(f"{pair} was measured in different ways: {found['way']}. {SEPARATE}.")
    benchmark, decoder = _benchmark(first, gap), gap.decoder or "greedy"
    note = None
    for run, _ in measured[1:]:
        for found in differences([first, run], accuracies):
            who, counts = next(iter(found.items()))
            reason = (
                f"the {decoder} accuracy of the {who} in {pair} on {benchmark} differs between "
                f"runs: {counts}"
            )
            if machine(first) == machine(run):
                raise UserError(f"{reason}. {RERUN}")
            note = f"Warning: {reason}, on another machine or version; {first.name} is shown."
    expert, amateur = (
        accuracy_from_counts([one.correct / one.total], one.total)
        for one in (gap.expert[benchmark], gap.amateur[benchmark])
    )
    difference = independent_difference(expert, amateur)
    return PairGap(benchmark, decoder, expert, amateur, difference, note)


def _benchmark(run: Run, gap: Gap) -> str:
    """The first benchmark of the settings that both models were measured on."""
    for name in run.benchmarks:
        if name in gap.expert and name in gap.amateur:
            return name
    raise UserError(f"{run.name}: evaluate.gap has no benchmark that both models answered.")

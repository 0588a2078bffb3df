"""The expertise gap of a pair: the expert's accuracy minus the amateur's on one benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import SEPARATE, check_agree, counts, differences
from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts, independent_difference
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Nats, Results


@dataclass(frozen=True)
class PairGap:
    """Both models of a pair on the same questions with the same decoder."""

    benchmark: str
    decoder: str
    expert: Estimate
    amateur: Estimate
    difference: Estimate
    nats: Nats | None  # log-likelihoods of reference solutions
    notes: tuple[str, ...]  # warnings about runs with another result


def measured_gap(runs: Sequence[Run]) -> PairGap | None:
    """The gap on the first benchmark of the settings; None if it was not measured.

    It does not depend on a run's seed (sampling for the gap has a fixed seed), so all runs have the
    same gap and it is counted once.

    Raises UserError if runs on one machine disagree, or used different decoders or benchmarks.
    """
    measured = [run for run in runs if run.evaluate.gap]
    if not measured:
        return None
    pair = f"the expertise gap of {measured[0].expert} and {measured[0].amateur}"
    decoder, benchmark, results = _results(measured[0])
    if found := differences(measured, lambda run: {"way": " on ".join(_results(run)[:2])}):
        raise UserError(f"{pair} was measured in different ways: {found['way']}. {SEPARATE}.")
    what = f"{pair} ({decoder} on {benchmark})"
    notes = check_agree(what, measured, lambda run: counts(_results(run)[2]))
    expert, amateur = map(accuracy_from_counts, results.values())
    difference = independent_difference(expert, amateur)
    gap = measured[0].evaluate.gap
    nats = gap.nats if gap else None
    return PairGap(benchmark, decoder, expert, amateur, difference, nats, tuple(notes))


def _results(run: Run) -> tuple[str, str, Results]:
    """The decoder, the first benchmark of the settings with both models' results, and these."""
    gap = run.evaluate.gap
    for name in run.benchmarks:
        if gap and name in gap.expert and name in gap.amateur:
            results = {"expert": gap.expert[name], "amateur": gap.amateur[name]}
            return gap.decoder or "greedy", name, results
    raise UserError(f"{run.name}: evaluate.gap has no benchmark that both models answered.")

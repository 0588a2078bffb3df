"""The expertise gap of a pair: the expert's accuracy minus the amateur's on one benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import SEPARATE, check_agree, counts, differences
from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts, independent_difference
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Gap, Nats


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
    gaps = {run.name: run.evaluate.gap for run in runs if run.evaluate.gap}
    measured = [run for run in runs if run.name in gaps]
    if not measured:
        return None
    pair = f"the expertise gap of {measured[0].expert} and {measured[0].amateur}"

    def way(run: Run) -> dict[str, str]:
        gap = gaps[run.name]
        return {"way": f"{gap.decoder or 'greedy'} on {_benchmark(run, gap)}"}

    def counted(run: Run) -> dict[str, str]:
        models = {"expert": gaps[run.name].expert, "amateur": gaps[run.name].amateur}
        return {who: counts(results)[benchmark] for who, results in models.items()}

    if found := differences(measured, way):
        raise UserError(f"{pair} was measured in different ways: {found['way']}. {SEPARATE}.")
    gap = gaps[measured[0].name]
    benchmark, decoder = _benchmark(measured[0], gap), gap.decoder or "greedy"
    notes = check_agree(f"{pair} ({decoder} on {benchmark})", measured, counted)
    expert, amateur = (accuracy_from_counts(one[benchmark]) for one in (gap.expert, gap.amateur))
    difference = independent_difference(expert, amateur)
    return PairGap(benchmark, decoder, expert, amateur, difference, gap.nats, tuple(notes))


def _benchmark(run: Run, gap: Gap) -> str:
    """The first benchmark of the settings that both models were measured on."""
    for name in run.benchmarks:
        if name in gap.expert and name in gap.amateur:
            return name
    raise UserError(f"{run.name}: evaluate.gap has no benchmark that both models answered.")

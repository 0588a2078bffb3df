"""The expertise gap of a pair: the expert's accuracy minus the amateur's on one benchmark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.errors import UserError
from lr_exp.report import check
from lr_exp.report.paired import Estimate, accuracy_from_counts, independent_difference
from lr_exp.report.runs import Run
from lr_exp.report.summary import Gap


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
    pair = f"{first.expert} and {first.amateur}"
    ways = {(_benchmark(run, own), own.decoder or "greedy") for run, own in measured}
    if len(ways) > 1:
        listed = " and ".join(sorted(f"{decoder} on {name}" for name, decoder in ways))
        raise UserError(
            f"the expertise gap of {pair} was measured in different ways ({listed}), as in "
            f"{first.name} and {measured[-1][0].name}. Report their folders separately."
        )
    ((benchmark, decoder),) = ways
    shares = _shares(gap, benchmark)
    note = None
    for run, own in measured[1:]:
        for who, share, other in zip(
            ("expert", "amateur"), shares, _shares(own, benchmark), strict=True
        ):
            if math.isclose(other, share):
                continue
            differs = (
                f"the {decoder} accuracy of the {who} in the expertise gap of {pair} on "
                f"{benchmark} differs between runs: {share:.4f} in {first.name}, {other:.4f} in "
                f"{run.name}"
            )
            if check.machine(first) == check.machine(run):
                raise UserError(
                    f"{differs}. Report their folders separately, or run one of them again."
                )
            note = f"Warning: {differs}, on another machine or version; {first.name} is shown."
    total = gap.expert[benchmark].total
    expert, amateur = (accuracy_from_counts([share], total) for share in shares)
    difference = independent_difference(expert, amateur)
    return PairGap(benchmark, decoder, expert, amateur, difference, note)


def _benchmark(run: Run, gap: Gap) -> str:
    """The first benchmark of the settings that both models were measured on."""
    for name in run.benchmarks:
        if name in gap.expert and name in gap.amateur:
            return name
    raise UserError(f"{run.name}: evaluate.gap has no benchmark that both models answered.")


def _shares(gap: Gap, benchmark: str) -> tuple[float, float]:
    expert, amateur = gap.expert[benchmark], gap.amateur[benchmark]
    return expert.correct / expert.total, amateur.correct / amateur.total

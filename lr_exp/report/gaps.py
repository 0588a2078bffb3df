"""The expertise gap of a pair: the expert's accuracy minus the amateur's on one benchmark.

Knows runs; knows nothing of layouts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.errors import UserError
from lr_exp.report import check
from lr_exp.report.paired import Estimate, accuracy_from_counts, independent_difference
from lr_exp.report.runs import Run


@dataclass(frozen=True)
class Gap:
    """Both models of a pair, measured in the same way on the same questions."""

    benchmark: str
    decoder: str
    expert: Estimate
    amateur: Estimate
    difference: Estimate
    note: str | None = None  # on runs that disagree for a reason


def measured_gap(runs: Sequence[Run]) -> Gap | None:
    """The gap on the first benchmark of the list; None where it was not measured.

    It does not depend on a run's seed (a sampled gap is one draw for all runs), so it is the same
    in each and counted once.

    Raises:
        UserError: runs of one machine disagree, or runs measured the gap in different ways.
    """
    runs = [run for run in runs if run.part("evaluate").get("gap")]
    if not runs:
        return None
    told = {
        (run.part("evaluate")["gap"].get("decoder") or "greedy", _benchmark(run)) for run in runs
    }
    if len(told) > 1:
        ways = " and ".join(sorted(f"{decoder} on {name}" for decoder, name in told))
        raise UserError(
            f"the expertise gap of {runs[0].expert} and {runs[0].amateur} was measured in "
            f"different ways ({ways}), as in {runs[0].name} and {runs[-1].name}. Report their "
            "folders apart."
        )
    ((decoder, benchmark),) = told
    first = runs[0]
    shares = {who: _share(first, who, benchmark) for who in ("expert", "amateur")}
    note = None
    for run in runs[1:]:
        for who, share in shares.items():
            other = _share(run, who, benchmark)
            if math.isclose(other, share):
                continue
            told = (
                f"the {decoder} accuracy of the {who} in the expertise gap of {first.expert} and "
                f"{first.amateur} on {benchmark} differs between runs: {share:.4f} in "
                f"{first.name}, {other:.4f} in {run.name}"
            )
            if check.machine(first) == check.machine(run):
                raise UserError(f"{told}. Report their folders apart, or run one of them again.")
            note = f"Warning: {told}, on another machine or version; that of {first.name} is shown."
    total = _gap(first)["expert"][benchmark]["total"]
    expert = accuracy_from_counts([shares["expert"]], total)
    amateur = accuracy_from_counts([shares["amateur"]], total)
    difference = independent_difference(expert, amateur)
    return Gap(benchmark, decoder, expert, amateur, difference, note)


def _gap(run: Run) -> dict:
    return run.part("evaluate")["gap"]


def _benchmark(run: Run) -> str:
    """The first benchmark of the run's list that both models were measured on."""
    both = [name for name in _gap(run).get("expert", {}) if name in _gap(run).get("amateur", {})]
    for name in run.benchmarks:
        if name in both:
            return name
    raise UserError(f"{run.name}: evaluate.gap has no benchmark that both models answered.")


def _share(run: Run, who: str, benchmark: str) -> float:
    result = _gap(run)[who][benchmark]
    return result["correct"] / result["total"]

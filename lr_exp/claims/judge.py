"""Estimates what claims are about from the rows of a report, and judges them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from lr_exp.claims.declared import Claim
from lr_exp.errors import UserError
from lr_exp.report.analyse.accuracies import gain_of
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.controls import controls
from lr_exp.report.analyse.costs import costs
from lr_exp.report.analyse.gaps import measured_gap
from lr_exp.report.analyse.paired import Estimate, Interval, average, difference
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import is_micro
from lr_exp.report.tables.cell import scaled

SUPPORTED, REFUTED, UNDERPOWERED = "supported", "refuted", "underpowered"
NO_RUNS, NOT_JUDGED = "no runs", "not judged"


@dataclass(frozen=True)
class Finding:
    """A claim about one expert, in points or, of a ratio, percent."""

    expert: str
    verdict: str
    value: float | None = None
    low: float | None = None  # of the 95 % interval over questions and, of several seeds, seeds
    high: float | None = None
    seeds: int | None = None
    reason: str = ""  # why it was not judged


def verdict_of(interval: Interval, region: Interval) -> str:
    """Supported if the region has all of the interval, refuted if it has none of it."""
    (low, high), (lowest, highest) = interval, region
    if lowest <= low and high <= highest:
        return SUPPORTED
    return REFUTED if high < lowest or low > highest else UNDERPOWERED


def overall(findings: Sequence[Finding]) -> str:
    """The verdict on a claim about every expert: one refutes it, all support it."""
    verdicts = {one.verdict for one in findings} or {NO_RUNS}
    return min(verdicts, key=[REFUTED, NOT_JUDGED, UNDERPOWERED, SUPPORTED, NO_RUNS].index)


def judge(claim: Claim, world: str, sweep: Sweep) -> list[Finding]:
    """One finding for each expert; empty if the sweep has no runs of this world's models."""

    def is_of_world(row: Row) -> bool:
        models = row.setup.expert, row.setup.amateur
        return is_micro(*models, *sweep.benchmarks) == (world == "micro")

    ours, theirs = (
        {key: one[world] if isinstance(one, dict) else one for key, one in choices.items()}
        for choices in (claim.ours, claim.theirs)
    )
    findings = []
    rows = grouped(filter(is_of_world, sweep.rows), lambda row: row.setup.expert)
    for expert, own in rows.items():
        try:
            found = _ESTIMATES[claim.kind](claim, replace(sweep, rows=own), ours, theirs)
        except UserError as reason:
            findings.append(Finding(expert, NOT_JUDGED, reason=str(reason).rstrip(".")))
            continue
        value, low, high = map(scaled, (found.mean, *_interval(claim, found)))
        verdict = verdict_of((low, high), claim.region)
        findings.append(Finding(expert, verdict, value, low, high, found.seeds))
    return findings


def _interval(claim: Claim, found: Estimate) -> Interval:
    if claim.kind != "ratio":
        return found.ci95
    if claim.cost == "hours" and found.seeds == 1:  # varies, unlike counts
        return 0.0, inf
    return found.seeds_ci95 or (found.mean, found.mean)


def _difference(_: Claim, sweep: Sweep, ours: dict[str, Any], theirs: dict[str, Any]) -> Estimate:
    """The difference of the averages at the headline prompt; against `baseline`, the gain."""
    first, second = _row(sweep, ours), _row(sweep, theirs)
    found = gain_of(first.results, second.results, sweep.benchmarks)
    if found is None:
        raise UserError(f"{first.label} or {second.label} lacks results of a benchmark")
    return found


def _slope(_: Claim, sweep: Sweep, ours: dict[str, Any], __: dict[str, Any]) -> Estimate:
    """The gain of pairs with a wide expertise gap minus that of pairs with a narrow one.

    A pair's weight is the distance of its gap in points from the mean gap, so that the sign is that
    of the least-squares slope of gain against gap. Gaps count as exact.
    """
    found = [(row, gap) for row in _rows(sweep, ours) if (gap := measured_gap(row.runs))]
    gaps = np.array([gap.difference.mean for _, gap in found])
    if len({*gaps}) < 2:
        raise UserError("a slope needs two pairs with different gaps (evaluator.gap)")
    distances = gaps - gaps.mean()
    sides = [side / side.sum() for side in (distances.clip(0), -distances.clip(max=0))]
    parts = []
    for name in sweep.benchmarks:
        graded = [one for row, _ in found if (one := row.results.graded.get(name))]
        if len(graded) < len(found) or len({(one.ids, len(one.correct)) for one in graded}) > 1:
            raise UserError(f"the pairs have other questions or numbers of seeds on {name}")
        correct = np.array([one.correct for one in graded])
        parts.append(difference(*(np.tensordot(side, correct, 1) for side in sides)))
    return average(parts)


def _control(_: Claim, sweep: Sweep, ours: dict[str, Any], __: dict[str, Any]) -> Estimate:
    """A control minus LightReasoner, each at the learning rate chosen on other questions."""
    for one in controls(sweep):
        if one.against_lightreasoner and _has(one.rows[0], ours):
            return one.against_lightreasoner
    raise UserError(f"the table of controls has no {', '.join(map(str, ours.values()))}")


def _ratio(claim: Claim, sweep: Sweep, ours: dict[str, Any], theirs: dict[str, Any]) -> Estimate:
    """The ratio of two mean costs; by seed, its linearization, whose mean is the ratio."""
    rows = _row(sweep, ours), _row(sweep, theirs)
    each = [[costs([run])[claim.cost or ""] for run in row.runs] for row in rows]
    if len(each[0]) != len(each[1]) or None in (*each[0], *each[1]) or not any(each[1]):
        raise UserError(f"{claim.cost} is not recorded for the same number of seeds")
    above, below = np.array(each, dtype=float)
    ratio = float(above.mean() / below.mean())
    by_seed = (ratio + (above - ratio * below) / below.mean()).round(12)
    return Estimate(tuple(by_seed.tolist()), 0, 0.0, (ratio, ratio), 0.0)


_ESTIMATES = {"difference": _difference, "slope": _slope, "control": _control, "ratio": _ratio}


def _has(row: Row, choices: dict[str, Any]) -> bool:
    return all(getattr(row.setup, key) == value for key, value in choices.items())


def _rows(sweep: Sweep, choices: dict[str, Any]) -> list[Row]:
    return [row for row in sweep.rows if row.results.accuracies and _has(row, choices)]


def _row(sweep: Sweep, choices: dict[str, Any]) -> Row:
    found = _rows(sweep, choices)
    if len(found) != 1:
        listed = ", ".join(f"{key} {value}" for key, value in choices.items())
        raise UserError(f"{len(found)} rows have {listed}; the claim needs one")
    return found[0]

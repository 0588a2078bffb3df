"""Methods at the learning rate that is best on other questions, compared with LightReasoner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lr_exp.report.analyse.accuracies import read_graded
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.decomposition import forced_correct, is_strict
from lr_exp.report.analyse.paired import (
    Correct,
    Estimate,
    average,
    difference,
    holm,
    sign_flips,
)
from lr_exp.report.analyse.prompts import between_best_prompts, halves_of, with_best_prompt
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.read.run import AnswersMissingError, Run

REFERENCE = "lightreasoner"


@dataclass(frozen=True)
class Control:
    """A method's gains, averaged over benchmarks."""

    rows: list[Row]  # one per learning rate
    rates: list[str]  # that were chosen
    same_prompt: Estimate
    best_prompt: Estimate | None  # None with a single prompt
    latent: Estimate | None  # None where no answers were forced; see `Decomposition`
    format: Estimate | None
    accuracies: dict[str, Correct]  # of the tuned expert, by benchmark
    # This method minus LightReasoner, and the p-value of the permutation test with Holm's
    # correction for the number of methods; None for LightReasoner.
    against: Estimate | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class _Answers:
    """One model's answers to a benchmark, (seeds, questions) each."""

    by_prompt: dict[str, Correct]  # the headline first
    # To the headline prompt, with forced answers; None where none were forced.
    strict: Correct | None
    forced: Correct | None


def controls(sweep: Sweep) -> list[Control]:
    """All methods that share LightReasoner's expert and seeds; empty if the sweep is no comparison.

    It is one if LightReasoner and another method were trained at several learning rates. The rate
    is chosen as a prompt is: for each half of the questions, by the accuracy on the other half.
    """
    trained = [row for row in sweep.rows if not row.is_baseline and row.runs]
    groups = [*grouped(trained, lambda row: replace(row.setup, learning_rate=None)).values()]
    reference = [own for own in groups if own[0].setup.method == REFERENCE and len(own) > 1]
    if len(reference) != 1 or len(groups) == 1:
        return []
    expert, seeds = reference[0][0].setup.expert, _seeds(reference[0])
    found = [
        control
        for own in groups
        if own[0].setup.expert == expert and _seeds(own) == seeds
        if (control := _control(own, seeds, sweep.benchmarks)) is not None
    ]
    return _against_reference(found)


def _seeds(rows: Sequence[Row]) -> list[int]:
    """The seeds that were run at every learning rate."""
    return sorted(set.intersection(*({run.seed for run in row.runs} for row in rows)))


def _control(rows: list[Row], seeds: list[int], benchmarks: Sequence[str]) -> Control | None:
    """None where graded answers are missing; the list of runs says which."""
    runs = {f"{_rate(row):g}": [run for run in row.runs if run.seed in seeds] for row in rows}
    gains: dict[str, list[Estimate]] = {"same": [], "best": [], "latent": [], "format": []}
    rates: dict[str, None] = {}
    accuracies = {}
    for benchmark in benchmarks:
        try:
            sources = [(run, "expert") for run in next(iter(runs.values()))]
            before, ids = _answers(sources, benchmark)
            after = {
                rate: _answers([(run, run.final_model) for run in own], benchmark)[0]
                for rate, own in runs.items()
            }
        except AnswersMissingError:
            return None
        headline = next(iter(before.by_prompt))
        scores = {rate: one.by_prompt[headline] for rate, one in after.items()}
        same = between_best_prompts({headline: before.by_prompt[headline]}, scores, ids)
        gains["same"].append(same.gain)
        accuracies[benchmark] = same.tuned
        halves = halves_of(ids)
        rates |= dict.fromkeys(with_best_prompt(scores, halves)[1])
        if len(before.by_prompt) > 1:
            candidates = {
                f"{rate}, {prompt}": correct
                for rate, one in after.items()
                for prompt, correct in one.by_prompt.items()
            }
            gains["best"].append(between_best_prompts(before.by_prompt, candidates, ids).gain)
        strict = {rate: one.strict for rate, one in after.items() if one.strict is not None}
        forced = {rate: one.forced for rate, one in after.items() if one.forced is not None}
        if before.strict is None or before.forced is None or len(forced) < len(after):
            continue
        latent = with_best_prompt(scores, halves, forced)[0]
        rest = with_best_prompt(scores, halves, strict)[0] - latent
        gains["latent"].append(difference(latent, before.forced))
        gains["format"].append(difference(rest, before.strict - before.forced))

    def mean(name: str) -> Estimate | None:
        return average(gains[name]) if len(gains[name]) == len(benchmarks) else None

    return Control(
        rows,
        [*rates],
        average(gains["same"]),
        mean("best"),
        mean("latent"),
        mean("format"),
        accuracies,
    )


def _rate(row: Row) -> float:
    return row.setup.learning_rate or 0.0


def _answers(
    sources: Sequence[tuple[Run, str]], benchmark: str
) -> tuple[_Answers, tuple[str, ...]]:
    """The answers, and the questions' ids in their order."""
    prompts = sources[0][0].prompts
    graded = {prompt: read_graded(sources, benchmark, prompt) for prompt in prompts}
    ids = next(iter(graded.values())).ids
    strict, forced = [], []
    for run, who in sources:
        if (made := run.forced_records(who, benchmark)) is not None:
            records = {one["id"]: one for one in run.records(who, benchmark)}
            own = [records[key] for key in ids]
            strict.append([is_strict(one) for one in own])
            forced.append(forced_correct(own, made))
    is_complete = len(forced) == len(sources)
    return _Answers(
        {prompt: one.correct for prompt, one in graded.items()},
        np.array(strict, dtype=float) if is_complete else None,
        np.array(forced, dtype=float) if is_complete else None,
    ), ids


def _against_reference(found: list[Control]) -> list[Control]:
    reference = next((one for one in found if one.rows[0].setup.method == REFERENCE), None)
    if reference is None:
        return []
    others = [one for one in found if one is not reference]
    shifts = [
        {name: own - reference.accuracies[name] for name, own in one.accuracies.items()}
        for one in others
    ]
    p_values = [
        sign_flips(np.concatenate([own.mean(axis=0) / own.shape[1] for own in shift.values()]))
        for shift in shifts
    ]
    compared = [
        replace(
            one,
            against=average(
                [difference(one.accuracies[n], reference.accuracies[n]) for n in one.accuracies]
            ),
            p_holm=p,
        )
        for one, p in zip(others, holm(p_values), strict=True)
    ]
    return [reference, *compared]

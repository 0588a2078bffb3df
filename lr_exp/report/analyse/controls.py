"""Methods at the learning rate that is best on other questions, compared with LightReasoner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lr_exp.report.analyse.accuracies import read_graded
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.decomposition import strict_and_forced
from lr_exp.report.analyse.paired import Correct, Estimate, average, difference, holm, t_test
from lr_exp.report.analyse.prompts import between_best_prompts, halves_of, with_best_prompt
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.read.run import AnswersMissingError, Run

REFERENCE = "lightreasoner"


@dataclass(frozen=True)
class Control:
    """A method's gains, averaged over benchmarks."""

    rows: list[Row]  # one per learning rate
    rates: list[str]  # that were chosen
    # Of the tuned expert with the headline prompt, by benchmark and rate, and the questions' ids.
    scores: dict[str, tuple[dict[str, Correct], tuple[str, ...]]]
    gain: Estimate  # with the same prompt
    gain_best_prompts: Estimate | None  # None with a single prompt
    latent: Estimate | None  # None where no answers were forced; see `Decomposition`
    format: Estimate | None
    # This method minus LightReasoner, and the p-value of `t_test` with Holm's correction for the
    # number of methods; None for LightReasoner, and no p-value with one seed.
    against_lightreasoner: Estimate | None = None
    p_holm: float | None = None

    @property
    def method(self) -> str | None:
        return self.rows[0].setup.method

    @property
    def at_edge(self) -> bool:
        """Whether the lowest or highest learning rate was chosen: a better one may lie beyond."""
        tried = rates_of(self.rows)
        return not {tried[0], tried[-1]}.isdisjoint(self.rates)


@dataclass(frozen=True)
class _Answers:
    """One model's answers to a benchmark, (seeds, questions) each."""

    ids: tuple[str, ...]
    by_prompt: dict[str, Correct]  # the headline first
    # Of the answers to the headline prompt; without keys where none were forced.
    parts: dict[str, Correct]


def controls(sweep: Sweep) -> list[Control]:
    """All methods that share LightReasoner's expert and seeds; empty if the sweep is no comparison.

    It is one if LightReasoner and another method were trained at several learning rates. The rate
    is chosen as a prompt is: by the accuracy on the other half of the questions and other seeds.
    Methods with other learning rates or seeds than LightReasoner are left out.
    """
    trained = [row for row in sweep.rows if not row.is_baseline and row.runs]
    groups = [*grouped(trained, lambda row: replace(row.setup, learning_rate=None)).values()]
    reference = [own for own in groups if own[0].setup.method == REFERENCE and len(own) > 1]
    if len(reference) != 1 or len(groups) == 1:
        return []
    (ours,) = reference
    expert, seeds, tried = ours[0].setup.expert, _seeds(ours), rates_of(ours)
    found = [
        control
        for own in groups
        if (own[0].setup.expert, _seeds(own), rates_of(own)) == (expert, seeds, tried)
        if (control := _control(own, seeds, sweep.benchmarks)) is not None
    ]
    return _against_reference(found)


def rates_of(rows: Sequence[Row]) -> list[str]:
    """The learning rates of these rows, ascending."""
    return [f"{rate:g}" for rate in sorted(row.setup.learning_rate or 0.0 for row in rows)]


def _seeds(rows: Sequence[Row]) -> list[int]:
    """The seeds that were run at every learning rate."""
    return sorted(set.intersection(*({run.seed for run in row.runs} for row in rows)))


def _control(rows: list[Row], seeds: list[int], benchmarks: Sequence[str]) -> Control | None:
    """None where graded answers are missing; the list of runs says which."""
    runs = {rates_of([row])[0]: [run for run in row.runs if run.seed in seeds] for row in rows}
    gains: dict[str, list[Estimate]] = {}
    rates: dict[str, None] = {}
    all_scores = {}
    for benchmark in benchmarks:
        try:
            before = _answers([(run, "expert") for run in next(iter(runs.values()))], benchmark)
            after = {
                rate: _answers([(run, run.final_model) for run in own], benchmark)
                for rate, own in runs.items()
            }
        except AnswersMissingError:
            return None
        headline, ids = next(iter(before.by_prompt)), before.ids
        scores = {rate: one.by_prompt[headline] for rate, one in after.items()}
        same = between_best_prompts({headline: before.by_prompt[headline]}, scores, ids)
        found = {"gain": same.gain}
        all_scores[benchmark] = scores, ids
        rates |= dict.fromkeys(same.chosen["tuned_prompts"])
        if len(before.by_prompt) > 1:
            candidates = {
                f"{rate}, {prompt}": correct
                for rate, one in after.items()
                for prompt, correct in one.by_prompt.items()
            }
            best = between_best_prompts(before.by_prompt, candidates, ids)
            found["gain_best_prompts"] = best.gain
        for part, untuned in before.parts.items():
            if all(part in one.parts for one in after.values()):
                own = {rate: one.parts[part] for rate, one in after.items()}
                found[part] = difference(with_best_prompt(scores, halves_of(ids), own)[0], untuned)
        for name, one in found.items():
            gains.setdefault(name, []).append(one)

    def mean(name: str) -> Estimate | None:
        own = gains.get(name, [])
        return average(own) if len(own) == len(benchmarks) else None

    best, latent, form = (mean(name) for name in ("gain_best_prompts", "latent", "format"))
    return Control(rows, [*rates], all_scores, average(gains["gain"]), best, latent, form)


def _answers(sources: Sequence[tuple[Run, str]], benchmark: str) -> _Answers:
    graded = {prompt: read_graded(sources, benchmark, prompt) for prompt in sources[0][0].prompts}
    ids = next(iter(graded.values())).ids
    both = []
    for run, who in sources:
        if (made := run.forced_records(who, benchmark)) is not None:
            records = {one["id"]: one for one in run.records(who, benchmark)}
            both.append(strict_and_forced([records[key] for key in ids], made))
    by_prompt = {prompt: one.correct for prompt, one in graded.items()}
    if len(both) < len(sources):
        return _Answers(ids, by_prompt, {})
    strict, forced = np.array(both, dtype=float).swapaxes(0, 1)
    return _Answers(ids, by_prompt, {"latent": forced, "format": strict - forced})


def _against_reference(found: list[Control]) -> list[Control]:
    reference = next((one for one in found if one.method == REFERENCE), None)
    if reference is None:
        return []
    others = [one for one in found if one is not reference]
    shifts = [
        average(
            [
                between_best_prompts(reference.scores[name][0], own, ids).gain
                for name, (own, ids) in one.scores.items()
            ]
        )
        for one in others
    ]
    p_values = [p for shift in shifts if (p := t_test(shift)) is not None]
    corrected = holm(p_values) if len(p_values) == len(shifts) else [None] * len(shifts)
    compared = zip(others, shifts, corrected, strict=True)
    return [
        reference,
        *(replace(one, against_lightreasoner=shift, p_holm=p) for one, shift, p in compared),
    ]

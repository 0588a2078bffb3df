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


# Correctness of the tuned expert's answers to the headline prompt, by benchmark and learning rate.
_Scores = dict[str, dict[str, Correct]]


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
    first = _control(ours, seeds, sweep.benchmarks, {})
    if first is None:
        return []
    lightreasoner, scores = first
    others = [
        made[0]
        for own in groups
        if own is not ours
        and (own[0].setup.expert, _seeds(own), rates_of(own)) == (expert, seeds, tried)
        and (made := _control(own, seeds, sweep.benchmarks, scores)) is not None
    ]
    tested = (t_test(one.against_lightreasoner) for one in others if one.against_lightreasoner)
    p_values = [p for p in tested if p is not None]
    if len(p_values) == len(others):
        pairs = zip(others, holm(p_values), strict=True)
        others = [replace(one, p_holm=p) for one, p in pairs]
    return [lightreasoner, *others]


def rates_of(rows: Sequence[Row]) -> list[str]:
    """The learning rates of these rows, each once, ascending."""
    rates = {row.setup.learning_rate for row in rows}
    return [f"{rate:g}" for rate in sorted(rate for rate in rates if rate is not None)]


def _seeds(rows: Sequence[Row]) -> list[int]:
    """The seeds that were run at every learning rate."""
    return sorted(set.intersection(*({run.seed for run in row.runs} for row in rows)))


def _control(
    rows: list[Row], seeds: list[int], benchmarks: Sequence[str], reference: _Scores
) -> tuple[Control, _Scores] | None:
    """A method and its scores; None where graded answers are missing (the list of runs says which).

    Args:
        reference: LightReasoner's scores; empty for LightReasoner itself.
    """
    runs = {rates_of([row])[0]: [run for run in row.runs if run.seed in seeds] for row in rows}
    gains: dict[str, list[Estimate]] = {}
    rates: dict[str, None] = {}
    all_scores: _Scores = {}
    for benchmark in benchmarks:
        try:
            sources = [(run, "expert") for run in next(iter(runs.values()))]
            before, untuned_parts, ids = _answers(sources, benchmark)
            after = {
                rate: _answers([(run, run.final_model) for run in own], benchmark)
                for rate, own in runs.items()
            }
        except AnswersMissingError:
            return None
        headline = next(iter(before))
        scores = {rate: by_prompt[headline] for rate, (by_prompt, _, _) in after.items()}
        same = between_best_prompts({headline: before[headline]}, scores, ids)
        found = {"gain": same.gain}
        all_scores[benchmark] = scores
        rates |= dict.fromkeys(same.chosen["tuned_prompts"])
        if reference:
            found["against"] = between_best_prompts(reference[benchmark], scores, ids).gain
        if len(before) > 1:
            candidates = {
                f"{rate}, {prompt}": correct
                for rate, (by_prompt, _, _) in after.items()
                for prompt, correct in by_prompt.items()
            }
            found["gain_best_prompts"] = between_best_prompts(before, candidates, ids).gain
        for part, untuned in untuned_parts.items():
            if all(part in parts for _, parts, _ in after.values()):
                own = {rate: parts[part] for rate, (_, parts, _) in after.items()}
                found[part] = difference(with_best_prompt(scores, halves_of(ids), own)[0], untuned)
        for name, one in found.items():
            gains.setdefault(name, []).append(one)

    def mean(name: str) -> Estimate | None:
        own = gains.get(name, [])
        return average(own) if len(own) == len(benchmarks) else None

    names = ("gain_best_prompts", "latent", "format", "against")
    best, latent, form, against = map(mean, names)
    gain = average(gains["gain"])
    return Control(rows, [*rates], gain, best, latent, form, against), all_scores


def _answers(
    sources: Sequence[tuple[Run, str]], benchmark: str
) -> tuple[dict[str, Correct], dict[str, Correct], tuple[str, ...]]:
    """One model's answers to a benchmark.

    Returns:
        Correctness, (seeds, questions), by prompt, the headline first; the same of the parts of
        strict accuracy with the headline prompt, empty where no answers were forced; the
        questions' ids.
    """
    graded = {prompt: read_graded(sources, benchmark, prompt) for prompt in sources[0][0].prompts}
    ids = next(iter(graded.values())).ids
    by_prompt = {prompt: one.correct for prompt, one in graded.items()}
    both = []
    for run, who in sources:
        if (made := run.forced_records(who, benchmark)) is None:
            return by_prompt, {}, ids
        records = run.answers(who, benchmark)
        both.append(strict_and_forced([records[key] for key in ids], made))
    strict, forced = np.array(both, dtype=float).swapaxes(0, 1)
    return by_prompt, {"latent": forced, "format": strict - forced}, ids

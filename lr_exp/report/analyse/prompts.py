"""Gains between the best prompts of each model, chosen and scored on different questions."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lr_exp.report.analyse.accuracies import read_graded
from lr_exp.report.analyse.paired import Z95, Correct, Estimate, accuracy, average, difference
from lr_exp.report.names import AVERAGE
from lr_exp.report.read.run import AnswersMissingError, Run
from lr_exp.report.read.summary import Gains, PairedGain, Shrinkage

BEST = "best of each"  # in place of a prompt: each model's own best one
RESAMPLES = 500  # of the bootstrap over questions


@dataclass(frozen=True)
class BestPrompts:
    """Both models with the prompts that are best for them; see `with_best_prompt`."""

    expert: Correct
    tuned: Correct
    gain: Estimate
    shrinkage: Estimate  # the gain with the headline prompt minus this one
    chosen: dict[str, list[str]]  # the fields of `PairedGain`


@dataclass(frozen=True)
class PromptGain:
    """Accuracies with a prompt before and after tuning."""

    before: Estimate
    after: Estimate
    gain: Estimate
    smaller_by: Estimate | None = None  # of BEST: the gain with the headline prompt minus `gain`


def halves_of(ids: Sequence[str]) -> NDArray[np.bool_]:
    """(8, questions): whether a question is in the second half, in 8 ways, by bits of its hash."""
    first_bytes = b"".join(hashlib.sha256(one.encode()).digest()[:1] for one in ids)
    return np.unpackbits(np.frombuffer(first_bytes, np.uint8)).reshape(-1, 8).T == 1


def with_best_prompt(
    by_prompt: Mapping[str, Correct],
    halves: NDArray[np.bool_],
    values: Mapping[str, Correct] | None = None,
) -> tuple[Correct, list[str]]:
    """One model's answers, to each half with the prompt that is best on the other half.

    A prompt chosen on the questions that it is then scored on would look better than it is, and so
    would one chosen on the seed: of several seeds, each is scored with the choice of the others.

    Args:
        by_prompt: correctness, (seeds, questions), by prompt. The first one wins a tie.
        halves: (ways, questions), see `halves_of`.
        values: returned in place of the correctness, by prompt.

    Returns:
        Values, (seeds, questions), averaged over the ways to halve the questions, and the
        prompts that were chosen, the most frequent first.
    """
    values = by_prompt if values is None else values
    best, chosen = np.zeros_like(next(iter(values.values()))), Counter[str]()
    for seed, second, half in product(range(len(best)), halves, (False, True)):
        own = second == half
        tried = {name: _others(one, seed)[:, ~own].sum() for name, one in by_prompt.items()}
        name = max(tried, key=lambda one: tried[one])
        best[seed, own] += values[name][seed, own] / len(halves)
        chosen[name] += 1
    return best, [name for name, _ in chosen.most_common()]


def _others(values: Correct, seed: int) -> Correct:
    """The rows of all other seeds; the only one where there is one."""
    return values if len(values) == 1 else np.delete(values, seed, axis=0)


def between_best_prompts(
    expert: Mapping[str, Correct], tuned: Mapping[str, Correct], ids: Sequence[str]
) -> BestPrompts:
    """The gain between best prompts, from both models' correctness by prompt, the headline first.

    The choice of the prompts depends on the questions too, which the interval of a fixed difference
    leaves out. A bootstrap over questions repeats the choice, and the interval over questions is at
    least 1.96 of its standard errors to each side.
    """
    halves, count = halves_of(ids), len(ids)
    before, expert_prompts = with_best_prompt(expert, halves)
    after, tuned_prompts = with_best_prompt(tuned, halves)
    same = next(iter(tuned.values())) - next(iter(expert.values()))
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    gains = _best_scores(tuned, halves, drawn) - _best_scores(expert, halves, drawn)
    shrunk = drawn @ same.mean(axis=0) / count - gains
    gain = _widened(difference(after, before), gains)
    shrinkage = _widened(difference(same, after - before), shrunk)
    chosen = {"expert_prompts": expert_prompts, "tuned_prompts": tuned_prompts}
    return BestPrompts(before, after, gain, shrinkage, chosen)


def _best_scores(
    by_prompt: Mapping[str, Correct], halves: NDArray[np.bool_], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(resamples,): the accuracy of `with_best_prompt`, averaged over seeds, in each resample.

    Args:
        drawn: (resamples, questions), how often each question was drawn.
    """
    seeds, scores = len(next(iter(by_prompt.values()))), np.zeros(len(drawn))
    for seed in range(seeds):
        scored = np.array([one[seed] for one in by_prompt.values()]).T
        tried = np.array([_others(one, seed).mean(axis=0) for one in by_prompt.values()]).T
        for own in (*halves, *~halves):
            chosen = ((drawn * ~own) @ tried).argmax(axis=1)  # (resamples,) indices of prompts
            scores += ((drawn * own) @ scored)[np.arange(len(drawn)), chosen]
    return scores / len(halves) / seeds / drawn.shape[1]


def _widened(found: Estimate, resampled: NDArray[np.float64]) -> Estimate:
    """An estimate whose interval over questions is at least as wide as the bootstrap's."""
    low, high = found.question_ci95
    more = max(0.0, Z95 * float(resampled.std(ddof=1)) - (high - low) / 2)
    return replace(
        found,
        question_variance=max(found.question_variance, float(resampled.var(ddof=1))),
        question_ci95=(max(-1.0, low - more), min(1.0, high + more)),
    )


def gains_by_prompt(
    runs: Sequence[Run], benchmarks: Sequence[str]
) -> dict[str, dict[str, PromptGain]]:
    """The gains of a row with several prompts, by benchmark, then their average, and by prompt.

    The last prompt is BEST, chosen for each seed on the others. A benchmark without all
    graded answers is left out, and the average with it.
    """
    found = {}
    if len(runs[0].prompts) > 1:
        for benchmark in benchmarks:
            # The list of runs says which answers are missing.
            with suppress(AnswersMissingError, KeyError):
                found[benchmark] = _gains_on(runs, benchmark)
    if 1 < len(found) == len(benchmarks):
        every = [*found.values()]
        found[AVERAGE] = {prompt: _mean([one[prompt] for one in every]) for prompt in every[0]}
    return found


def _gains_on(runs: Sequence[Run], benchmark: str) -> dict[str, PromptGain]:
    prompts = runs[0].prompts
    same = [run for run in runs if run.prompts == prompts]
    of_models = [(run, "expert") for run in same], [(run, run.final_model) for run in same]
    graded = [{one: read_graded(own, benchmark, one) for one in prompts} for own in of_models]
    expert, tuned = ({prompt: one.correct for prompt, one in own.items()} for own in graded)
    best = between_best_prompts(expert, tuned, graded[0][prompts[0]].ids)
    found = {
        one: PromptGain(
            accuracy(expert[one]), accuracy(tuned[one]), difference(tuned[one], expert[one])
        )
        for one in prompts
    }
    found[BEST] = PromptGain(accuracy(best.expert), accuracy(best.tuned), best.gain, best.shrinkage)
    return found


def _mean(of_benchmarks: Sequence[PromptGain]) -> PromptGain:
    by_field = {key: [getattr(one, key) for one in of_benchmarks] for key in vars(of_benchmarks[0])}
    return PromptGain(**{key: average(own) for key, own in by_field.items() if None not in own})


def gains(expert: Mapping[str, Correct], tuned: Mapping[str, Correct], ids: Sequence[str]) -> Gains:
    """The gains on a benchmark, from both models' correctness by prompt, the headline first."""
    headline = next(iter(expert))
    same = paired_gain(tuned[headline], expert[headline])
    if len(expert) == 1:
        return Gains(same_prompt=same)
    best = between_best_prompts(expert, tuned, ids)
    return Gains(
        same_prompt=same,
        best_prompt=paired_gain(best.tuned, best.expert, best.gain, **best.chosen),
        shrinkage=Shrinkage(gain=best.shrinkage.mean, ci95=[*best.shrinkage.ci95]),
    )


def paired_gain(
    ours: Correct, theirs: Correct, found: Estimate | None = None, **prompts: list[str]
) -> PairedGain:
    """The difference, or another estimate of it, and the questions won and lost."""
    found = found or difference(ours, theirs)
    shifts = (ours - theirs).mean(axis=0)
    won, lost = int((shifts > 0.5).sum()), int((shifts < -0.5).sum())
    return PairedGain(gain=found.mean, ci95=[*found.ci95], won=won, lost=lost, **prompts)

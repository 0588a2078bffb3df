"""Gains between the best prompts of each model, chosen and scored on different questions."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lr_exp.report.analyse.paired import Correct, Estimate, average, difference
from lr_exp.report.read.summary import Gains, PairedGain


def halves_of(ids: Sequence[str]) -> NDArray[np.bool_]:
    """(questions,): whether a question is in the second half, by a hash of its id."""
    return np.array([hashlib.sha256(one.encode()).digest()[0] % 2 == 1 for one in ids], dtype=bool)


def with_best_prompt(
    by_prompt: Mapping[str, Correct], halves: NDArray[np.bool_]
) -> tuple[Correct, list[str]]:
    """One model's answers, to each half with the prompt that is best on the other half.

    A prompt chosen on the questions that it is then scored on would look better than it is.

    Args:
        by_prompt: correctness, (seeds, questions), by prompt. The first one wins a tie.
        halves: (questions,), see `halves_of`.

    Returns:
        Correctness, (seeds, questions), and the prompts chosen for the first and the second half.
    """
    best = next(iter(by_prompt.values())).copy()
    chosen = []
    for half in (False, True):
        other, own = halves != half, halves == half
        name = max(by_prompt, key=lambda one: by_prompt[one][:, other].sum())
        best[:, own] = by_prompt[name][:, own]
        chosen.append(name)
    return best, chosen


def gains(expert: Mapping[str, Correct], tuned: Mapping[str, Correct], ids: Sequence[str]) -> Gains:
    """The gains on a benchmark, from both models' correctness by prompt, the headline first."""
    headline = next(iter(expert))
    same = paired_gain(tuned[headline], expert[headline])
    if len(expert) == 1:
        return Gains(same_prompt=same)
    halves = halves_of(ids)
    before, expert_prompts = with_best_prompt(expert, halves)
    after, tuned_prompts = with_best_prompt(tuned, halves)
    best = paired_gain(after, before, expert_prompts=expert_prompts, tuned_prompts=tuned_prompts)
    return Gains(same_prompt=same, best_prompt=best)


def average_gain(found: Sequence[PairedGain]) -> Estimate:
    """The mean gain over benchmarks."""
    return average([Estimate((one.gain,), 0, 0.0, (one.ci95[0], one.ci95[1])) for one in found])


def paired_gain(ours: Correct, theirs: Correct, **prompts: list[str]) -> PairedGain:
    """The difference with its interval, and the questions won and lost."""
    found, shifts = difference(ours, theirs), (ours - theirs).mean(axis=0)
    won, lost = int((shifts > 0).sum()), int((shifts < 0).sum())
    return PairedGain(gain=found.mean, ci95=[*found.ci95], won=won, lost=lost, **prompts)

"""The divergences of a pair: the sampled steps of its runs taken together.

Knows runs; knows nothing of layouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.report import published
from lr_exp.report.names import AMATEURS, EXPERTS, Setup, rank
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Sweep
from lr_exp.report.runs import Run
from lr_exp.report.summary import SampleSummary

MEANS = (
    "share_below_0.1",
    "share_above_0.4",
    "share_same_top1",
    "kl_mean",
    "kl_mean_same_top1",
    "kl_mean_other_top1",
    "expert_entropy_mean",
    "amateur_entropy_mean",
)


@dataclass(frozen=True)
class Profile:
    """All scored steps of a pair, over its seeds."""

    expert: str
    amateur: str | None
    methods: tuple[str, ...]  # that have these steps in common
    betas: tuple[float, ...]
    seeds: int
    steps: int
    means: dict[str, float | None]  # of MEANS, weighted by the steps they are over
    counts: tuple[int, ...]  # steps in each bin; the last one is open
    bin_nats: float
    is_papers: bool  # whether the paper observed this pair, on this data
    differs: tuple[str, ...]  # settings of sampling that the paper has otherwise

    @property
    def label(self) -> str:
        return f"{self.expert} / {self.amateur}"


def profiles(sweep: Sweep) -> list[Profile]:
    """One a pair; methods that sampled in different ways have their own."""
    scored = [run for run in sweep.runs if run.sample.histogram and run.amateur]
    made = []
    for own in grouped(scored, lambda run: (run.expert, run.amateur, run.data)).values():
        # Cells of one seed share their steps, unless their method samples differently.
        alike: list[list[Run]] = []
        for runs in grouped(own, lambda run: run.method).values():
            mates = next((others for others in alike if _same_steps(runs, others)), None)
            if mates is None:
                alike.append(list(runs))
            else:
                mates.extend(runs)
        made += map(_profile, alike)
    return sorted(made, key=lambda one: (rank(one.expert, EXPERTS), rank(one.amateur, AMATEURS)))


def _same_steps(ours: Sequence[Run], theirs: Sequence[Run]) -> bool:
    """Whether the seeds that both have saw the same divergences, and there are such seeds."""
    mine, other = ({run.seed: run.sample.histogram for run in runs} for runs in (ours, theirs))
    both = mine.keys() & other.keys()
    return bool(both) and all(mine[seed] == other[seed] for seed in both)


def _profile(runs: Sequence[Run]) -> Profile:
    seeds = [own[0].sample for own in grouped(runs, lambda run: run.seed).values()]
    histograms = [sample.histogram for sample in seeds if sample.histogram]
    settings = runs[0].settings
    setup = Setup(runs[0].expert, runs[0].method, runs[0].amateur, runs[0].data)
    betas = {beta for run in runs if (beta := run.beta) is not None}
    return Profile(
        runs[0].expert,
        runs[0].amateur,
        tuple(dict.fromkeys(run.method or "imported records" for run in runs)),
        tuple(sorted(betas)),
        len(seeds),
        sum(sample.steps or 0 for sample in seeds),
        {key: _pooled(seeds, key) for key in MEANS},
        tuple(map(sum, zip(*(histogram.counts for histogram in histograms), strict=True))),
        histograms[0].bin_nats,
        published.has_pair(published.papers_own(setup, settings)),
        published.sampling_differences(settings),
    )


def _pooled(samples: Sequence[SampleSummary], key: str) -> float | None:
    """The mean over all seeds' steps: each seed weighs as many steps as its mean is over."""
    summed = weights = 0.0
    for sample in samples:
        value, weight = getattr(sample, key.replace(".", "_")), _steps(sample, key)
        if value is not None and weight:
            summed, weights = summed + value * weight, weights + weight
    return summed / weights if weights else None


def _steps(sample: SampleSummary, key: str) -> float:
    """How many token positions a mean is over."""
    steps, same = sample.steps or 0, sample.share_same_top1
    if key == "kl_mean_same_top1" and same is not None:
        return steps * same
    if key == "kl_mean_other_top1" and same is not None:
        return steps * (1 - same)
    return steps

"""The divergences of a pair of models, pooled over its runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lr_exp.report import published
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.rows import Sweep, setup_of, swept_keys
from lr_exp.report.names import AMATEURS, Setup, method_label, rank
from lr_exp.report.read.runs import Run
from lr_exp.report.read.summary import Histogram, SampleSummary

MEANS = {  # their titles by key of a run's summary
    "share_below_0.1": "steps below 0.1 nats",
    "share_above_0.4": "steps above 0.4 nats",
    "share_same_top1": "steps with the same top-1 token",
    "kl_mean": "mean KL (nats)",
    "kl_mean_same_top1": "mean KL, same top-1 (nats)",
    "kl_mean_other_top1": "mean KL, different top-1 (nats)",
    "expert_entropy_mean": "entropy of the expert (nats)",
    "amateur_entropy_mean": "entropy of the amateur (nats)",
}
_BY_BETA = "kl_above_beta"  # the step rule that is a threshold on D alone


@dataclass(frozen=True)
class Profile:
    """All scored token positions of a pair, over its seeds."""

    label: str  # unique in the sweep
    setup: Setup  # of the first run
    methods: tuple[str | None, ...]  # that share these token positions
    seeds: int
    steps: int
    means: dict[str, float | None]  # MEANS, weighted by the number of token positions
    histogram: Histogram  # of divergences
    selection: str  # `LightReasoner, β 0.4`: whose the next ones are
    by_threshold: bool  # whether it keeps the steps above a threshold on D
    loss: Histogram | None  # before training
    kept: float | None  # share of all token positions
    moving: float | None  # share of all token positions
    is_in_paper: bool  # whether the paper has this pair on this data
    paper_differences: tuple[str, ...]  # sampling settings that differ from the paper's


def profiles(sweep: Sweep) -> list[Profile]:
    """One per pair; methods with different trajectories have profiles of their own."""
    scored = [run for run in sweep.runs if run.sample.histogram and run.amateur]
    swept = swept_keys(scored)
    by_method = grouped(scored, lambda run: (_pair(run), run.method, setup_of(run, swept).swept))
    groups: list[list[Run]] = []
    for runs in by_method.values():
        same = next((group for group in groups if _same_steps(runs, group)), None)
        groups.append(list(runs)) if same is None else same.extend(runs)
    made = [profile_of(runs, swept) for runs in groups]
    labels = [profile.label for profile in made]
    for i, profile in enumerate(made):
        if labels.count(profile.label) > 1:
            shared = [*map(method_label, profile.methods), *profile.setup.listed("prompt", "swept")]
            made[i] = replace(profile, label=f"{profile.label} ({', '.join(shared)})")
    return sorted(made, key=lambda one: (one.setup.order[0], rank(one.setup.amateur, AMATEURS)))


def _pair(run: Run) -> tuple[str | None, ...]:
    """What all methods of a pair share: the models, the questions and how they are asked."""
    return run.expert, run.amateur, run.data, run.prompt


def _same_steps(ours: Sequence[Run], theirs: Sequence[Run]) -> bool:
    """Whether both are of one pair and have equal histograms for all common seeds, at least one."""
    pairs = {_pair(one[0]) for one in (ours, theirs)}
    mine, other = (
        {run.seed: run.sample.histogram and run.sample.histogram.counts for run in runs}
        for runs in (ours, theirs)
    )
    both = mine.keys() & other.keys()
    return len(pairs) == 1 and bool(both) and all(mine[seed] == other[seed] for seed in both)


def profile_of(runs: Sequence[Run], swept: Sequence[str] = ()) -> Profile:
    """The profile of runs that all have a histogram."""
    seeds = [own[0].sample for own in grouped(runs, lambda run: run.seed).values()]
    histograms = [sample.histogram for sample in seeds if sample.histogram]
    settings = runs[0].settings
    setup = setup_of(runs[0], swept)
    first = next((run for run in runs if run.sample.loss_histogram), runs[0])
    choices = first.method, first.alpha, first.beta
    same = [run.sample for run in runs if (run.method, run.alpha, run.beta) == choices]
    selection = [method_label(first.method), *setup_of(first).listed("alpha", "beta")]
    return Profile(
        f"{setup.expert} / {setup.amateur}",
        setup,
        tuple(dict.fromkeys(run.method for run in runs)),
        len(seeds),
        sum(sample.steps or 0 for sample in seeds),
        {key: _pooled(seeds, key) for key in MEANS},
        _added(histograms),
        ", ".join(selection),
        first.settings.get("method", {}).get("select") == _BY_BETA,
        _added([sample.loss_histogram for sample in same if sample.loss_histogram]),
        _pooled(same, "kept_share"),
        _pooled(same, "moving_of_all"),
        published.has_papers_models(setup, settings) and published.has_pair(setup),
        published.differing(published.ROLLOUTS, settings),
    )


def _added(histograms: Sequence[Histogram]) -> Any:
    """Their sum, without `nats` if one has none; None without a histogram."""
    if not histograms:
        return None
    counts, nats = ([getattr(one, name) for one in histograms] for name in ("counts", "nats"))
    return Histogram(
        bin_nats=histograms[0].bin_nats,
        counts=[sum(values) for values in zip(*counts, strict=True)],
        nats=[sum(v) for v in zip(*nats, strict=True)] if all(nats) else None,
    )


def _pooled(samples: Sequence[SampleSummary], key: str) -> float | None:
    """The mean over all seeds, weighted by the number of token positions that it is over."""
    total = weights = 0.0
    for sample in samples:
        value, weight = getattr(sample, key.replace(".", "_")), sample.steps or 0.0
        same = sample.share_same_top1
        if key == "kl_mean_same_top1" and same is not None:
            weight *= same
        elif key == "kl_mean_other_top1" and same is not None:
            weight *= 1 - same
        if value is not None:
            total, weights = total + value * weight, weights + weight
    return total / weights if weights else None

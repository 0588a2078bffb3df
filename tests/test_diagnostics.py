"""Warnings about pairs of models whose contrast is unlikely to help."""

import pytest

from lr_exp.report.published import KL_PROFILE
from lr_exp.sampler.diagnostics import diagnose_pair, diagnose_training


def profile(quiet, loud, *, mean=0.3, steps=16818, expert=0.015, amateur=0.3):
    return {
        "steps": steps,
        "kl_mean": mean,
        "share_below_0.1": quiet,
        "share_above_0.4": loud,
        "expert_entropy_mean": expert,
        "amateur_entropy_mean": amateur,
    }


def gap(expert, amateur, total=100, decoder="sampled"):
    def measured(correct):
        share = correct / total
        error = (share * (1 - share) / (total - 1)) ** 0.5
        return {"g": {"accuracy": share, "correct": correct, "total": total, "stderr": error}}

    return {"decoder": decoder, "expert": measured(expert), "amateur": measured(amateur)}


# Profiles as they were measured: of the micro pairs, and of SmolLM2-135M with layers left out.
GOOD = {
    "micro": profile(0.832, 0.151, mean=0.290, expert=0.0148, amateur=0.3373),
    "micro, longer answers": profile(0.91, 0.08),
    "micro_near": profile(0.9075, 0.0578, mean=0.107, expert=0.0148, amateur=0.1736),
    "smollm2, layer 22 out": profile(0.469, 0.181, steps=2043, expert=1.01, amateur=1.236),
    "smollm2, layer 26 out": profile(0.601, 0.108, steps=2043, expert=1.01, amateur=1.074),
    "smollm2, tuned first": profile(0.44, 0.34),
    "the paper's": profile(KL_PROFILE["share_below_0.1"], KL_PROFILE["share_above_0.4"]),
}
NEAR = {
    "micro_peer": profile(0.9992, 0.0, mean=0.0008, expert=0.0148, amateur=0.0156),
    "micro_early_exit": profile(0.9753, 0.0128, mean=0.0322, expert=0.0148, amateur=0.0431),
    "enough positions": profile(1.0, 0.0, steps=600),
}
FAR = {
    "smollm2, layers 22 and 23 out": profile(0.265, 0.436, mean=0.678, steps=2043),
    "two layers out": profile(0.24, 0.50, steps=2043),
    "three layers out": profile(0.20, 0.67, steps=2043),
}
MASTER = profile(0.9815, 0.0177, mean=0.0176, expert=0.0148, amateur=0.0082)


@pytest.mark.parametrize(
    "sound",
    [
        *GOOD.values(),
        # Without an amateur, or with a few positions only.
        *({}, {"steps": 0, "kl_mean": None, "kl_max": None}, profile(0.9, 0.0, mean=None)),
        *({"steps": 100, "kept": 100, "kl_mean": None}, profile(None, None, expert=None)),
        *(profile(1.0, 0.0, steps=60), profile(0.3, 0.5, steps=20)),
        # micro_large_careless, the micro amateur with the largest gain
        profile(0.973, 0.0226, steps=16818) | {"kept": 380, "choice": 300, "moving_of_kept": 0.737},
    ],
)
def test_a_useful_pair_or_none_gives_no_warning(sound):
    assert diagnose_pair(sound) == []


@pytest.mark.parametrize("name", [*NEAR, *FAR])
def test_an_amateur_like_the_expert_or_incoherent_gives_a_warning(name):
    (warning,) = diagnose_pair({**NEAR, **FAR}[name])
    if name in NEAR:
        assert "hardly differs" in warning
        assert f"{100 * NEAR[name]['share_above_0.4']:.1f} % of token positions" in warning
        assert "Choose a weaker amateur" in warning
    else:
        assert "nearly everywhere" in warning
        assert "amateur.drop_layers" in warning


def test_an_amateur_more_certain_than_the_expert_gives_a_warning_without_a_benchmark():
    near, sure = diagnose_pair(MASTER)
    assert "hardly differs" in near
    assert "0.008 against 0.015 nats" in sure
    assert "evaluator.gap=sampled" in sure


def test_a_stronger_amateur_gives_one_warning():
    """The measured gap replaces the warning about entropies."""
    stronger, near = diagnose_pair(MASTER, gap(24, 85))
    assert "stronger than the expert: 85.0 % of g right against 24.0 %" in stronger
    assert "hardly differs" in near


@pytest.mark.parametrize("numbers", [(24, 19), (24, 24), (24, 29), (1, 0, 2), (0, 1, 2)])
def test_a_gap_within_its_error_gives_a_warning(numbers):
    for beyond in ((24, 0), (24, 8), (3, 0, 3)):
        assert diagnose_pair(GOOD["micro"], gap(*beyond)) == []
    (warning,) = diagnose_pair(GOOD["micro"], gap(*numbers))
    assert "do not differ measurably" in warning
    assert "evaluator.max_examples" in warning


def test_without_right_answers_sampling_is_recommended():
    """Greedily the micro expert is always wrong, and so is its amateur."""
    (warning,) = diagnose_pair(GOOD["micro"], gap(0, 0, decoder="greedy"))
    assert "evaluator.gap=sampled" in warning


def test_labels_that_hardly_move_the_expert_give_a_warning():
    labels = {"kept": 2537, "choice": 300, "moving_of_kept": 0.002}
    (warning,) = diagnose_pair(GOOD["micro"] | labels)
    assert "at 0.2 % of the 2,537 kept steps" in warning
    for harmless in ({"moving_of_kept": 0.115}, {"kept": 100}, {"choice": 0}):  # hard labels
        assert diagnose_pair(GOOD["micro"] | labels | harmless) == []


def test_many_passes_over_few_steps_give_a_warning():
    (warning,) = diagnose_training(kept_steps=49, tuned_tokens=16_000)
    assert "327 passes over 49 distinct kept steps" in warning
    kind = warning.partition(":")[0]  # a report shows warnings of one kind once
    assert kind == diagnose_training(47, 17_000)[0].partition(":")[0]
    assert diagnose_training(kept_steps=2_537, tuned_tokens=3_200) == []

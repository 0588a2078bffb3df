"""Hand-worked choices among four tokens: plausible, contrasted, drawn."""

import math

import pytest
import torch

from lr_exp.inference.strategies import contrastive, greedy, sampled
from lr_exp.models.vocabulary import SharedVocabulary

FOUR = SharedVocabulary(4)
EXPERT = torch.tensor([[0.50, 0.30, 0.15, 0.05]]).log()
AMATEUR = torch.tensor([[0.60, 0.20, 0.05, 0.15]]).log()  # ratios 5/6, 3/2, 3, 1/3
DRAWS = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("alpha", "token"), [(0.2, 2), (0.5, 1), (1.0, 0)])
def test_the_greatest_ratio_of_the_plausible_tokens(alpha, token):
    assert contrastive(FOUR, alpha)([EXPERT, AMATEUR]).tolist() == [token]


def test_an_implausible_token_is_never_chosen_however_great_its_ratio():
    amateur = torch.tensor([[0.60, 0.20, 0.20, 1e-9]]).log()
    assert contrastive(FOUR, 0.2)([EXPERT, amateur]).tolist() == [1]
    assert contrastive(FOUR, 0.09)([EXPERT, amateur]).tolist() == [3]
    never = torch.tensor([[0.60, 0.20, 0.20, 0.0]]).log()  # the ratio is infinite, or 0/0
    assert contrastive(FOUR, 0.09)([EXPERT, never]).tolist() == [3]
    nobody = torch.tensor([[0.60, 0.25, 0.15, 0.0]]).log()
    assert contrastive(FOUR, 0.09)([nobody, never]).tolist() == [1]


def test_with_alpha_1_the_expert_decides():
    logits = torch.randn(500, 30, generator=seeded(), dtype=torch.float64)
    amateur = torch.randn(500, 30, generator=seeded(1), dtype=torch.float64)
    chosen = contrastive(SharedVocabulary(30), 1.0)([logits, amateur])
    assert torch.equal(chosen, greedy([logits]))


def test_of_equal_scores_the_experts_more_probable_token():
    """An amateur that equals the expert leaves nothing to contrast: every ratio is 1."""
    logits = torch.randn(500, 30, generator=seeded())
    chosen = contrastive(SharedVocabulary(30), 0.01)([logits, logits.clone()])
    assert torch.equal(chosen, greedy([logits]))


def test_ids_that_are_not_shared_stand_or_stay_out():
    """An end token that the amateur calls otherwise could never be chosen by contrast."""
    shared = SharedVocabulary(4, excluded=(1,))
    rows = torch.zeros(3, 6)
    rows[0, 1] = rows[1, 5] = rows[2, 2] = 5.0  # reused, beyond the shared ids, shared
    amateur = torch.zeros(3, 4)
    amateur[2] = torch.tensor([0.0, -50.0, 9.0, 1.0])  # id 1: a great ratio, not to be compared
    assert contrastive(shared, 0.001)([rows, amateur]).tolist() == [1, 5, 0]
    assert contrastive(shared, 1.0)([rows, amateur]).tolist() == [1, 5, 2]


def test_excluded_ids_do_not_enter_the_distribution():
    """With id 0 in it the expert's probabilities would be those of another question."""
    shared = SharedVocabulary(5, excluded=(0,))
    expert = torch.cat([torch.full((1, 1), -3.0), EXPERT], dim=1)
    amateur = torch.cat([torch.full((1, 1), 9.0), AMATEUR], dim=1)
    assert contrastive(shared, 0.2)([expert, amateur]).tolist() == [3]


@pytest.mark.parametrize("alpha", [0.0, 1.1, math.nan])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        contrastive(FOUR, alpha)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    drawn = sampled(temperature, 1.0, seeded())([logits.expand(DRAWS, 4)])
    shares = drawn.bincount(minlength=4) / DRAWS
    expected = (logits / temperature).softmax(-1)
    error = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((shares - expected).abs() < 4 * error).all()


def test_half_precision_logits_are_normalized_in_single():
    logits = torch.randn(200, 1000, generator=seeded()).bfloat16()
    half, single = (sampled(0.7, 0.9, seeded())([rows]) for rows in (logits, logits.float()))
    assert torch.equal(half, single)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38])
def test_towards_temperature_0_the_draw_is_the_greedy_choice(temperature):
    logits = 30 * torch.randn(500, 30, generator=seeded())
    assert torch.equal(sampled(temperature, 1.0, seeded())([logits]), greedy([logits]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.6, 2), (0.9, 3), (0.99, 4), (1.0, 4)])
def test_only_the_nucleus_is_drawn_from(top_p, kept):
    order = [2, 0, 3, 1]  # tokens by probability
    logits = torch.empty(4)
    logits[order] = EXPERT[0]
    drawn = sampled(1.0, top_p, seeded())([logits.expand(DRAWS, 4)])
    shares = drawn.bincount(minlength=4)[order] / DRAWS
    expected = EXPERT[0, :kept].softmax(-1)
    assert (shares[:kept] - expected).abs().max() < 0.02
    assert shares[kept:].sum() == 0


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_a_seed_decides_the_draws(top_p):
    rows = torch.zeros(64, 50)
    first, again, other = (sampled(1.0, top_p, seeded(s))([rows]) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_without_a_meaning_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        sampled(temperature, 1.0, seeded())


@pytest.mark.parametrize("top_p", [0.0, 1.5, math.nan])
def test_a_top_p_without_a_meaning_is_refused(top_p):
    with pytest.raises(ValueError, match="top_p"):
        sampled(1.0, top_p, seeded())

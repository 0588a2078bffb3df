"""Decoding strategies on hand-worked tables of four tokens, and sampling statistics."""

import pytest
import torch

from lr_exp.inference.strategies import contrastive, greedy, sampled
from lr_exp.models.vocabulary import SharedVocabulary

FOUR = SharedVocabulary(4)
EXPERT = torch.tensor([[0.50, 0.30, 0.15, 0.05]]).log()
AMATEUR = torch.tensor([[0.60, 0.20, 0.05, 0.15]]).log()  # ratios 5/6, 3/2, 3, 1/3
SAMPLES = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("alpha", "token"), [(0.2, 2), (0.5, 1), (1.0, 0)])
def test_the_plausible_token_with_the_highest_ratio_is_chosen(alpha, token):
    assert contrastive(FOUR, alpha)([EXPERT, AMATEUR]).tolist() == [token]


def test_an_implausible_token_is_never_chosen_despite_its_ratio():
    amateur = torch.tensor([[0.60, 0.20, 0.20, 1e-9]]).log()
    assert contrastive(FOUR, 0.2)([EXPERT, amateur]).tolist() == [1]
    assert contrastive(FOUR, 0.09)([EXPERT, amateur]).tolist() == [3]
    zero = torch.tensor([[0.60, 0.20, 0.20, 0.0]]).log()  # the ratio is infinite, or 0/0
    assert contrastive(FOUR, 0.09)([EXPERT, zero]).tolist() == [3]
    expert_zero = torch.tensor([[0.60, 0.25, 0.15, 0.0]]).log()
    assert contrastive(FOUR, 0.09)([expert_zero, zero]).tolist() == [1]


def test_alpha_1_is_greedy_decoding_and_ties_go_to_the_experts_more_probable_token():
    """If the amateur equals the expert, every ratio is 1."""
    logits, other = (torch.randn(500, 30, generator=seeded(number)) for number in (0, 1))
    for alpha, amateur in ((1.0, other), (0.01, logits.clone())):
        chosen = contrastive(SharedVocabulary(30), alpha)([logits, amateur])
        assert torch.equal(chosen, greedy([logits]))


def test_an_unshared_top_token_is_kept_and_other_unshared_ids_are_ignored():
    """Contrast alone could never choose an end token that has another id in the amateur."""
    shared = SharedVocabulary(4, excluded=(1,))
    rows = torch.zeros(3, 6)
    rows[0, 1] = rows[1, 5] = rows[2, 2] = 5.0  # reused, beyond the shared ids, shared
    amateur = torch.zeros(3, 4)
    amateur[2] = torch.tensor([0.0, -50.0, 9.0, 1.0])  # id 1 has a high ratio but is not shared
    assert contrastive(shared, 0.001)([rows, amateur]).tolist() == [1, 5, 0]
    assert contrastive(shared, 1.0)([rows, amateur]).tolist() == [1, 5, 2]


def test_excluded_ids_do_not_enter_the_distribution():
    """With id 0 included, the expert's normalized probabilities would be wrong."""
    shared = SharedVocabulary(5, excluded=(0,))
    expert = torch.cat([torch.full((1, 1), -3.0), EXPERT], dim=1)
    amateur = torch.cat([torch.full((1, 1), 9.0), AMATEUR], dim=1)
    assert contrastive(shared, 0.2)([expert, amateur]).tolist() == [3]


def shares_of(logits, temperature=1.0, top_p=1.0):
    samples = sampled(temperature, top_p, seeded())([logits.expand(SAMPLES, 4)])
    return samples.bincount(minlength=4) / SAMPLES


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_softmax(temperature):
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    expected = (logits / temperature).softmax(-1)
    error = (expected * (1 - expected) / SAMPLES).sqrt()
    assert ((shares_of(logits, temperature) - expected).abs() < 4 * error).all()


def test_half_precision_logits_are_normalized_in_fp32():
    logits = torch.randn(200, 1000, generator=seeded()).bfloat16()
    half, single = (sampled(0.7, 0.9, seeded())([rows]) for rows in (logits, logits.float()))
    assert torch.equal(half, single)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38])
def test_sampling_approaches_greedy_towards_temperature_0(temperature):
    logits = 30 * torch.randn(500, 30, generator=seeded())
    assert torch.equal(sampled(temperature, 1.0, seeded())([logits]), greedy([logits]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.6, 2), (0.9, 3), (0.99, 4), (1.0, 4)])
def test_only_the_nucleus_is_sampled(top_p, kept):
    order = [2, 0, 3, 1]  # tokens by descending probability
    logits = torch.empty(4)
    logits[order] = EXPERT[0]
    shares = shares_of(logits, top_p=top_p)[order]
    expected = EXPERT[0, :kept].softmax(-1)
    assert (shares[:kept] - expected).abs().max() < 0.02
    assert shares[kept:].sum() == 0

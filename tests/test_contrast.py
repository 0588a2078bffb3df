"""The equations against hand-worked tables and torch."""

import math

import pytest
import torch
from torch.nn import functional

from lr_exp import contrast

EXPERT = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
AMATEUR = torch.tensor([0.25, 0.6, 0.1, 0.05], dtype=torch.float64)


def test_kl_of_a_table_worked_by_hand():
    # 0.5 ln 2 + 0.3 ln 0.5 + 0.15 ln 1.5 + 0.05 ln 1
    by_hand = 0.5 * math.log(2) - 0.3 * math.log(2) + 0.15 * math.log(1.5)
    assert contrast.kl_nats(EXPERT.log(), AMATEUR.log()).item() == pytest.approx(by_hand, abs=1e-12)


def test_kl_is_weighted_by_the_expert_not_by_the_amateur():
    """The direction of Eq. 1 is KL(expert || amateur), not KL(amateur || expert)."""
    forward = contrast.kl_nats(EXPERT.log(), AMATEUR.log()).item()
    backward = contrast.kl_nats(AMATEUR.log(), EXPERT.log()).item()
    assert forward != pytest.approx(backward, abs=1e-3)
    # torch's kl_div takes the second distribution first.
    oracle = functional.kl_div(AMATEUR.log(), EXPERT, reduction="sum").item()
    assert forward == pytest.approx(oracle, abs=1e-12)


def test_kl_is_zero_for_equal_distributions_and_positive_otherwise():
    logits = torch.randn(50, 97, dtype=torch.float64)
    same = contrast.log_probs(logits)
    other = contrast.log_probs(torch.randn(50, 97, dtype=torch.float64))
    assert contrast.kl_nats(same, same).abs().max() == 0
    assert (contrast.kl_nats(same, other) > 0).all()


def test_kl_has_no_epsilon():
    """The published epsilon of 1e-12 reduces the contribution of very unlikely tokens."""
    expert = torch.tensor([0.0, -40.0], dtype=torch.float64).log_softmax(-1)
    amateur = torch.tensor([-80.0, 0.0], dtype=torch.float64).log_softmax(-1)
    assert contrast.kl_nats(expert, amateur).item() == pytest.approx(80, rel=1e-9)


def test_log_probs_are_fp32_for_half_precision_logits():
    logits = torch.randn(3, 11).bfloat16()
    result = contrast.log_probs(logits)
    assert result.dtype == torch.float32
    assert torch.equal(result, logits.float().log_softmax(-1))
    assert contrast.log_probs(logits.double()).dtype == torch.float64


def test_entropy_of_uniform_and_certain():
    uniform = contrast.log_probs(torch.zeros(8))
    certain = contrast.log_probs(torch.tensor([0.0, -1e4]))
    assert contrast.entropy_nats(uniform).item() == pytest.approx(math.log(8), rel=1e-6)
    assert contrast.entropy_nats(certain).item() == 0


def test_informative_is_strictly_above_beta():
    kl = torch.tensor([0.39, 0.4, 0.41], dtype=torch.float64)
    assert contrast.informative(kl, 0.4).tolist() == [False, False, True]


def test_plausible_is_relative_to_the_top_token():
    # The threshold is 0.2 * 0.5 = 0.1, which excludes the last token (0.05).
    assert contrast.plausible(EXPERT.log(), 0.2).tolist() == [True, True, True, False]
    assert contrast.plausible(EXPERT.log(), 1.0).tolist() == [True, False, False, False]


def test_soft_label_worked_by_hand():
    # The softmax of log-ratios is the normalized ratios: 2, 0.5, 1.5 over the mask.
    mask = contrast.plausible(EXPERT.log(), 0.2)
    label = contrast.soft_label(contrast.contrast_score(EXPERT.log(), AMATEUR.log()), mask)
    assert label.tolist() == pytest.approx([2 / 4, 0.5 / 4, 1.5 / 4, 0.0], abs=1e-12)
    assert label[3] == 0


def test_soft_labels_sum_to_one_on_the_mask_and_are_zero_elsewhere():
    expert, amateur = (contrast.log_probs(torch.randn(200, 40) * 3) for _ in range(2))
    mask = contrast.plausible(expert, 0.05)
    label = contrast.soft_label(contrast.contrast_score(expert, amateur), mask)
    assert torch.allclose(label.sum(-1), torch.ones(200), atol=1e-6)
    assert (label[~mask] == 0).all()
    assert (label[mask] > 0).all()


def _sparse(label: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, ids = label.topk(width, dim=-1)
    return ids, weights


def test_loss_equals_dense_kl_and_its_gradient_equals_that_of_cross_entropy():
    torch.manual_seed(0)
    label = torch.zeros(6, 30, dtype=torch.float64)
    label[:, :4] = torch.rand(6, 4, dtype=torch.float64)
    label /= label.sum(-1, keepdim=True)
    logits = torch.randn(6, 30, dtype=torch.float64, requires_grad=True)
    # Three padding entries per row.
    loss = contrast.distillation_loss(logits.log_softmax(-1), *_sparse(label, 7))
    dense = functional.kl_div(logits.log_softmax(-1), label, reduction="none").sum(-1)
    assert torch.allclose(loss, dense, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    cross_entropy = -(label * logits.log_softmax(-1)).sum()
    (expected,) = torch.autograd.grad(cross_entropy, logits)
    assert torch.allclose(gradient, expected, atol=1e-12)

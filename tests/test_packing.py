"""Packed sequences give the same logits as separate ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lr_exp.models.packing import groups_within, pack, pass_size, read_logits
from tests.support.tiny import double_model


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_pack_equals_separate_sequences(kind):
    model = double_model(kind)
    sequences = [[5, 6, 7, 8, 9], [11], [3, 2, 1], [0, 0, 0, 0]]
    reads = [[0, 4], [0], [], [1, 2, 3]]
    with torch.no_grad():
        packed = read_logits(model, pack(sequences, reads))
        separate = [
            model(torch.tensor([sequence])).logits[0, indices]
            for sequence, indices in zip(sequences, reads, strict=True)
            if indices
        ]
    assert packed.shape == (6, 50)
    assert torch.allclose(packed, torch.cat(separate), atol=1e-12)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_groups_keep_the_order_and_the_budget(lengths, budget):
    groups = list(groups_within(lengths, budget))
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget


def test_an_index_outside_its_sequence_raises():
    """The first position of an empty prompt would read the previous sequence's end."""
    for sequences, reads in (([[1, 2], [3]], [[0], [-1]]), ([[1]], [[1]]), ([[]], [[]])):
        with pytest.raises(ValueError, match="cannot be read"):
            pack(sequences, reads)


def test_a_model_that_mixes_sequences_gets_one_a_pass():
    size = pass_size(1000, "cpu", packs=False)
    assert list(groups_within([5, 1, 7], size)) == [[0], [1], [2]]
    assert pass_size(1000, "cuda", packs=True) == 1000

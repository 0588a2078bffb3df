"""Packed sequences give what each gives alone; a model that mixes them up is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lr_exp.errors import UserError
from lr_exp.models.packing import check_packing, groups_within, pack, read_logits

from .test_sampler import load_micro


def tiny(kind: str = "qwen2") -> torch.nn.Module:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = (
        Qwen2ForCausalLM(Qwen2Config(**shape))
        if kind == "qwen2"
        else LlamaForCausalLM(LlamaConfig(**shape))
    )
    return model.double().eval()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_pack_gives_what_each_sequence_gives_alone(kind):
    model = tiny(kind)
    sequences = [[5, 6, 7, 8, 9], [11], [3, 2, 1], [0, 0, 0, 0]]
    reads = [[0, 4], [0], [], [1, 2, 3]]
    with torch.no_grad():
        packed = read_logits(model, pack(sequences, reads))
        alone = [
            model(torch.tensor([sequence])).logits[0, indices]
            for sequence, indices in zip(sequences, reads, strict=True)
            if indices
        ]
    assert packed.shape == (6, 50)
    assert torch.allclose(packed, torch.cat(alone), atol=1e-12)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_groups_keep_the_order_and_the_budget(lengths, budget):
    groups = list(groups_within(lengths, budget))
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_lets_sequences_see_each_other_is_refused(dtype):
    """Guards against an architecture that ignores restarted positions: plausible, wrong numbers."""
    model = load_micro("expert").model.to(dtype)
    check_packing(model, "sound")
    forward = model.forward
    model.forward = lambda position_ids=None, **kwargs: forward(**kwargs)
    with pytest.raises(UserError, match="packed sequences apart"):
        check_packing(model, "leaky")


def test_a_place_outside_its_own_sequence_is_refused():
    """An empty prompt's first step would read the end of the sequence packed before it."""
    for sequences, reads in (([[1, 2], [3]], [[0], [-1]]), ([[1]], [[1]]), ([[]], [[]])):
        with pytest.raises(ValueError, match="cannot be read"):
            pack(sequences, reads)


def test_a_model_with_nan_weights_is_refused():
    model = tiny()
    next(model.parameters()).data[:] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        check_packing(model, "damaged")


def test_good_models_pass_also_in_half_precision():
    check_packing(tiny(), "double")
    check_packing(tiny("llama").bfloat16(), "half")

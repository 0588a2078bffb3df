"""What a model may be given in one call, found out after loading."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig

from lr_exp.errors import UserError
from lr_exp.models.probing import probe
from tests.support.architectures import random_model
from tests.support.sampling import load_micro

PRECISIONS = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "packs", "caches"),
    [
        ("qwen2", True, True),
        ("mixtral", True, True),  # rounds by what else is in the pass: not equal bit for bit
        ("lfm2", False, True),  # leaks into two tokens of the next sequence only
        ("bloom", False, True),
        ("mamba", False, False),  # ignores `past_key_values`
    ],
)
def test_what_an_architecture_can_read(name, packs, caches, dtype):
    """In bfloat16 the leaks of LFM2 and Bloom are smaller than some models' rounding."""
    model = random_model(name).to(dtype).eval().requires_grad_(False)
    assert probe(model, name) == (packs, caches)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_model_that_ignores_positions_cannot_pack(dtype):
    model = load_micro("expert").model.to(dtype)
    assert probe(model, "sound")[0]
    forward = model.forward

    def ignoring(input_ids=None, position_ids=None, past_key_values=None, **kwargs):
        return forward(input_ids=input_ids, past_key_values=past_key_values, **kwargs)

    model.forward = ignoring
    assert not probe(model, "leaky")[0]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_model_that_reads_later_tokens_is_rejected(dtype):
    config = BertConfig(vocab_size=40, hidden_size=32, num_attention_heads=2, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval().requires_grad_(False)
    with pytest.raises(UserError, match="reads later tokens"):
        probe(model, "bert")

"""Which layers are tuned."""

import pytest
import torch

from lr_exp.distiller.lora import choose_targets, lora_layers
from lr_exp.errors import UserError
from tests.support.architectures import random_model


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen2", ["q_proj", "v_proj"]),
        ("gpt2", ["c_attn"]),
        ("gpt_neox", ["query_key_value"]),
        ("phi3", ["qkv_proj"]),
        ("gemma3+nested", ["q_proj", "v_proj"]),
    ],
)
def test_default_targets(name, targets):
    with torch.device("meta"):
        model = random_model(name)
    assert choose_targets(model, None) == targets
    assert lora_layers(model, None)["fan_in_fan_out"] == (name == "gpt2")
    if name == "gpt2":
        with pytest.raises(UserError) as caught:
            choose_targets(model, ["q_proj"])
        has = "GPT2LMHeadModel has no module named q_proj; it has c_attn, c_fc, c_proj, lm_head."
        assert str(caught.value) == f"distiller.target_modules: {has}"

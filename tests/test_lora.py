"""Which layers are tuned, and merging them."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lr_exp.config.settings import DistillerSettings, ExpertSettings
from lr_exp.distiller import distill
from lr_exp.distiller.lora import choose_targets, lora_layers
from lr_exp.errors import UserError
from lr_exp.models import loading, locating
from tests.support.architectures import random_model, save_model


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


@pytest.fixture
def tied(tmp_path):
    """The source of a tied model, and an adapter on its output layer."""
    folder = save_model(tmp_path / "model", "llama+tied")
    source = locating.locate(ExpertSettings(name="tied", path=str(folder)), "expert")
    expert = loading.load(source, device="cpu", dtype="float32")
    model = distill._with_lora(expert, DistillerSettings(target_modules=["lm_head", "q_proj"]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    return source, tmp_path / "adapter"


def test_merging_a_tied_output_layer_leaves_the_embedding(tied, tmp_path):
    """Merging changed the shared weight, and with it what the model reads."""
    source, adapter = tied
    expert = loading.load(source, device="cpu", dtype="float32")
    ids = torch.tensor([[5, 9, 3, 12]])
    with torch.no_grad():
        tuned = distill.attach_adapter(expert, adapter)
        expected = tuned(ids).logits
        tuned.unload()
        distill.merge(expert, adapter, tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        assert torch.allclose(merged.eval()(ids).logits, expected, atol=1e-4)
    config = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    assert config["tie_word_embeddings"] is False


@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
def test_a_merged_model_that_differs_from_the_adapter_is_an_error(tied, tmp_path, monkeypatch):
    source, adapter = tied
    monkeypatch.setattr(distill, "_untie_tuned_head", lambda tuned: None)
    expert = loading.load(source, device="cpu", dtype="float32")
    with pytest.raises(UserError, match="with the adapter merged in does not give"):
        distill.merge(expert, adapter, tmp_path / "merged")

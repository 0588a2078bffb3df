"""Runs that start from an existing adapter: `expert.adapter`."""

import json
import shutil

import pytest
from peft import LoraConfig, get_peft_model

from lr_exp.config.composition import conf_dir
from lr_exp.errors import UserError
from lr_exp.micro import model_folder
from lr_exp.pipeline.inputs import Inputs
from tests.support.demo import go, settings_for
from tests.support.files import read_lines
from tests.support.sampling import load_micro

WEIGHTS = "adapter_model.safetensors"


def outputs(folder, who):
    return [one["output"] for one in read_lines(folder / f"answers/{who}/micro_add.jsonl")]


@pytest.mark.integration
def test_an_adapter_is_evaluated_and_starts_another_training(tmp_path):
    go(tmp_path, "first", "benchmarks=[micro_add]")
    before, after = (outputs(tmp_path / "first", who) for who in ("expert", "tuned"))
    assert before != after
    moved = tmp_path / "moved"  # an adapter's path does not determine anything
    shutil.copytree(tmp_path / "first" / "adapter", moved)
    words = ["benchmarks=[micro_add]", f"expert.adapter={moved}", "distiller.steps=2"]
    summary = go(tmp_path, "second", *words)
    assert outputs(tmp_path / "second", "expert") == after
    # The second adapter belongs to the merged model. On the shipped model it would be wrong.
    second = tmp_path / "second" / "adapter"
    base = json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == summary["provenance"]["expert"]["path"]
    assert base.startswith(str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"was trained for .*store.*correct base_model"):
        expert_of(tmp_path, second)


def expert_of(tmp_path, adapter):
    return Inputs(settings_for(tmp_path, f"expert.adapter={adapter}"), [conf_dir()]).expert


def saved(folder, **config):
    """An untrained adapter of the micro expert."""
    model = get_peft_model(load_micro().model, LoraConfig(**{"r": 2, **config}))
    model.peft_config["default"].base_model_name_or_path = str(model_folder("expert"))
    model.save_pretrained(folder)
    return folder


def of_fewer_layers(folder):
    saved(folder, target_modules=["q_proj"], layers_to_transform=[0])
    rewrite(folder, layers_to_transform=None)


def rewrite(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut_off(folder):
    path = saved(folder) / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is not the folder of an adapter: it has no adapter_config.json"),
        (lambda folder: (saved(folder) / WEIGHTS).unlink(), f"it has no {WEIGHTS}"),
        (lambda folder: (saved(folder) / "adapter_config.json").write_text("[]"), "a JSON object"),
        (lambda folder: (saved(folder) / "adapter_config.json").write_text("{}"), "no 'peft_type'"),
        (cut_off, rf"expert\.adapter=.*: {WEIGHTS} is damaged \(.*\): copy it again\.$"),
        (lambda folder: rewrite(saved(folder), peft_type="IA3"), "is of the kind IA3; only LORA"),
        (of_fewer_layers, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight is absent, expected \(2"),
        (lambda folder: rewrite(saved(folder), r=4), r"q_proj\.lora_A\.weight is \(2, 128\), exp"),
        (lambda folder: rewrite(saved(folder), target_modules=["c_attn"]), "c_attn"),
        (
            lambda folder: rewrite(saved(folder), base_model_name_or_path="Qwen/Qwen2.5-0.5B"),
            r"was trained for Qwen/Qwen2.5-0.5B, not for .*micro/models/expert",
        ),
    ],
)  # fmt: skip
def test_what_is_no_adapter_of_the_expert_is_one_error(tmp_path, make, message):
    make(tmp_path / "adapter")
    with pytest.raises(UserError, match=message):
        expert_of(tmp_path, tmp_path / "adapter")

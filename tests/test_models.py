"""Locating and loading models, prompts, early exit, devices. Damaged ones: test_refusals."""

import copy
import json
import pickle
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

from lr_exp.config.settings import AmateurSettings, ExpertSettings, ModelSettings
from lr_exp.errors import UserError
from lr_exp.models import devices, early_exit, loading, locating
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import pin_date, render_prompt, rendered_probes, stop_token_ids
from tests.support.architectures import LAYERS, ROWS, random_model, save_model
from tests.support.files import one_line_error
from tests.support.sampling import smollm2_source
from tests.support.tiny import CHAT_TEMPLATE, TOKENS, load_folder, tiny_model, tiny_tokenizer


def locate(folder, **settings):
    return locating.locate(ExpertSettings(name="tiny", path=str(folder), **settings), "expert")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A valid model's folder; read only."""
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(tmp_path):
    """A valid model's folder that a test may damage."""
    return tiny_model(tmp_path)


# Locating --------------------------------------------------------------------------------------


def test_a_failed_download_is_reported_in_one_line(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("Name or service not known\n(and more)")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with one_line_error("Name or service not known"):
        locate("Qwen/Qwen2.5-Math-1.5B")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("pickle-was-loaded"),))


def test_pickles_are_rejected_and_never_loaded(folder, monkeypatch, tmp_path):
    """Loading a pickle runs the code in it."""
    monkeypatch.chdir(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    load_folder(folder)  # there are safetensors too, so the pickle is not opened
    assert not Path("pickle-was-loaded").exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="only pickled weights"):
        locate(folder)


@pytest.mark.parametrize("package", ["no_such_package", "no_such.package", "email"])
def test_a_missing_package_without_a_path(package):
    """A dotted name of a missing package raised ModuleNotFoundError."""
    settings = ModelSettings(name="x", package=package, package_path="m.gguf")
    with pytest.raises(UserError, match=r"set expert\.path"):
        locating.locate(settings, "expert")


def test_an_explicit_path_overrides_the_package(whole):
    packaged = {"package": "lr_exp", "package_path": "micro/models/expert"}
    assert locating.locate(ExpertSettings(name="m", **packaged), "expert").folder != whole
    assert locate(whole, **packaged).folder == whole
    fallback = ModelSettings(name="x", package="absent", package_path="m", fallback_path=str(whole))
    assert locating.locate(fallback, "expert").folder == whole


def test_a_fingerprint_depends_on_contents_only(whole, tmp_path):
    """Weights, template and tokenizer matter; the folder's path and other files do not."""
    same = tiny_model(tmp_path, "moved")
    (same / "README.md").write_text("words")
    assert locate(same).fingerprint == locate(whole).fingerprint
    other = tiny_model(tmp_path, "other", seed=1)
    assert locate(other).fingerprint != locate(whole).fingerprint
    (same / "chat_template.jinja").write_text(CHAT_TEMPLATE + " ")
    assert locate(same).fingerprint != locate(whole).fingerprint


def test_a_location_is_absolute_whatever_the_spelling(folder, monkeypatch):
    """A relative path in the adapter's config was read as a hub id in another folder."""
    monkeypatch.chdir(folder.parent)
    spellings = ("model", "model/", "./model", f"../{folder.parent.name}/model", folder)
    assert {locate(spelling).location for spelling in spellings} == {str(folder)}
    (folder / "weights.gguf").write_bytes(b"GGUF")
    assert locate("model/weights.gguf").location == str(folder / "weights.gguf")
    packaged = ModelSettings(
        name="m", package="lr_exp", package_path="micro/models/expert", fallback_path="OWNER/NAME"
    )
    assert Path(locating.locate(packaged, "expert").location).is_absolute()


def test_a_hub_model_is_located_by_its_id(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    source = locate("OWNER/NAME")
    assert (source.location, source.revision) == ("OWNER/NAME", folder.name)


# Loading ---------------------------------------------------------------------------------------


def test_a_models_generation_config_is_ignored(folder, whole):
    """R1-Distill and the Instruct models set temperature, top-p and repetition penalty."""
    config = {"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.3, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 256}))
    loaded, plain = load_folder(folder), load_folder(whole)
    ours, own = (one.model.generation_config.to_diff_dict() for one in (loaded, plain))
    assert ours == own
    assert loaded.model.generation_config.repetition_penalty in (None, 1.0)
    assert loaded.stop_ids == plain.stop_ids  # only its eos matters


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_architectures_and_stored_precisions(tmp_path, architecture, dtype):
    loaded = load_folder(tiny_model(tmp_path, architecture=architecture, dtype=dtype, rows=300))
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert (loaded.vocabulary_size, loaded.model.lm_head.out_features) == (TOKENS, 300)
    assert loaded.context == 512


def test_longrope_limits_the_context_to_its_short_factors(tmp_path, caplog):
    """Past it the factors change: cached keys keep the old ones, packs mix both."""
    factors = [1.0] * 4
    rope = {"rope_type": "longrope", "short_factor": factors, "long_factor": [8.0] * 4}
    model = random_model(
        "phi3",
        rope_parameters={**rope, "rope_theta": 1e4, "original_max_position_embeddings": 64},
        original_max_position_embeddings=64,
    )
    folder = save_model(tmp_path, "phi3", model)
    assert locating.config_context(locate(folder)) == 64
    loaded = load_folder(folder)
    assert loaded.context == 64
    assert "limited to 64 tokens" in caplog.text
    ids = torch.arange(2, 67)[None]
    with torch.no_grad():  # what the limit prevents: one more token changes all before it
        short, long = (loaded.model(ids[:, :count]).logits[0, :64] for count in (64, 65))
    assert not torch.allclose(short, long, atol=1e-2)


# Prompts and stops -----------------------------------------------------------------------------


def test_the_templates_end_of_turn_stops_a_base_model(whole):
    """A base model's eos is the end of the document, so its answers continued with new turns."""
    assert load_folder(whole).stop_ids == (256, 258)


def test_without_a_template_the_end_of_turn_is_not_a_stop_token():
    assert stop_token_ids(tiny_tokenizer(chat_template=None), 256) == (256,)
    assert stop_token_ids(tiny_tokenizer(chat_template=None), [256, 259]) == (256, 259)


def test_a_template_without_a_system_turn_raises_with_advice():
    template = "{{ raise_exception('no system') if messages[0].role == 'system' }}" + CHAT_TEMPLATE
    tokenizer = tiny_tokenizer(chat_template=template)
    assert render_prompt(tokenizer, "2+2?")
    with pytest.raises(UserError, match=r"no system.*sampler\.system_prompt=''"):
        render_prompt(tokenizer, "2+2?", Prompt("Think."))
    probes = rendered_probes(tokenizer)  # without a system turn, with one, with an answer
    assert [one is None for one in probes] == [False, True, False]


def test_a_broken_template_is_a_user_error(folder):
    """Loading the model raised Jinja's own error."""
    (folder / "chat_template.jinja").write_text("{% for message in %}")
    with pytest.raises(UserError, match="chat template"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("template", "pinned"),
    [  # the forms of Llama 3.2, Granite, SmolLM3 and Mistral Small
        (
            "{%- if not date_string is defined %}{%- if strftime_now is defined %}\n"
            "    {%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}\n"
            "{{ 'Today Date: ' + date_string }}",
            "Today Date: 09 Mar 2025",
        ),
        (
            "{%- set system = \"Today's Date: \" + strftime_now('%B %d, %Y') + '.' %}{{ system }}",
            "Today's Date: March 09, 2025.",
        ),
        (
            "{%- macro day() %}{{ strftime_now(format='%-d %B') }}{% endmacro %}\n\n{{ day() }}",
            "\n9 March",
        ),
        ("{%- set day %}{{ strftime_now('%Y-%m-%d') }}{% endset %}{{ day | trim }}", "2025-03-09"),
    ],
)
def test_a_template_prints_the_pinned_date_whatever_the_clock(template, pinned, set_clock):
    """A run that was resumed the next day scored other prompts than it had sampled with."""
    tokenizer = tiny_tokenizer(chat_template=template + CHAT_TEMPLATE)
    set_clock(datetime(2031, 12, 30))
    assert pinned not in tokenizer.decode(render_prompt(tokenizer, "2+2?"))
    pin_date(tokenizer, "2025-03-09")
    rest = tokenizer.decode(render_prompt(tiny_tokenizer(), "2+2?"))
    assert tokenizer.decode(render_prompt(tokenizer, "2+2?")) == pinned + rest


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None])
def test_a_template_without_a_date_is_left_as_it_is(template):
    tokenizer = tiny_tokenizer(chat_template=template)
    pin_date(tokenizer, "2025-03-09")
    assert tokenizer.chat_template == template


def test_a_template_with_random_parts_is_refused():
    tokenizer = tiny_tokenizer(chat_template="{{ range(99999) | random }}" + CHAT_TEMPLATE)
    with pytest.raises(UserError, match="differently each time"):
        rendered_probes(tokenizer)


# Early exit ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def deep(request, tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("deep"), layers=4, architecture=request.param)
    return load_folder(folder)


def without_layer(model, dropped):
    """The oracle: a model created with one layer less."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers -= 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:-1]
    twin = type(model)(config).eval()
    weights = {}
    for name, value in model.state_dict().items():
        head, layers, tail = name.partition(".layers.")
        if layers:
            number, _, rest = tail.partition(".")
            if int(number) == dropped:
                continue
            name = f"{head}.layers.{int(number) - (int(number) > dropped)}.{rest}"
        weights[name] = value
    twin.load_state_dict(weights)
    return twin


@pytest.mark.parametrize("dropped", [0, 2, 3])
def test_early_exit_equals_a_model_created_without_the_layer(deep, dropped):
    amateur = early_exit.early_exit(deep, (dropped,), "early").model
    oracle = without_layer(deep.model, dropped)
    ids = torch.arange(1, 13)[None]
    with torch.inference_mode():
        expected = oracle(ids).logits
        assert torch.allclose(amateur(ids, use_cache=False).logits, expected, atol=1e-5)
        # With a cache, every layer must use its own index.
        first = amateur(ids[:, :7], use_cache=True)
        second = amateur(ids[:, 7:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), expected, atol=1e-5)


def test_early_exit_shares_every_weight_and_leaves_the_expert_unchanged(deep):
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        before = deep.model(ids).logits
        amateur = early_exit.early_exit(deep, (1, 2), "early")
        after = deep.model(ids).logits
    assert torch.equal(before, after)
    assert deep.model.config.num_hidden_layers == 4
    assert amateur.model.config.num_hidden_layers == 2
    owned = {p.data_ptr() for p in deep.model.parameters()}
    assert all(p.data_ptr() in owned for p in amateur.model.parameters())
    assert [layer.self_attn.layer_idx for layer in amateur.model.model.layers] == [0, 1]
    assert [layer.self_attn.layer_idx for layer in deep.model.model.layers] == [0, 1, 2, 3]


@pytest.mark.parametrize("dropped", [(4,), (0, 1, 2, 3)])
def test_early_exit_rejects_missing_layers(deep, dropped):
    with pytest.raises(UserError, match="layers 0 to 3, and at least one must remain"):
        early_exit.early_exit(deep, dropped, "early")


def test_early_exit_refuses_layers_that_depend_on_their_number():
    """Gemma 3n's layers read embeddings of their own, so leaving one out shifts the others'."""
    model = random_model("gemma3n_text").eval().requires_grad_(False)
    expert = loading.LanguageModel("gemma3n", model, None, (), TOKENS, None)
    with pytest.raises(UserError, match="not a plain list"):
        early_exit.early_exit(expert, (1,), "early")


def test_layers_of_a_nested_config_are_counted(tmp_path):
    """Gemma 3 4B and larger nest the language model's config: early exit ended in a traceback."""
    source = locate(save_model(tmp_path, "gemma3+nested"))
    assert locating.config_context(source) == 256
    assert locating.config_number(source, "vocab_size") == ROWS
    with pytest.raises(UserError, match=rf"layers 0 to {LAYERS - 1}"):
        early_exit.check_drop_layers(replace(source, drop_layers=(LAYERS,)))


def test_early_exit_settings(whole):
    def fingerprint(layers, **settings):
        amateur = AmateurSettings(name="early_exit", drop_layers=layers, **settings)
        return locating.locate_amateur(amateur, locate(whole)).fingerprint

    for layers, message in (([], "at least one layer number"), ([-1], "counted from 0")):
        with pytest.raises(UserError, match=message):
            fingerprint(layers)
    with pytest.raises(UserError, match="cannot be combined"):
        fingerprint([1], path="x/y")
    assert fingerprint([0, 1]) == fingerprint([1, 0, 1])
    assert len({fingerprint([0]), fingerprint([1]), locate(whole).fingerprint}) == 3


# Devices ---------------------------------------------------------------------------------------


def test_devices_and_dtypes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve_device("auto") == "cpu"
    assert devices.resolve_dtype("auto", "cpu") == "float32"
    assert devices.resolve_dtype("bfloat16", "cpu") == "bfloat16"
    with pytest.raises(UserError, match="sees no GPU"):
        devices.resolve_device("cuda")
    with pytest.raises(UserError, match="not a device"):
        devices.resolve_device("gpu")


# GGUF ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_model_from_an_installed_package(tmp_path):
    """SmolLM2's pad is also its end of turn; its GGUF quantization mark prevented saving."""
    loaded = loading.load(smollm2_source(), device="cpu", dtype="float32")
    assert loaded.vocabulary_size == 49152
    assert loaded.tokenizer.pad_token_id in loaded.stop_ids
    amateur = early_exit.early_exit(loaded, (22,), "early")
    ids = torch.tensor([render_prompt(loaded.tokenizer, "What is 2+2?")])
    with torch.inference_mode():
        assert torch.isfinite(amateur.model(ids).logits).all()
    loaded.model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").exists()

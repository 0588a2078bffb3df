"""Limits of the machine: out-of-memory errors, GPUs without bfloat16, missing attentions."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from bench.pairs import GEOMETRY
from lr_exp.config.options import conf_dir
from lr_exp.config.settings import AmateurSettings, DistillerSettings, ModelSettings, Settings
from lr_exp.data.questions import Question
from lr_exp.distiller import trainer
from lr_exp.errors import UserError
from lr_exp.inference.decoding import decode
from lr_exp.inference.memory import is_out_of_memory
from lr_exp.models import devices, loading, locating
from lr_exp.models.loading import ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.pipeline.inputs import Inputs
from lr_exp.sampler import rollout, score
from lr_exp.store.shards import read_shards, shard_paths
from tests.support.distilling import (
    train,
)
from tests.support.tiny import TOKENS, load_folder, tiny_model

SYSTEM = "Count."
QUESTIONS = [Question(f"q/{n}", "Tom has 12 pens. " * (n % 3 + 1)) for n in range(7)]
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError(ALLOCATOR)]


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return tuple(
        load_folder(tiny_model(folder, name, seed=seed))
        for seed, name in enumerate(("expert", "amateur"))
    )


# Recognizing errors ------------------------------------------------------------------------------


def test_the_cpu_allocators_error_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**59)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((error, True) for error in ERRORS),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_out_of_memory_errors_are_recognized(error, expected):
    assert is_out_of_memory(error) is expected


# Rollout and evaluation --------------------------------------------------------------------------


def roll_out(expert, folder, batch_size):
    folder.mkdir()
    facts = rollout.roll_out(
        QUESTIONS, expert, folder, prompt=Prompt(SYSTEM), max_new_tokens=5, batch_size=batch_size
    )
    return facts, [r["token_ids"] for r in sorted(read_shards(folder), key=lambda r: r["index"])]


def limited_decoder(limit, error, tried):
    """Raises for batches above `limit`; records the sizes in `tried`."""

    def limited(models, *settings, **limits):
        tried.append(limits["max_rows"])
        if tried[-1] > limit:
            raise error
        return decode(models, *settings, **limits)

    return limited


@pytest.mark.parametrize("error", ERRORS)
def test_a_large_batch_is_halved_with_one_warning(tmp_path, pair, monkeypatch, caplog, error):
    expected = roll_out(pair[0], tmp_path / "small", 1)
    tried = []
    monkeypatch.setattr("lr_exp.inference.generation.decode", limited_decoder(1, error, tried))
    assert roll_out(pair[0], tmp_path / "tight", 5) == expected
    assert tried == [5, 2, 1, 1]  # the size never grows again
    assert len(shard_paths(tmp_path / "tight")) == 2  # shards keep the configured batch size
    (warning,) = warnings_of(caplog)
    assert "rollout: questions: a batch of 5 does not fit in memory" in warning


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ERRORS[0], UserError, r"the smallest batch does not fit in memory.*max_new_tokens"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_a_single_question_that_does_not_fit_and_other_errors_raise(
    tmp_path, pair, monkeypatch, error, kind, message
):
    monkeypatch.setattr("lr_exp.inference.generation.decode", limited_decoder(0, error, []))
    with pytest.raises(kind, match=message):
        roll_out(pair[0], tmp_path / "none", 4)


# Scoring -----------------------------------------------------------------------------------------


def score_all(pair, trajectories, folder):
    folder.mkdir()
    options = {"prompt": Prompt(SYSTEM), "support_floor": 1e-3, "tokens_per_pass": 10_000}
    models = ModelPair(*pair, SharedVocabulary(TOKENS))
    score.score(trajectories, models, folder, **options)
    return list(read_shards(folder))


@pytest.mark.parametrize("error", ERRORS)
def test_a_scoring_pass_that_does_not_fit_is_split(tmp_path, pair, monkeypatch, caplog, error):
    roll_out(pair[0], tmp_path / "answers", 7)
    expected = score_all(pair, tmp_path / "answers", tmp_path / "whole")
    tried = []

    def tight(model, packed):
        tried.append(packed.input_ids.shape[1])
        if tried[-1] > 140:
            raise error
        return read_logits(model, packed)

    read_logits = score.read_logits
    monkeypatch.setattr(score, "read_logits", tight)
    rows = score_all(pair, tmp_path / "answers", tmp_path / "tight")
    assert max(tried) > 140
    found, whole = ({(row["index"], row["step"]): row["kl"] for row in t} for t in (rows, expected))
    assert found == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert len(rows) == len(expected) == len(whole)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("score: tokens of a pass: ")


def test_a_single_trajectory_that_does_not_fit_raises_with_advice(tmp_path, pair, monkeypatch):
    roll_out(pair[0], tmp_path / "answers", 7)

    def never(model, packed):
        raise ERRORS[1]

    monkeypatch.setattr(score, "read_logits", never)
    with pytest.raises(UserError, match=r"score: .*sampler\.max_new_tokens"):
        score_all(pair, tmp_path / "answers", tmp_path / "none")


# Training ----------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("error", ERRORS)
def test_a_pass_that_does_not_fit_raises_with_advice(tmp_path, monkeypatch, error):
    def never(*_):
        raise error

    monkeypatch.setattr(trainer, "pass_losses", never)
    with pytest.raises(UserError, match=r"distill: a pass of \d+ tokens .*tokens_per_pass"):
        train(tmp_path)


# GPUs without bfloat16 ---------------------------------------------------------------------------


@pytest.fixture
def old_gpu(monkeypatch):
    """A GPU that only emulates bfloat16, which torch counts as support by default."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Old GPU")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )


def test_a_gpu_without_bfloat16_computes_in_float32(old_gpu, caplog):
    for dtype in ("float16", "float32"):
        assert devices.resolve_dtype(dtype, "cuda") == dtype
    assert warnings_of(caplog) == []
    for dtype in ("auto", "bfloat16"):
        assert devices.resolve_dtype(dtype, "cuda") == "float32"
    assert ["Old GPU has no bfloat16" in line for line in warnings_of(caplog)] == [True, True]


def test_a_gpu_with_bfloat16_gives_no_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    for dtype in ("auto", "bfloat16"):
        assert devices.resolve_dtype(dtype, "cuda") == "bfloat16"
    assert warnings_of(caplog) == []


# Attention ---------------------------------------------------------------------------------------


def test_an_unavailable_attention_is_named(tmp_path):
    folder = tiny_model(tmp_path)
    source = locating.locate(ModelSettings(name="m", path=str(folder)), "expert")
    absent = replace(source, attention="flash_attention_3")
    message = r"the package for FlashAttention3 .* check .* and attention=flash_attention_3"
    with pytest.raises(UserError, match=message):
        loading.load(absent, device="cpu", dtype="float32")
    damaged = replace(source, attention="eager")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"the weights in .* cannot be loaded"):
        loading.load(damaged, device="cpu", dtype="float32")


def test_all_attentions_give_the_same_logits(tmp_path):
    source = locating.locate(ModelSettings(name="m", path=str(tiny_model(tmp_path))), "expert")
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    logits = []
    for attention in (None, "eager", "sdpa"):
        loaded = loading.load(replace(source, attention=attention), device="cpu", dtype="float32")
        assert attention in (None, loaded.model.config._attn_implementation)
        with torch.inference_mode():
            logits.append(loaded.model(ids).logits)
    assert torch.allclose(logits[1], logits[2], atol=1e-5)
    assert torch.equal(logits[0], logits[2])


def test_attention_and_compile_are_part_of_an_address_only_if_they_are_set():
    def machine(**changes):
        return Inputs(Settings(device="cpu", **changes), [conf_dir()]).machine

    assert "attention" not in machine()
    assert machine(attention="eager") == {**machine(), "attention": "eager"}
    assert machine(compile="default") == {**machine(), "compile": "default"}
    with pytest.raises(UserError, match="attention='flash' is not known"):
        Settings(attention="flash")
    with pytest.raises(UserError, match="compile=default does not work"):
        Settings(compile="default", distiller=DistillerSettings(parallel="fsdp"))


# Random weights ----------------------------------------------------------------------------------


def test_a_random_model_needs_only_a_config(tmp_path):
    folder = tiny_model(tmp_path)
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    settings = ModelSettings(name="m", path=str(folder), init="random")
    state = torch.random.get_rng_state()
    loaded = [
        loading.load(locating.locate(settings, role), device="cpu", dtype="float32")
        for role in ("expert", "expert", "amateur")
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    first, again, amateur = (each.model.lm_head.weight for each in loaded)
    assert torch.equal(first, again)
    assert not torch.equal(first, amateur)
    ids = loaded[0].tokenizer("Tom has 4 péns.")["input_ids"]
    assert loaded[0].tokenizer.decode(ids) == "Tom has 4 péns."
    with pytest.raises(UserError, match="no weights"):
        locating.locate(replace(settings, init="pretrained"), "expert")
    early = AmateurSettings(name="m", init="random", drop_layers=[0])
    with pytest.raises(UserError, match=r"amateur.init=random and amateur.drop_layers"):
        locating.locate_amateur(early, locating.locate(settings, "expert"))
    # An amateur is as its config initializes it, an expert more peaked.
    norms = [each.model.model.norm.weight.mean().item() for each in loaded]
    assert norms == [8, 8, 1]
    with pytest.raises(UserError, match="init='zero' is not known"):
        ModelSettings(name="m", init="zero")


def test_a_random_model_needs_a_language_models_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such"}), "utf-8")
    settings = ModelSettings(name="m", path=str(tmp_path), init="random")
    with pytest.raises(UserError, match="init=random: cannot build"):
        loading.load(locating.locate(settings, "expert"), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("geometry", "device", "expected"),
    [
        ("qwen_math_7b", "cuda", (256, 256, 4096)),
        ("a 14B model", "cuda", (64, 64, 4096)),
        ("qwen_math_7b", "cpu", (16, 32, 1024)),
    ],
)
def test_default_sizes_depend_on_the_kind_of_device_and_the_size_of_the_model(
    tmp_path, monkeypatch, geometry, device, expected
):
    monkeypatch.setattr("lr_exp.models.devices.resolve_device", lambda _: device)
    monkeypatch.setattr("lr_exp.models.devices.resolve_dtype", lambda *_: "bfloat16")
    config = json.loads((GEOMETRY / "qwen_math_7b" / "config.json").read_text("utf-8"))
    if geometry == "a 14B model":
        config |= {"num_hidden_layers": 56}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    expert = ModelSettings(name="7b", path=str(tmp_path), init="random")
    settings = Settings(expert=expert)
    found = Inputs(settings, [conf_dir()]).settings
    sizes = found.sampler.batch_size, found.evaluator.batch_size, found.sampler.tokens_per_pass
    assert sizes == expected
    assert found.distiller.tokens_per_pass == expected[2]
    chosen = replace(settings, evaluator=replace(settings.evaluator, batch_size=3))
    assert Inputs(chosen, [conf_dir()]).settings.evaluator.batch_size == 3

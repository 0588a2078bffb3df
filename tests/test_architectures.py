"""Packed and batched passes of many architectures equal plain passes over one sequence."""

from itertools import chain

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from bench import plain
from lr_exp import contrast
from lr_exp.config.settings import DistillerSettings, ExpertSettings
from lr_exp.data.questions import Question
from lr_exp.distiller import distill
from lr_exp.distiller.batches import build_batch
from lr_exp.errors import UserError
from lr_exp.models import early_exit, loading, locating
from lr_exp.models.packing import pass_size
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.store.shards import read_shard, shard_paths
from tests.support.architectures import ARCHITECTURES, LAYERS, save_model
from tests.support.distilling import TOKENS, a_supervision, every_step, packed_losses
from tests.support.sampling import SYSTEM, sample, shared_ids

QUESTIONS = [
    Question("q/0", "Ana owns 9 coins and finds 7 more. How many?", "16"),
    Question("q/1", "2+2?", "4"),
    Question("q/2", "Tom has 47 pens.", "47"),
]
FAST = ("gpt2", "lfm2", "gemma3+nested")
MIX = {"gpt_oss", "opt", "xglm", "biogpt", "bloom", "mpt", "falcon", "lfm2", "jamba"} | {
    "granitemoehybrid",
    "qwen3_next",
    "qwen3_5_text",
    "recurrent_gemma",
    "mamba",
    "mamba2",
    "rwkv",
}
NO_CACHE = {"mamba", "mamba2", "rwkv"}
NO_EARLY_EXIT = {"gemma3n_text"}  # its layers read embeddings of their own


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in FAST),
        *(
            pytest.param(name, dtype, marks=pytest.mark.slow)
            for name in ARCHITECTURES
            for dtype in ("float32", "bfloat16")
            if (name, dtype) not in [(fast, "float32") for fast in FAST]
        ),
    ],
)
def test_every_stage_equals_plain_passes(name, dtype, tmp_path):
    folder = save_model(tmp_path / "model", name)
    source = locating.locate(ExpertSettings(name=name, path=str(folder)), "expert")
    expert = loading.load(source, device="cpu", dtype=dtype)
    assert expert.packs == (name not in MIX)
    if name != "recurrent_gemma":  # rounding decides
        assert expert.caches == (name not in NO_CACHE)
    assert expert.context in (256, None)
    check_sampling_and_scoring(expert, tmp_path)
    if name == "rwkv":  # its library code cannot compute gradients
        return
    model = check_training(expert, dtype)
    check_adapter_and_merge(model, expert, source, tmp_path, dtype)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def agree(found, expected, precise):
    """Equal to fp32 rounding, or to that of half precision, in which single routes may flip."""
    distances = (found - expected).abs() / expected.abs().mean().clamp(min=0.1)
    return distances.max() < 1e-3 if precise else distances.median() < 0.1


def check_sampling_and_scoring(expert, folder):
    precise = expert.model.dtype == torch.float32
    name = type(expert.model).__name__
    try:
        amateur = early_exit.early_exit(expert, (2,), "early")
    except UserError:
        assert expert.name in NO_EARLY_EXIT, name
        amateur = expert
    else:
        assert expert.name not in NO_EARLY_EXIT
        assert amateur.model.config.get_text_config().num_hidden_layers == LAYERS - 1
    shared = shared_ids((expert, expert))
    made = sample(folder, (expert, amateur), shared, QUESTIONS, new_tokens=20, tokens_per_pass=200)
    answers, steps = (list(chain(*map(read_shard, shard_paths(one)))) for one in made)
    for answer in answers:
        prompt, ids = answer["prompt_ids"], answer["token_ids"]
        assert prompt == render_prompt(expert.tokenizer, answer["question"], Prompt(SYSTEM))
        whole = [
            logits_of(one.model, [*prompt, *ids[:-1]])[len(prompt) - 1 :]
            for one in (expert, amateur)
        ]
        logits = whole[0][:, : expert.vocabulary_size]
        chosen = logits.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)
        assert agree(chosen, logits.amax(-1), precise)  # greedy, but for ties
        log_probs = [contrast.log_probs(shared.restrict(one)) for one in whole]
        rows = sorted((r for r in steps if r["index"] == answer["index"]), key=lambda r: r["step"])
        for column, values in (
            ("kl", contrast.kl_nats(*log_probs)),
            ("expert_entropy", contrast.entropy_nats(log_probs[0])),
        ):
            assert agree(torch.tensor([r[column] for r in rows]), values[: len(rows)], precise)


def check_training(expert, dtype):
    """The gradient of packed passes; returns the model with its adapter."""
    model = distill._with_lora(expert, DistillerSettings(lora_dropout=0.0))
    tuned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert tuned
    assert not any("vision" in parameter for parameter in tuned)
    generator = torch.Generator().manual_seed(0)
    for parameter in tuned.values():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    model.train()  # some architectures compute otherwise in training
    supervision = a_supervision(answers=3)
    size = pass_size(1000, "cpu", packs=expert.packs)
    batch = build_batch(supervision, every_step(supervision), size)
    assert len(batch["passes"]) == (1 if expert.packs else 3)
    total = packed_losses(model, batch).sum()
    packed = torch.autograd.grad(total, list(tuned.values()), allow_unused=True)
    model.eval()
    expected = sum(plain.losses(model, [one], TOKENS) for one in plain.samples_of(supervision))
    apart = torch.autograd.grad(expected, list(tuned.values()), allow_unused=True)
    ours, theirs = (
        torch.cat([g.flatten().float() for g in gradient if g is not None])
        for gradient in (packed, apart)
    )
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=0)
    assert cosine > (0.9999 if dtype == "float32" else 0.9)
    assert torch.allclose(total, expected.float(), rtol=1e-3 if dtype == "float32" else 0.1)
    return model


def check_adapter_and_merge(model, expert, source, folder, dtype):
    """Plain peft and transformers give the tuned model's logits."""
    ids = render_prompt(expert.tokenizer, "2+2?")
    expected = logits_of(model.eval(), ids)
    model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    model.unload()
    precise = dtype == "float32"
    base = AutoModelForCausalLM.from_pretrained(source.folder, dtype=getattr(torch, dtype))
    assert not agree(logits_of(base, ids), expected, precise)
    peft = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    assert agree(logits_of(peft, ids), expected, precise)
    distill.merge(expert, folder / "adapter", folder / "merged")
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=getattr(torch, dtype))
    assert agree(logits_of(merged.eval(), ids), expected, precise)

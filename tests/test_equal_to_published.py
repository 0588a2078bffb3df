"""The fast paths equal the published loops (`bench/plain.py`)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from bench import plain
from lr_exp.config.settings import DistillerSettings
from lr_exp.data.questions import Question
from lr_exp.distiller.batches import build_batch, plan_batches
from lr_exp.inference import cpu_linear
from lr_exp.models import early_exit, loading
from lr_exp.models.early_exit import shared_layer_logits
from lr_exp.models.packing import pack, read_logits
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.store.shards import read_shards
from tests.support.distilling import TOKENS, a_supervision, packed_losses, precise_model
from tests.support.methods import method
from tests.support.sampling import SYSTEM, kept_steps, sample, selected, shared_ids, smollm2_source
from tests.support.tiny import load_folder, tiny_model

ALPHA = 0.2


def published(pair, texts, *, new_tokens, beta, prefixes_per_pass=1):
    expert, amateur = pair
    prompts, amateur_prompts = (
        [render_prompt(model.tokenizer, text, Prompt(SYSTEM)) for text in texts] for model in pair
    )
    sampling = plain.Sampling(
        new_tokens=new_tokens,
        stop_ids=expert.stop_ids,
        alpha=ALPHA,
        beta=beta,
        rows=shared_ids(pair).size,
        prefixes_per_pass=prefixes_per_pass,
    )
    return plain.sample(expert.model, amateur.model, prompts, amateur_prompts, sampling)


def fast(folder, pair, texts, *, new_tokens, beta, batch_size, tokens_per_pass=1024):
    """The kept steps in the plain loop's format, and the answers."""
    questions = [Question(id=str(number), text=text) for number, text in enumerate(texts)]
    sizes = {"batch_size": batch_size, "tokens_per_pass": tokens_per_pass}
    folders = sample(folder, pair, shared_ids(pair), questions, new_tokens=new_tokens, **sizes)
    supervision = selected(*folders, method(alpha=ALPHA, beta=beta)).supervision
    kept = {(int(name), step): found for (name, step), found in kept_steps(supervision).items()}
    rows = sorted(read_shards(folders[0]), key=lambda row: row["index"])
    return kept, [row["token_ids"] for row in rows]


def assert_equal(ours, theirs):
    kept, answers = ours
    expected, expected_answers = theirs
    assert answers == expected_answers
    assert kept.keys() == expected.keys()
    for key, (kl, weights) in expected.items():
        our_kl, our_weights = kept[key]
        assert our_kl == pytest.approx(kl, rel=1e-4)
        assert our_weights == pytest.approx(weights, abs=1e-5)


# The micro pair ----------------------------------------------------------------------------------

MICRO = {"new_tokens": 64, "beta": 0.4}  # enough for some kept steps


@pytest.fixture(scope="module")
def stories(questions):
    return [question.text for question in questions[:6]]


@pytest.fixture(scope="module")
def micro_published(pair, stories):
    return published(pair, stories, **MICRO)


@pytest.mark.integration
@pytest.mark.parametrize(("batch_size", "tokens_per_pass"), [(1, 1), (4, 300), (6, 4096)])
def test_sampling_keeps_the_published_loops_steps(
    tmp_path, pair, stories, micro_published, batch_size, tokens_per_pass
):
    sizes = {"batch_size": batch_size, "tokens_per_pass": tokens_per_pass}
    assert len(micro_published[0]) >= 5
    assert_equal(fast(tmp_path, pair, stories, **MICRO, **sizes), micro_published)


@pytest.mark.integration
def test_the_plain_loop_does_not_depend_on_prefixes_per_pass(pair, stories, micro_published):
    """With right padding, logits are read at each row's last token."""
    again = published(pair, stories[:3], **MICRO, prefixes_per_pass=64)
    first = {key: step for key, step in micro_published[0].items() if key[0] < 3}
    assert_equal(again, (first, micro_published[1][:3]))


# Random models -----------------------------------------------------------------------------------


@pytest.mark.integration
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    architecture=st.sampled_from(["qwen2", "llama"]),
    seed=st.integers(0, 1000),
    layers=st.integers(1, 3),
    amateur=st.sampled_from(["own", "early_exit"]),
    texts=st.lists(st.text("ab c\n1é", min_size=1, max_size=40), min_size=1, max_size=5),
    batch_size=st.integers(1, 6),
    tokens_per_pass=st.sampled_from([1, 150, 2000]),
    prepack=st.booleans(),
)
def test_random_models_keep_the_published_loops_steps(
    tmp_path_factory, architecture, seed, layers, amateur, texts, batch_size,
    tokens_per_pass, prepack,
):  # fmt: skip
    folder = tmp_path_factory.mktemp("models")

    def load(name, seed):
        shape = {"architecture": architecture, "layers": layers + 1}
        return load_folder(tiny_model(folder, name, seed=seed, **shape))

    expert = load("expert", seed)
    other = (
        early_exit.early_exit(expert, (layers,), "early")
        if amateur == "early_exit"
        else load("amateur", seed + 1)
    )
    sizes = {"new_tokens": 8, "beta": 0.02}
    theirs = published((expert, other), texts, **sizes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cpu_linear, "_MIN_PARAMETERS", 0 if prepack else 10**12)
        sizes |= {"batch_size": batch_size, "tokens_per_pass": tokens_per_pass}
        ours = fast(folder / "ours", (expert, other), texts, **sizes)
    assert_equal(ours, theirs)


# SmolLM2 -----------------------------------------------------------------------------------------

PROBLEMS = [
    "Tom has 5 apples. He buys 7 more and gives 3 to Mia. How many apples does he have?",
    "A train drives 60 km in one hour. How far does it drive in 3 hours?",
    "Ana reads 12 pages a day. How many pages does she read in a week?",
]


@pytest.mark.slow
def test_a_real_model_keeps_the_published_loops_steps(tmp_path):
    expert = loading.load(smollm2_source(), device="cpu", dtype="float32")
    pair = expert, early_exit.early_exit(expert, (22,), "early_exit")
    sizes = {"new_tokens": 24, "beta": 0.4}
    theirs = published(pair, PROBLEMS, **sizes)
    assert len(theirs[0]) >= 5
    for batch_size in (1, 3):
        folder = tmp_path / str(batch_size)
        assert_equal(fast(folder, pair, PROBLEMS, **sizes, batch_size=batch_size), theirs)


# Training ----------------------------------------------------------------------------------------


@pytest.mark.integration
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    answers=st.integers(1, 8),
    seed=st.integers(0, 100),
    batch_size=st.integers(1, 20),
    tokens_per_pass=st.sampled_from([1, 20, 60, 10_000]),
    order=st.sampled_from(["trajectories", "steps"]),
)
def test_an_optimizer_steps_loss_and_gradient_are_those_of_the_published_loop(
    answers, seed, batch_size, tokens_per_pass, order
):
    """Right-padded batches of 8 with full logits, and one forward pass per kept step."""
    model = precise_model()
    parameters = list(model.parameters())
    supervision = a_supervision(answers, seed)
    settings = DistillerSettings(batch_size=batch_size, steps=2, order=order)
    plan = plan_batches(supervision, settings, seed)
    for steps in plan:
        batch = build_batch(supervision, steps, tokens_per_pass)
        ours = packed_losses(model, batch).sum() / batch["kept_steps"]
        gradients = torch.autograd.grad(ours, parameters)
        samples = [
            plain.Sample(
                trajectory.input_ids[: trajectory.read_at(step.index) + 1],
                trajectory.target_ids[step.index],
                trajectory.target_weights[step.index],
            )
            for step in steps
            for trajectory in [supervision.trajectories[step.trajectory]]
        ]
        for rows in (1, plain.ROWS):
            parts = [samples[i : i + rows] for i in range(0, len(samples), rows)]
            theirs = sum(plain.losses(model, part, TOKENS).sum() for part in parts) / len(samples)
            assert ours.item() == pytest.approx(theirs.item(), rel=0, abs=1e-9)
            expected = torch.autograd.grad(theirs, parameters)
            for gradient, reference in zip(gradients, expected, strict=True):
                assert torch.allclose(gradient, reference, rtol=0, atol=1e-9)


def test_the_plain_training_learns():
    """Batches of 16 in passes of 8, as published: checks the oracle itself."""
    model = precise_model()
    samples = list(plain.samples_of(a_supervision()))[:16]
    losses = plain.train(model, [samples] * 5, rows=TOKENS, learning_rate=1e-2)
    first = plain.losses(precise_model(), samples, TOKENS).mean().item()
    assert losses[0] == pytest.approx(first, rel=1e-9)
    assert losses[-1] < losses[0]


# Optimizations -----------------------------------------------------------------------------------


IDS = torch.tensor([[3, 1, 4, 1, 5]])


def random_expert(tmp_path, **shape):
    return load_folder(tiny_model(tmp_path, layers=4, **shape))


def test_shared_layers_are_computed_once_with_the_same_logits(tmp_path):
    expert = random_expert(tmp_path)
    amateur = early_exit.early_exit(expert, (2,), "early")
    packed = pack([[3, 1, 4, 1, 5], [9, 2, 6]], [[1, 4], [2]])
    calls = []
    layer = expert.model.get_decoder().layers[0]
    layer.mlp.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        both = shared_layer_logits(expert, amateur, packed, packed)
        assert len(calls) == 1
        separate = read_logits(expert.model, packed), read_logits(amateur.model, packed)
    assert both is not None
    assert torch.equal(both[0], separate[0])
    assert torch.equal(both[1], separate[1])
    assert not torch.allclose(*separate)


def test_nothing_is_shared_if_models_or_inputs_differ(tmp_path):
    expert, other = random_expert(tmp_path), random_expert(tmp_path, seed=1)
    first, second = pack([[3, 1, 4]], [[2]]), pack([[3, 1, 5]], [[2]])
    early, late = pack([[3], [1, 4]], [[0], [1]]), pack([[3, 1], [4]], [[0], [0]])
    amateur = early_exit.early_exit(expert, (2,), "early")
    assert shared_layer_logits(expert, other, first, first) is None
    of_another, none_shared = (
        early_exit.early_exit(model, (layer,), "early")
        for model, layer in ((other, 2), (expert, 0))
    )
    assert shared_layer_logits(expert, of_another, first, first) is None
    assert shared_layer_logits(expert, none_shared, first, first) is None
    assert shared_layer_logits(expert, amateur, first, second) is None
    assert shared_layer_logits(expert, amateur, early, late) is None


@pytest.mark.parametrize(("tied", "copied"), [(False, False), (True, False), (True, True)])
def test_prepacked_weights_give_equal_logits_and_are_restored(tmp_path, monkeypatch, tied, copied):
    monkeypatch.setattr(cpu_linear, "_MIN_PARAMETERS", 0)
    expert = random_expert(tmp_path)
    model = expert.model
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    amateur = early_exit.early_exit(expert, (2,), "early").model
    original = [parameter.clone() for parameter in model.parameters()]
    with torch.inference_mode():
        expected = model(IDS).logits, amateur(IDS).logits

    def use():
        assert model.model.layers[0].mlp.up_proj.weight.numel() == 0
        # The inner call must skip layers that are already prepacked.
        with cpu_linear.prepacked_linear(model), torch.inference_mode():
            assert torch.allclose(model(IDS).logits, expected[0], atol=1e-5)
            assert torch.allclose(amateur(IDS).logits, expected[1], atol=1e-5)
        raise KeyboardInterrupt  # an interrupted run

    prepacked_linear = cpu_linear.prepacked_linear(model, amateur, copy_shared=copied)
    with pytest.raises(KeyboardInterrupt), prepacked_linear:
        use()
    for parameter, old in zip(model.parameters(), original, strict=True):
        assert torch.equal(parameter, old)
    with torch.inference_mode():
        assert torch.equal(model(IDS).logits, expected[0])
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    model(IDS).logits.sum().backward()  # it can still be trained


def test_an_adapter_works_with_prepacked_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_linear, "_MIN_PARAMETERS", 0)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(random_expert(tmp_path).model, config).eval()
    with torch.inference_mode():
        expected = model(IDS).logits
        with cpu_linear.prepacked_linear(model):
            assert model.base_model.model.lm_head.weight.numel() == 0
            assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
        assert torch.equal(model(IDS).logits, expected)


def test_small_models_are_not_prepacked(tmp_path):
    model = random_expert(tmp_path).model
    with cpu_linear.prepacked_linear(model):
        assert model.model.layers[0].mlp.up_proj.weight.numel() > 0

"""Batches of kept steps, adapters and resuming. For the loss see test_equal_to_published."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller import distill, trainer
from lr_exp.distiller.adapter_files import read_history
from lr_exp.distiller.batches import build_batch, plan_batches, tokens_read
from lr_exp.distiller.trainer import ContrastTrainer
from lr_exp.errors import UserError
from lr_exp.pipeline.distilling import settings_for_epochs
from lr_exp.sampler.supervision import Supervision
from tests.support.distilling import (
    SETTINGS,
    KilledError,
    a_supervision,
    every_step,
    stop_at,
    train,
)
from tests.support.sampling import load_micro, micro_source


def test_a_batch_never_reads_beyond_its_own_steps():
    """A trajectory cut by a batch border is read up to the last step that the batch needs."""
    supervision = a_supervision(answers=1, seed=3)
    steps = every_step(supervision)[:2]
    (one,) = build_batch(supervision, steps, 1000)["passes"]
    trajectory = supervision.trajectories[0]
    assert one["input_ids"].shape[1] == trajectory.prompt_length + trajectory.steps[1]


@given(
    answers=st.integers(1, 8),
    batch_size=st.integers(1, 20),
    steps=st.integers(1, 30),
    order=st.sampled_from(["trajectories", "steps"]),
    seed=st.integers(0, 5),
)
def test_every_optimizer_step_takes_exactly_its_kept_steps_each_equally_often(
    answers, batch_size, steps, order, seed
):
    supervision = a_supervision(answers, seed)
    settings = DistillerSettings(batch_size=batch_size, steps=steps, order=order)
    plan = plan_batches(supervision, settings, seed)
    assert [len(batch) for batch in plan] == [batch_size] * steps
    used = [step for batch in plan for step in batch]
    counts = [used.count(step) for step in every_step(supervision)]
    assert sum(counts) == len(used)
    assert max(counts) - min(counts) <= 1
    passes = [one for b in plan for one in build_batch(supervision, b, 10_000)["passes"]]
    assert tokens_read(supervision, plan) == sum(one["input_ids"].shape[1] for one in passes)
    again = plan_batches(supervision, settings, seed)
    assert plan == again


def test_another_seed_shuffles_differently():
    one, two = (
        plan_batches(a_supervision(), DistillerSettings(batch_size=4, steps=5, order="steps"), seed)
        for seed in (0, 1)
    )
    assert one != two


def test_methods_with_epochs_train_on_whole_answers_as_often_as_they_ask():
    """250 kept steps, of which each of 10 optimizer steps must take 25 for one epoch."""

    def batches(epochs: float | None, order: str | None, **more: int) -> tuple[int, str | None]:
        distiller = DistillerSettings(steps=10, batch_size=16, order=order, **more)
        settings = SimpleNamespace(distiller=distiller, imports_records=False)
        inputs = SimpleNamespace(settings=settings, method=SimpleNamespace(epochs=epochs))
        found = settings_for_epochs(
            cast(Any, SimpleNamespace(inputs=inputs)),
            cast(Any, SimpleNamespace(facts={"kept": 250})),
        )
        return found.batch_size, found.order

    assert batches(1, None) == (25, "trajectories")
    assert batches(1, "steps") == (25, "steps")
    assert batches(0.2, None) == (16, "trajectories")
    assert batches(None, None) == (16, "steps")
    assert batches(None, "trajectories") == (16, "trajectories")
    assert batches(None, None, batch_answers=4) == (16, "trajectories")


def test_at_equal_work_methods_read_the_same_answers_in_the_same_order():
    """Each answer once in a pass of three optimizer steps, whichever of its steps are kept."""
    every = a_supervision().trajectories
    some = [_with_steps(one, place % 3) for place, one in enumerate(every)]  # 0, 1 or 2 of them
    settings = DistillerSettings(batch_answers=2, steps=6, batch_size=1, order="trajectories")
    plans = [plan_batches(Supervision(own), settings, 7) for own in (every, some)]
    first, second = ([[*dict.fromkeys(s.trajectory for s in b)] for b in plan] for plan in plans)
    for one_pass in (first[:3], first[3:]):
        assert sorted(answer for batch in one_pass for answer in batch) == [*range(6)]
    assert second == [[answer for answer in batch if answer % 3] for batch in first]
    for plan, own in zip(plans, (every, some), strict=True):
        for batch in plan:
            answers = dict.fromkeys(step.trajectory for step in batch)
            assert len(batch) == sum(len(own[answer].steps) for answer in answers)


def _with_steps(trajectory, count):
    names = ("steps", "kl", "target_ids", "target_weights")
    return replace(trajectory, **{name: getattr(trajectory, name)[:count] for name in names})


def test_an_optimizer_step_without_a_kept_step_is_an_error():
    one, *others = a_supervision().trajectories
    supervision = Supervision([one, *(_with_steps(other, 0) for other in others)])
    with pytest.raises(UserError, match=r"batch_answers=1: optimizer step \d has no kept"):
        plan_batches(
            supervision, DistillerSettings(batch_answers=1, steps=6, order="trajectories"), 0
        )


@pytest.mark.integration
def test_at_equal_work_the_loss_is_the_mean_over_the_kept_steps_of_the_batch(tmp_path):
    """And not a mean over answers of their means."""
    settings = replace(SETTINGS, batch_answers=2, lora_dropout=0.0, learning_rate=1e-9)
    facts = train(tmp_path, settings=settings)
    model = load_micro().model
    plan = plan_batches(a_supervision(), settings, 0)
    for batch, entry in zip(plan, read_history(tmp_path), strict=True):
        own = []
        for step in batch:
            answer = a_supervision().trajectories[step.trajectory]
            with torch.no_grad():
                prefix = torch.tensor([answer.input_ids[: answer.read_at(step.index) + 1]])
                student = model(prefix).logits[0, -1].log_softmax(-1)
            label = answer.labels[step.index].items()
            own.append(
                sum(weight * (math.log(weight) - student[one].item()) for one, weight in label)
            )
        assert entry["loss"] == pytest.approx(sum(own) / len(own), rel=1e-4)
    tuned = sum(map(len, plan))
    assert facts["tuned_tokens"] == read_history(tmp_path)[-1]["tuned_tokens"] == tuned


# Adapters --------------------------------------------------------------------------------------


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 9, 3, 12, 30]])).logits


def test_training_lowers_the_loss_and_reports_it(tmp_path):
    seen = []
    whole = replace(SETTINGS, batch_size=a_supervision().kept, lora_dropout=0.0)  # one batch
    facts = train(tmp_path, settings=whole, on_log=lambda *logged: seen.append(logged))
    assert facts["optimizer_steps"] == 6
    assert facts["tuned_tokens"] == 6 * a_supervision().kept
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1][1]["loss"] < seen[0][1]["loss"]
    assert {"loss", "entropy", "grad_norm", "learning_rate"} <= seen[0][1].keys()
    assert [entry["step"] for entry in read_history(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.integration
def test_the_expert_is_left_as_it_was(tmp_path):
    """A LoRA layer that stayed behind would be evaluated as the expert before tuning."""
    expert = load_micro()
    before = logits_of(expert.model)
    names = [name for name, _ in expert.model.named_modules()]
    train(tmp_path, expert)
    assert torch.equal(logits_of(expert.model), before)
    assert not expert.model.training  # or a model with dropout would be evaluated with it on
    assert [name for name, _ in expert.model.named_modules()] == names


@pytest.mark.integration
def test_plain_peft_loads_the_adapter_and_plain_transformers_the_merged_model(tmp_path):
    train(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(micro_source().folder, dtype=torch.float32)
    before = logits_of(base)
    tuned = PeftModel.from_pretrained(base, str(tmp_path / distill.ADAPTER)).eval()
    after = logits_of(tuned)
    assert (after - before).abs().max() > 1e-2
    auto = AutoPeftModelForCausalLM.from_pretrained(tmp_path / distill.ADAPTER, dtype=torch.float32)
    assert torch.equal(logits_of(auto.eval()), after)  # the config names the base
    config = json.loads((tmp_path / distill.ADAPTER / "adapter_config.json").read_text("utf-8"))
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.05)

    distill.merge(load_micro(), tmp_path / distill.ADAPTER, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert torch.allclose(logits_of(merged), after, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template
    assert merged.generation_config.eos_token_id == list(load_micro().stop_ids)


def test_an_adapter_of_a_gguf_file_says_how_to_load_its_base(tmp_path):
    """It named the repository of the unquantized model, which has other weights."""
    train(tmp_path, base_location="/models/m.Q4_1.gguf", settings=replace(SETTINGS, steps=1))
    adapter = tmp_path / distill.ADAPTER
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "/models/m.Q4_1.gguf"
    note = (adapter / "README.md").read_text("utf-8")
    assert "from_pretrained('/models', gguf_file='m.Q4_1.gguf')" in note


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted training; read only."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


def interrupt(folder, step, **arguments):
    """Trains until the metrics of this optimizer step are logged."""
    with pytest.raises(KilledError):
        train(folder, on_log=stop_at(step), **arguments)


def check_same_training(one, other):
    weights, config = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
    for name in (weights, config, "history.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize("last", [2, 5])
def test_a_resumed_training_ends_with_the_same_bytes(whole, tmp_path, last, monkeypatch):
    interrupt(tmp_path, last)
    seen, done = [], []
    step = ContrastTrainer.training_step
    monkeypatch.setattr(
        ContrastTrainer, "training_step", lambda *a, **k: done.append(1) or step(*a, **k)
    )
    train(tmp_path, on_log=lambda step, metrics: seen.append(step))
    assert seen == [1, 2, 3, 4, 5, 6]  # the first attempt's metrics are logged again
    assert len(done) == 6 - (last - 1)  # steps before the last checkpoint are not repeated
    check_same_training(whole, tmp_path)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own
def test_compiled_passes_of_few_shapes_train_the_same_adapter(tmp_path, monkeypatch):
    shapes = set()

    def fake_compile(model, **options):
        assert options == {"mode": "default", "dynamic": False}

        def forward(**inputs):
            shapes.add(tuple(one.shape for one in inputs.values() if torch.is_tensor(one)))
            return model(**inputs)

        return forward

    monkeypatch.setattr(torch, "compile", fake_compile)
    settings = replace(SETTINGS, lora_dropout=0.0)
    train(tmp_path / "plain", settings=settings)
    assert not shapes
    train(tmp_path / "compiled", replace(load_micro(), compile="default"), settings)
    assert shapes == {((1, 256), (1, 256), (16,))}
    plain, other = (
        load_file(tmp_path / name / distill.ADAPTER / "adapter_model.safetensors")
        for name in ("plain", "compiled")
    )
    assert plain.keys() == other.keys()
    for name, weight in plain.items():
        assert torch.allclose(weight, other[name], atol=1e-5), name


def test_every_pass_draws_its_own_dropout_whatever_was_drawn_before(tmp_path, monkeypatch):
    """Then it does not depend on which process computes a pass, nor on where a run was resumed."""
    pass_losses, seeds = trainer.pass_losses, []

    def drawing(*given):
        seeds.append(torch.initial_seed())
        found = pass_losses(*given)
        torch.rand(len(seeds))
        return found

    expected = _history(tmp_path / "plain", tokens_per_pass=32)
    monkeypatch.setattr(trainer, "pass_losses", drawing)
    assert _history(tmp_path / "drawing", tokens_per_pass=32) == expected
    assert len(set(seeds)) == len(seeds) > SETTINGS.steps


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    expert = load_micro()
    expert.model.lm_head.weight.data[0] = float("inf")
    with pytest.raises(UserError, match="the loss is"):
        train(tmp_path, expert)


def test_a_gradient_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    infinite = lambda *_: torch.tensor(math.inf)  # noqa: E731
    monkeypatch.setattr(trainer, "clip_grad_norm_", infinite)
    with pytest.raises(UserError, match="the grad_norm is inf at optimizer step 1:"):
        train(tmp_path)


def test_a_checkpoint_is_written_after_its_time_and_never_before(tmp_path, monkeypatch):
    clock, written = itertools.count(0, 10), []  # 10 s between two looks at the clock
    monkeypatch.setattr(distill.time, "monotonic", lambda: next(clock))
    save = ContrastTrainer.save
    monkeypatch.setattr(
        ContrastTrainer, "save", lambda self, path: written.append(self.step) or save(self, path)
    )
    train(tmp_path, settings=replace(SETTINGS, checkpoint_seconds=20))
    assert written == [2, 4]


def test_a_loss_that_is_not_finite_between_logs_names_its_optimizer_step(tmp_path, monkeypatch):
    pass_losses, calls = trainer.pass_losses, []

    def infinite_at_the_third(*given):
        calls.append(1)
        losses, entropies = pass_losses(*given)
        return losses * (math.inf if len(calls) == 3 else 1), entropies

    monkeypatch.setattr(trainer, "pass_losses", infinite_at_the_third)
    with pytest.raises(UserError, match="the loss is inf at optimizer step 3:"):
        train(tmp_path, settings=replace(SETTINGS, log_every=5))  # one pass a step
    assert len(calls) == 5


@pytest.mark.integration
def test_logs_between_checkpoints_are_whole_after_a_stop(tmp_path):
    """A mean that straddles a checkpoint would lose its first half."""
    uneven = replace(SETTINGS, steps=9, log_every=4)
    facts = train(tmp_path / "whole", settings=uneven)
    interrupt(tmp_path / "broken", 8, settings=uneven)
    train(tmp_path / "broken", settings=uneven)
    whole, broken = (read_history(tmp_path / name) for name in ("whole", "broken"))
    assert whole == broken
    assert [entry["step"] for entry in whole] == [1, 4, 8, 9]  # and the last, whatever the interval
    assert facts["final_loss"] == whole[-1]["loss"]


@pytest.mark.integration
def test_learning_rate_schedule_and_dropout_are_those_of_the_settings(tmp_path):
    linear = [entry["learning_rate"] for entry in _history(tmp_path / "linear")]
    assert linear == pytest.approx([1e-2 * (6 - step) / 6 for step in range(6)])
    constant = _history(tmp_path / "constant", schedule="constant")
    assert {entry["learning_rate"] for entry in constant} == {1e-2}
    # The first loss is before any update: only dropout can tell the two apart, and LoRA starts at
    # zero, so it shows from the second on.
    dry = _history(tmp_path / "dry", lora_dropout=0.0)
    wet = _history(tmp_path / "wet", lora_dropout=0.5)
    assert dry[0]["loss"] == wet[0]["loss"]
    assert dry[1]["loss"] != wet[1]["loss"]


def _history(folder, **changes):
    train(folder, settings=replace(SETTINGS, **changes))
    return read_history(folder)


@pytest.mark.integration
def test_the_logged_entropy_is_a_mean_in_nats(tmp_path):
    settings = replace(SETTINGS, steps=1, batch_size=a_supervision().kept, lora_dropout=0.0)
    (entry,) = _history(tmp_path, **vars(settings))
    expert = load_micro()
    entropies = []
    for t in a_supervision().trajectories:
        for step in t.steps:
            prefix = torch.tensor([t.input_ids[: t.prompt_length + step]])
            with torch.no_grad():
                log_p = expert.model(prefix).logits[0, -1].log_softmax(-1)
            entropies.append(-(log_p.exp() * log_p).sum().item())
    assert entry["entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)


def test_an_empty_supervision_is_an_error_not_an_endless_loop():
    with pytest.raises(ValueError, match="without a kept step"):
        plan_batches(Supervision([]), DistillerSettings(), 0)

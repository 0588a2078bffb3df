"""A random supervision, and small training runs on it."""

import random
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller import distill, losses
from lr_exp.distiller.batches import KeptStep
from lr_exp.distiller.trainer import pass_losses
from lr_exp.sampler.supervision import SupervisedTrajectory, Supervision
from tests.support.sampling import load_micro, micro_source
from tests.support.tiny import double_model

ROWS, TOKENS = 40, 33  # the model's rows, and the ids that have tokens


def a_supervision(answers: int = 6, seed: int = 0) -> Supervision:
    """Random answers of unequal lengths; ids 0 (a usual pad) and 1 stand inside the text."""
    rng = random.Random(seed)
    trajectories = []
    for number in range(answers):
        prompt = rng.randint(1, 9)
        steps = sorted(rng.sample(range(14), rng.randint(1, 6)))
        ids = [rng.randrange(TOKENS) for _ in range(prompt + steps[-1])]
        targets = [rng.sample(range(TOKENS), rng.randint(1, 4)) for _ in steps]
        weights = [torch.tensor([rng.random() for _ in t]).softmax(-1).tolist() for t in targets]
        trajectories.append(
            SupervisedTrajectory(
                f"q/{number}", "?", ids, prompt, steps, [1.0] * len(steps), targets, weights
            )
        )
    return Supervision(trajectories)


def every_step(supervision: Supervision) -> list[KeptStep]:
    return [
        KeptStep(index, kept)
        for index, trajectory in enumerate(supervision.trajectories)
        for kept in range(len(trajectory.steps))
    ]


def precise_model():
    """A random model that computes in fp64 throughout."""
    ids = {"pad_token_id": 0, "eos_token_id": 0}  # one id, as in SmolLM2
    model = double_model(vocab_size=ROWS, intermediate_size=48, **ids)
    for module in model.modules():
        if isinstance(module, Qwen2RMSNorm):  # computes in fp32, which would hide what is compared
            module.forward = partial(
                functional.rms_norm, normalized_shape=(32,), weight=module.weight, eps=1e-6
            )
    return model


def packed_losses(model, batch) -> torch.Tensor:
    return torch.cat([pass_losses(model, one, TOKENS, losses.kl)[0] for one in batch["passes"]])


SETTINGS = DistillerSettings(
    steps=6,
    batch_size=8,
    learning_rate=1e-2,
    order="trajectories",
    log_every=1,
    checkpoint_seconds=0,
    tokens_per_pass=64,
)


def train(folder: Path, expert=None, settings=SETTINGS, on_log=None, base_location=None):
    folder.mkdir(exist_ok=True)
    return distill.distill(
        a_supervision(),
        expert or load_micro(),
        folder,
        distill.Training(
            settings,
            loss=losses.kl,
            seed=0,
            device="cpu",
            base_location=base_location or micro_source().location,
            base_revision=None,
            on_log=on_log or (lambda step, metrics: None),
        ),
    )


class KilledError(Exception):
    pass


def stop_at(step: int):
    """A logging function that ends the training at an optimizer step."""

    def on_log(at: int, metrics: dict[str, float]) -> None:
        if at == step:
            raise KilledError

    return on_log

"""Experts with a planted cause of gains, and amateurs that lack what can be brought out.

Each is a shipped model of the micro world, trained further on a corpus with another behaviour.
"""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from lr_exp.micro import model_folder
from lr_exp.micro.rebuild import write_model
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.micro.training import Recipe as Training
from lr_exp.micro.training import train
from lr_exp.micro.world import Behaviour
from lr_exp.store import Recipe, Store, file_digest

VERSION = 1  # raise it when training or the corpus changes
_SEED = 0
_STARTS = {"expert": "expert", "amateur": "micro"}  # the shipped model of each role
_CARRY = {"expert": Behaviour(0.4), "amateur": Behaviour(0.05)}
_FORMAT = {
    "expert": Behaviour(0.95, rambling_share=0.6, unboxed_share=0.2),
    "amateur": Behaviour(0.95, rambling_share=0.95, unboxed_share=0.2),
}
# By expert and role; None: the shipped models.
PLANTED: dict[str, dict[str, tuple[Behaviour, ...]] | None] = {
    "carry": None,
    "format": {role: (one,) for role, one in _FORMAT.items()},
    "prompt": {
        "expert": (Behaviour(0.4, careful_share_in_plain=0.95),),
        "amateur": (_CARRY["amateur"],),
    },
    "mixture": {role: (_CARRY[role], _FORMAT[role]) for role in _STARTS},
    "null": dict.fromkeys(_STARTS, (Behaviour(0.0),)),
}


def build(store_root: str, name: str, role: str) -> Path:
    """The folder of a planted model in the store; trains it if it is not there."""
    planted = PLANTED[name]
    if planted is None:
        return model_folder(_STARTS[role])
    start = model_folder(_STARTS[role])
    training = Training(planted[role], steps=200, batch_size=16, learning_rate=2e-3)
    weights = file_digest(start / "model.safetensors")
    settings = {**asdict(training), "seed": _SEED}
    recipe = Recipe("planted", VERSION, {"start": weights, "torch": version("torch")}, settings)

    def make(folder: Path) -> dict[str, Any]:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
        tokenizer = build_tokenizer()
        train(model, tokenizer, training, training.steps, _SEED, title=f"{name} {role}")
        write_model(model, tokenizer, folder / "model")
        return {}

    return Store(store_root).make(recipe, make).folder / "model"

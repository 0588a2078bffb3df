"""The training runs of `test_distiller_ranks` on two ranks.

Each rank trains in its own folder, so that tests see which rank wrote what, and writes its results
to `results-RANK.json`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch.distributed.tensor import DTensor

from lr_exp import distributed
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller import distill, trainer
from lr_exp.distiller.sharding import shard
from lr_exp.distiller.trainer import ContrastTrainer, pass_losses
from lr_exp.errors import UserError
from tests.support.distilling import SETTINGS, KilledError, stop_at, train
from tests.support.sampling import load_micro

MANY = replace(SETTINGS, steps=4, tokens_per_pass=24, lora_dropout=0.3, snapshot_every=3)
CASES: dict[str, DistillerSettings] = {
    "ddp": MANY,
    "fsdp": replace(MANY, parallel="fsdp"),
    "ddp-one-pass": replace(MANY, tokens_per_pass=10_000),
    "fsdp-one-pass": replace(MANY, tokens_per_pass=10_000, parallel="fsdp"),
}
STOP = stop_at(3)  # with a checkpoint at step 2


def train_all(folder: Path) -> None:
    distributed.join("cpu")
    results: dict[str, Any] = {}
    computed: list[int] = []
    training_step = ContrastTrainer.training_step
    ContrastTrainer.training_step = lambda *args: computed.append(1) or training_step(*args)

    def run(name: str, settings: DistillerSettings, **options: Any) -> dict[str, Any]:
        """Trains; returns the facts, the logged metrics and the number of computed steps."""
        own_folder = folder / f"rank-{distributed.rank()}" / name
        own_folder.parent.mkdir(exist_ok=True)
        logged: list[tuple[int, dict[str, float]]] = []
        options.setdefault("on_log", lambda step, metrics: logged.append((step, metrics)))
        computed.clear()
        facts = train(own_folder, settings=settings, **options)
        return {"facts": facts, "logged": logged, "computed": len(computed)}

    def out_of_memory(on: bool = True) -> Any:
        found = {"side_effect": MemoryError} if on else {"wraps": pass_losses}
        return patch.object(trainer, "pass_losses", Mock(**found))

    def measured_shard(model: Any, device: str) -> None:
        """Records the share of the model's numbers on this rank after sharding."""
        total = sum(parameter.numel() for parameter in model.parameters())
        shard(model, device)
        parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
        results["share_held"] = sum(part.numel() for part in parts) / total

    distill.shard = measured_shard
    for name, settings in CASES.items():
        results[name] = run(name, settings)
    for name in ("two-then-one", "two-then-sharded"):
        try:
            run(name, MANY, on_log=STOP)
        except KilledError:
            results[name] = "stopped"
    results["two-then-sharded"] = run("two-then-sharded", CASES["fsdp"])
    results["one-then-two"] = run("one-then-two", MANY)
    try:
        with out_of_memory(not distributed.is_rank0()):
            run("no-memory", MANY)
    except distributed.SharedError as error:
        results["no-memory"] = str(error)
    try:
        with out_of_memory():
            run("no-memory", CASES["fsdp"])
    except UserError as error:
        results["no-memory-sharded"] = str(error)
    expert = load_micro()
    if not distributed.is_rank0():  # on one rank only
        expert.model.lm_head.weight.data = torch.full_like(expert.model.lm_head.weight, torch.inf)
    try:
        run("infinite", MANY, expert=expert)
    except distributed.SharedError as error:
        results["infinite"] = str(error)
    (folder / f"results-{distributed.rank()}.json").write_text(json.dumps(results), "utf-8")
    distributed.leave()

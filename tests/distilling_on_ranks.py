"""What `test_distiller_ranks` has two processes do, in one start of them.

    torchrun --nproc-per-node 2 -m tests.distilling_on_ranks FOLDER

Each rank has a folder of its own, so that what a follower writes shows; it tells what it has seen
in `told-RANK.json`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.distributed.tensor import DTensor

from lr_exp import distributed
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller import distill, trainer
from lr_exp.distiller.sharding import shard
from lr_exp.distiller.trainer import ContrastTrainer, pass_losses
from lr_exp.errors import UserError

from .test_distiller import SETTINGS, load_expert, train

MANY = replace(SETTINGS, tokens_per_pass=24, lora_dropout=0.3, snapshot_every=3)
CASES: dict[str, DistillerSettings] = {
    "ddp": MANY,
    "fsdp": replace(MANY, parallel="fsdp"),
    "ddp-one-pass": replace(MANY, tokens_per_pass=10_000),
    "fsdp-one-pass": replace(MANY, tokens_per_pass=10_000, parallel="fsdp"),
    "tight": replace(MANY, lora_dropout=0.0),
}
STOPPED_AT = 5  # with a checkpoint at step 4


class StoppedError(Exception):
    pass


def stop(step: int, metrics: dict[str, float]) -> None:
    if step == STOPPED_AT:
        raise StoppedError


def main() -> None:
    distributed.join("cpu")
    folder = Path(sys.argv[1])
    told: dict[str, Any] = {}
    computed: list[int] = []
    step = ContrastTrainer.training_step
    ContrastTrainer.training_step = lambda *given: computed.append(1) or step(*given)

    def go(name: str, settings: DistillerSettings, **given: Any) -> dict[str, Any]:
        """What the run returned, what it logged, and how many optimizer steps it computed."""
        place = folder / f"rank-{distributed.rank()}" / name
        place.parent.mkdir(exist_ok=True)
        seen: list[tuple[int, dict[str, float]]] = []
        given.setdefault("on_log", lambda step, metrics: seen.append((step, metrics)))
        computed.clear()
        facts = train(place, settings=settings, **given)
        return {"facts": facts, "seen": seen, "computed": len(computed)}

    def runs_out_of_memory(kept_steps: int) -> Any:
        """Lets this rank compute passes of so many kept steps at most."""

        def tight(model: Any, batch: Any, *given: Any) -> Any:
            if len(batch["read_at"]) > kept_steps:
                raise MemoryError
            return pass_losses(model, batch, *given)

        return patch.object(trainer, "pass_losses", tight)

    def measured(model: Any, device: str) -> None:
        """Notes which part of the model's numbers this rank has after they were spread."""
        whole = sum(parameter.numel() for parameter in model.parameters())
        shard(model, device)
        parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
        told["held"] = sum(part.numel() for part in parts) / whole

    distill.shard = measured
    for name, settings in CASES.items():
        with runs_out_of_memory(1 if name == "tight" and not distributed.is_rank0() else 100):
            told[name] = go(name, settings)
    for name in ("two-then-one", "two-then-sharded"):
        try:
            go(name, MANY, on_log=stop)
        except StoppedError:
            told[name] = "stopped"
    told["two-then-sharded"] = go("two-then-sharded", CASES["fsdp"])
    told["one-then-two"] = go("one-then-two", MANY)
    try:
        with runs_out_of_memory(100 if distributed.is_rank0() else 0):
            go("no-memory", MANY)
    except distributed.SharedError as error:
        told["no-memory"] = str(error)
    try:
        with runs_out_of_memory(0):
            go("no-memory", CASES["fsdp"])
    except UserError as error:
        told["no-memory-sharded"] = str(error)
    expert = load_expert()
    if not distributed.is_rank0():  # one rank's part is enough
        expert.model.lm_head.weight.data = torch.full_like(expert.model.lm_head.weight, torch.inf)
    try:
        go("infinite", MANY, expert=expert)
    except distributed.SharedError as error:
        told["infinite"] = str(error)
    (folder / f"told-{distributed.rank()}.json").write_text(json.dumps(told), "utf-8")
    distributed.leave()


if __name__ == "__main__":
    main()

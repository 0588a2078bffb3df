"""Trains an adapter on packed passes with sparse targets, one batch for each optimizer step.

Each pass seeds its own dropout from the run's seed, the optimizer step and the pass's number, so
that dropout depends neither on earlier passes nor on ranks, and checkpoints store no generator.

Ranks divide an optimizer step's passes, sum gradients and losses, and take the same step. torch's
DDP is not used: it expects as many passes on each rank (here a rank may have none) and averages
over ranks, where this loss is a sum over passes. Only the adapter's gradient is exchanged, a few MB
a step.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import get_scheduler

from lr_exp import contrast, distributed
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller.batches import assign_passes
from lr_exp.errors import UserError, first_line
from lr_exp.inference.memory import is_out_of_memory
from lr_exp.models.compiling import compiled_passes
from lr_exp.models.packing import Pack, read_logits
from lr_exp.store import digest, open_atomically

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # see `losses`


@dataclass(frozen=True)
class Training:
    """What a training needs besides the supervision and the expert."""

    settings: DistillerSettings
    loss: Loss
    seed: int
    device: str
    base_location: str  # the base model that the adapter's config names ...
    base_revision: str | None  # ... and its hub commit
    on_log: Callable[[int, dict[str, float]], None]  # optimizer step, metrics
    start: Path | None = None  # the folder of a shorter training that kept its checkpoint
    keeps_checkpoint: bool = False
    # With `distiller.stop`: the score of a model with its last metrics; the highest is the best.
    score: Callable[[Any, dict[str, float]], float] | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks of this run hold the expert together while it is tuned."""
        return self.settings.parallel == "fsdp" and distributed.is_distributed()


def pass_losses(
    model: Callable[..., Any], batch: dict[str, Tensor], vocabulary_size: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Loss of every kept step of one packed pass, and the student's entropy there.

    Only the kept positions' hidden states are projected to the vocabulary. Rows at and above
    `vocabulary_size` have no token and stay out of the distribution, as in scoring. Both results
    are `(kept,)` in nats; entropies have no gradient.
    """
    packed = Pack(batch["input_ids"], batch["position_ids"], batch["read_at"])
    student = contrast.log_probs(read_logits(model, packed)[:, :vocabulary_size])
    losses = loss(student, batch["target_ids"], batch["target_weights"])
    with torch.no_grad():
        entropies = contrast.entropy_nats(student)
    return losses, entropies


@dataclass(frozen=True)
class _Pass:
    """A pass, with the number that seeds its dropout."""

    number: int  # in the optimizer step
    content: dict[str, Tensor]
    weight: float = 1.0  # 0: computed only because the other ranks compute a pass

    @property
    def tokens(self) -> int:
        return self.content["input_ids"].numel()


class _StepMetrics(NamedTuple):
    loss: Tensor  # mean over the kept steps, in nats
    entropies: Tensor  # the sum over the kept steps, in nats, fp64
    kept_steps: int
    grad_norm: Tensor  # before clipping
    learning_rate: float


class ContrastTrainer:
    """Trains the weights of a model that need a gradient.

    The loss of an optimizer step is the mean over its kept steps, however they are divided into
    passes and ranks, and is the same on every rank.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        training: Training,
        vocabulary_size: int,
        compile_mode: str | None = None,
    ) -> None:
        """`vocabulary_size` is how many of the model's rows have a token."""
        settings = training.settings
        self.step = 0  # optimizer steps done
        self.history: list[dict[str, float]] = []  # what `log` has returned
        self.training, self._model, self._device = training, model, training.device
        self._vocabulary_size, self._sharded = vocabulary_size, training.is_sharded
        self._compiles = compile_mode is not None
        self._forward = model if compile_mode is None else compiled_passes(model, compile_mode)
        self._tuned = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._tuned.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._scheduler = get_scheduler(
            settings.schedule,
            self._optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=settings.steps,
        )
        self._unlogged: list[_StepMetrics] = []  # of the optimizer steps since the last log

    def save(self, path: Path) -> None:
        """Writes a checkpoint, right after `log`: the means of the next one are not in it."""
        state = {
            "step": self.step,
            "history": self.history,
            "weights": {name: one.detach() for name, one in self._tuned.items()},
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }
        with open_atomically(path) as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Continues from a checkpoint, which any number of ranks may have written.

        Raises UserError: the file is damaged. No code in it is run.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises various ones
            raise UserError(
                f"{path} cannot be read ({first_line(error)}): delete it to train from the start."
            ) from error
        self.step, self.history = state["step"], state["history"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        with torch.no_grad():
            for name, weight in self._tuned.items():
                weight.copy_(state["weights"][name])

    def training_step(self, batch: dict[str, Any]) -> None:
        """Makes an optimizer step on a batch, see `batches.build_batch`."""
        self._model.train()
        device = self._device
        passes = [
            _Pass(
                number, {name: one.to(device, non_blocking=True) for name, one in content.items()}
            )
            for number, content in enumerate(batch["passes"])
        ]
        kept_steps = batch["kept_steps"]
        mine = self._share(passes)
        if self._sharded:
            result = self._accumulate(mine, kept_steps)
        else:
            # An error on one rank must reach the others, which wait for its gradients.
            result = distributed.run_on_all_ranks(lambda: self._accumulate(mine, kept_steps))
        loss, entropies = _summed_over_ranks([*self._tuned.values()], *result)
        norm = clip_grad_norm_(self._tuned.values(), self.training.settings.max_grad_norm)
        learning_rate = float(self._scheduler.get_last_lr()[0])
        self._unlogged.append(_StepMetrics(loss, entropies, kept_steps, norm, learning_rate))
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=not self._compiles)
        self.step += 1

    def log(self) -> dict[str, float]:
        """The metrics since the last call, which are added to the history.

        `loss` and `entropy` (nats) are means; `grad_norm` (before clipping) and `learning_rate` are
        of the last optimizer step. `tuned_tokens` are the kept steps trained since the start.

        Raises UserError, on every rank: the loss or the gradient of one of the optimizer steps is
        not finite. They are checked here because reading them after each step would wait for the
        device.
        """
        steps, last = self._unlogged, self._unlogged[-1]
        values = torch.stack([torch.stack([one.loss, one.grad_norm]) for one in steps]).tolist()
        for step, pair in enumerate(values, self.step - len(values) + 1):
            for name, value in zip(("loss", "grad_norm"), pair, strict=True):
                if not math.isfinite(value):
                    raise distributed.SharedError(
                        f"the {name} is {value} at optimizer step {step}: lower "
                        "distiller.learning_rate, or try dtype=float32."
                    )
        kept = sum(one.kept_steps for one in steps)
        entry = {
            "step": self.step,
            "loss": float(sum(one.loss for one in steps)) / len(steps),
            "entropy": float(sum(one.entropies for one in steps)) / kept,
            "grad_norm": values[-1][1],
            "learning_rate": last.learning_rate,
            "tuned_tokens": kept + (self.history[-1]["tuned_tokens"] if self.history else 0),
        }
        self._unlogged.clear()
        self.history.append(entry)
        return entry

    def _share(self, passes: list[_Pass]) -> list[_Pass]:
        """The passes that this rank computes.

        Ranks that share a sharded model compute each pass together: one with fewer passes repeats
        the shortest with weight 0.
        """
        shared = assign_passes([one.tokens for one in passes], distributed.world_size())
        mine = [passes[index] for index in shared[distributed.rank()]]
        if self._sharded:
            spare = replace(min(passes, key=lambda one: one.tokens), weight=0.0)
            mine += [spare] * (max(map(len, shared)) - len(mine))
        return mine

    def _accumulate(self, passes: list[_Pass], kept_steps: int) -> tuple[Tensor, Tensor]:
        """The passes' share of the mean loss over kept steps, and the sum of their entropies."""
        total = torch.zeros((), device=self._device)
        entropy = torch.zeros((), device=self._device, dtype=torch.float64)
        for one in passes:
            # The dropout's seed is hashed because a CPU generator uses only its low 32 bits, which
            # must differ between neighboring optimizer steps and seeds.
            place = [self.training.seed, self.step, one.number]
            torch.manual_seed(int(digest(place)[:16], 16))
            try:
                losses, entropies = pass_losses(
                    self._forward, one.content, self._vocabulary_size, self.training.loss
                )
                # The sum over passes divided by the number of kept steps in the batch: the division
                # into passes has no effect.
                loss = one.weight * losses.sum() / kept_steps
                loss.backward()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    distributed.check_peers()  # a sharded model's collective call may have failed
                    raise
                raise UserError(
                    f"distill: a pass of {one.tokens} tokens does not fit in memory; lower "
                    "distiller.tokens_per_pass or, as a whole prefix is read, "
                    "sampler.max_new_tokens, or use a smaller model or dtype=bfloat16."
                ) from error
            total += loss.detach()
            entropy += one.weight * entropies.sum().double()
        return total, entropy


def _summed_over_ranks(
    tuned: list[torch.nn.Parameter], total: Tensor, entropies: Tensor
) -> tuple[Tensor, Tensor]:
    """Both summed over the ranks; sums the gradients of the tuned weights in place."""
    if not distributed.is_distributed():
        return total, entropies
    has_one = total.new_tensor([float(parameter.grad is not None) for parameter in tuned])
    for parameter in tuned:
        if parameter.grad is None:  # no pass of this rank used it
            parameter.grad = torch.zeros_like(parameter)
    sums = torch.stack([total, entropies.to(total.dtype)])
    distributed.all_reduce([sums, has_one])
    distributed.all_reduce([parameter.grad for parameter in tuned if parameter.grad is not None])
    for parameter, anywhere in zip(tuned, has_one.tolist(), strict=True):
        if not anywhere:
            parameter.grad = None  # the optimizer skips it, as with one rank
    return sums[0], sums[1].double()

"""A Hugging Face Trainer that trains on packed passes with sparse targets.

Each pass seeds its own dropout from the run's seed, the optimizer step and the pass's number, so
that dropout depends neither on earlier passes nor on ranks, and checkpoints store no generator.

Ranks divide an optimizer step's passes, sum gradients and losses, and take the same step. torch's
DDP is not used: it expects as many passes on each rank (here a rank may have none) and averages
over ranks, where this loss is a sum over passes. Only the adapter's gradient is exchanged, a few MB
a step.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer

from lr_exp import contrast, distributed
from lr_exp.distiller.batches import halves, shares
from lr_exp.errors import UserError
from lr_exp.inference.out_of_memory import free_memory, is_out_of_memory
from lr_exp.models.packing import Pack, read_logits
from lr_exp.store import digest

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def pass_losses(
    model: torch.nn.Module, batch: dict[str, Tensor], vocabulary_size: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Loss of every kept step of one packed pass, and the policy's entropy there.

    Only the kept positions' hidden states are projected to the vocabulary. Rows at and above
    `vocabulary_size` have no token and stay out of the distribution, as in scoring.

    Args:
        loss: maps log-probabilities `(kept, vocabulary)` and sparse targets to `(kept,)` losses,
            see `losses`.

    Returns:
        `(kept,)` losses and `(kept,)` entropies (no gradient), both in nats.
    """
    packed = Pack(batch["input_ids"], batch["position_ids"], batch["read_at"])
    student = contrast.log_probs(read_logits(model, packed)[:, :vocabulary_size])
    losses = loss(student, batch["target_ids"], batch["target_weights"])
    with torch.no_grad():
        entropies = contrast.entropy_nats(student)
    return losses, entropies


@dataclass(frozen=True)
class _Pass:
    """A pass, or a part of one, and what its dropout is drawn from."""

    number: tuple[int, ...]  # in the optimizer step; of a half, its number in the whole follows
    content: dict[str, Tensor]
    weight: float = 1.0  # 0: computed for the sake of the other ranks alone

    @property
    def tokens(self) -> int:
        return self.content["input_ids"].numel()

    def split(self) -> list["_Pass"]:
        """Two halves; a pass of one kept step as it is."""
        parts = halves(self.content)
        if len(parts) == 1:
            return [self]
        return [_Pass((*self.number, half), part) for half, part in enumerate(parts)]


class ContrastTrainer(Trainer):
    """A Trainer whose dataset item is one optimizer step (see `batches.BatchDataset`).

    The loss of a step is the mean over its kept steps, however they are spread over passes and
    ranks. Logs carry `loss`, `grad_norm`, `learning_rate` and `entropy` (nats, mean over the kept
    steps since the last log), the same on every rank.
    """

    def __init__(
        self, *args: Any, loss: Loss, vocabulary_size: int, sharded: bool = False, **kwargs: Any
    ) -> None:
        """Args:
        loss: see `losses`.
        vocabulary_size: how many of the model's rows have a token.
        sharded: whether the model is sharded over the ranks (see `sharding`).
        """
        super().__init__(*args, data_collator=_only, **kwargs)
        self._loss = loss
        self._vocabulary_size = vocabulary_size
        self._sharded = sharded
        self._entropy_sum, self._entropy_count = 0.0, 0
        self._halvings = 0  # how often every pass is split, because memory ran out

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(dataset)  # the plan is already shuffled  # type: ignore[arg-type]

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        model.train()
        batch: dict[str, Any] = self._prepare_inputs(inputs)  # on the device
        passes = [_Pass((number,), content) for number, content in enumerate(batch["passes"])]
        kept_steps = batch["kept_steps"]
        if self._sharded:
            found = self._in_step(model, passes, kept_steps)
        else:
            mine = self._share(passes)[distributed.rank()]
            # Where one fails, all of them have to know: the others would wait for its gradients.
            found = distributed.run_on_all_ranks(lambda: self._as_fits(model, mine, kept_steps))
        total, entropies = _added_up(model, *found)
        self._entropy_sum += entropies
        self._entropy_count += kept_steps
        if not torch.isfinite(total):
            raise distributed.SharedError(
                f"the loss is {total.item()} at optimizer step {self.state.global_step + 1}: lower "
                "distiller.learning_rate, or try dtype=float32."
            )
        return total

    def _share(self, passes: list[_Pass]) -> list[list[_Pass]]:
        """Each rank's passes."""
        shared = shares([one.tokens for one in passes], distributed.world_size())
        return [[passes[index] for index in share] for share in shared]

    def _as_fits(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """What `_accumulate` gives, in as large passes as memory takes.

        Where memory runs out all begins anew in halves: but for their dropout, loss and gradients
        are the same.
        """
        for _ in range(self._halvings):
            passes = [half for one in passes for half in one.split()]
        while True:
            try:
                return self._accumulate(model, passes, kept_steps)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                smaller = [half for one in passes for half in one.split()]
                if len(smaller) == len(passes):
                    raise UserError(
                        "distill: not even one kept step fits in memory; lower "
                        "sampler.max_new_tokens (a step's whole prefix is read), or take a smaller "
                        "model or dtype=bfloat16."
                    ) from error
                if not self._halvings:
                    log.warning(
                        "distill: a pass does not fit in memory and is split; lower "
                        "distiller.tokens_per_pass to spare the failed tries."
                    )
            self._halvings += 1
            passes = smaller
            model.zero_grad()  # what the failed try has left
            free_memory()

    def _in_step(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """What `_accumulate` gives, with as many passes on every rank.

        Ranks that hold a model together go through each pass at the same time. One that has fewer
        repeats the shortest, which does not count; and none can split its own.
        """
        shared = self._share(passes)
        spare = replace(min(passes, key=lambda one: one.tokens), weight=0.0)
        mine = shared[distributed.rank()]
        mine = mine + [spare] * (max(map(len, shared)) - len(mine))
        try:
            return self._accumulate(model, mine, kept_steps)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                distributed.check_peers()  # the layers' own exchange may have broken
                raise
            raise UserError(
                "distill: a pass does not fit in memory, and with distiller.parallel=fsdp it "
                "cannot be split; lower distiller.tokens_per_pass or sampler.max_new_tokens."
            ) from error

    def _accumulate(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """The passes' part of the mean loss over the kept steps, and the sum of their entropies."""
        total, entropy = torch.zeros((), device=self.args.device), 0.0
        for one in passes:
            self._seed_dropout(one.number)
            losses, entropies = pass_losses(model, one.content, self._vocabulary_size, self._loss)
            # Summed over passes and divided by the batch's own count: how the steps fell into
            # passes does not show.
            loss = one.weight * losses.sum() / kept_steps
            self.accelerator.backward(loss)
            total += loss.detach()
            entropy += one.weight * float(entropies.sum())
        return total, entropy

    def _seed_dropout(self, number: tuple[int, ...]) -> None:
        """Seeds torch for a pass of this optimizer step, on every device."""
        # Hashed because a CPU generator reads the low 32 bits of its seed only, which neighbouring
        # steps and seeds must not share.
        place = [self.args.seed, self.state.global_step, *number]
        torch.manual_seed(int(digest(place)[:16], 16))

    def _save_rng_state(self, output_dir: str) -> None:
        pass  # every pass is seeded

    def _load_rng_state(self, checkpoint: str | None) -> None:
        pass

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._entropy_count:
            logs["entropy"] = self._entropy_sum / self._entropy_count
            self._entropy_sum, self._entropy_count = 0.0, 0
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the Trainer's estimate assumes one padded batch a step


def _added_up(model: torch.nn.Module, total: Tensor, entropies: float) -> tuple[Tensor, float]:
    """Both summed over the ranks, and the gradients that each has left in the model as well."""
    if not distributed.is_distributed():
        return total, entropies
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    has_one = total.new_tensor([float(parameter.grad is not None) for parameter in tuned])
    for parameter in tuned:
        if parameter.grad is None:  # this rank had no pass, or none that came through here
            parameter.grad = torch.zeros_like(parameter)
    sums = torch.stack([total, total.new_tensor(entropies)])
    distributed.all_reduce([sums, has_one])
    distributed.all_reduce([parameter.grad for parameter in tuned if parameter.grad is not None])
    for parameter, anywhere in zip(tuned, has_one.tolist(), strict=True):
        if not anywhere:
            parameter.grad = None  # as with one rank: the optimizer leaves it alone
    return sums[0], sums[1].item()


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item

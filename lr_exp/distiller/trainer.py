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
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer

from lr_exp import contrast, distributed
from lr_exp.distiller.batches import assign_passes, halves
from lr_exp.errors import UserError
from lr_exp.inference.memory import free_memory, is_out_of_memory
from lr_exp.models.packing import Pack, read_logits
from lr_exp.store import digest

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def pass_losses(
    model: torch.nn.Module, batch: dict[str, Tensor], vocabulary_size: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Loss of every kept step of one packed pass, and the student's entropy there.

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
    """A pass or a part of one, with the number that seeds its dropout."""

    number: tuple[int, ...]  # in the optimizer step; halves append their number
    content: dict[str, Tensor]
    weight: float = 1.0  # 0: computed only because the other ranks compute a pass

    @property
    def tokens(self) -> int:
        return self.content["input_ids"].numel()

    def split(self) -> list["_Pass"]:
        """Two halves, or itself if it has one kept step."""
        parts = halves(self.content)
        if len(parts) == 1:
            return [self]
        return [_Pass((*self.number, half), part) for half, part in enumerate(parts)]


class ContrastTrainer(Trainer):
    """A Trainer whose dataset item is one optimizer step (see `batches.build_batch`).

    The loss of an optimizer step is the mean over its kept steps, however they are divided into
    passes and ranks. Logs have `loss`, `grad_norm`, `learning_rate` and `entropy` (nats, mean over
    the kept steps since the last log), the same on every rank.
    """

    def __init__(
        self, *args: Any, loss: Loss, vocabulary_size: int, sharded: bool = False, **kwargs: Any
    ) -> None:
        """Args:
        vocabulary_size: how many of the model's rows have a token.
        sharded: whether the model is sharded over the ranks (see `sharding`).
        """
        super().__init__(*args, data_collator=itemgetter(0), **kwargs)  # of one item
        self._loss, self._vocabulary_size, self._sharded = loss, vocabulary_size, sharded
        self._entropy_sum, self._entropy_count = 0.0, 0
        self._halvings = 0  # how often passes are split because memory ran out

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
            result = self._in_lockstep(model, passes, kept_steps)
        else:
            mine = self._share(passes)[distributed.rank()]
            # An error on one rank must reach the others, which wait for its gradients.
            result = distributed.run_on_all_ranks(
                lambda: self._accumulate_splitting_on_oom(model, mine, kept_steps)
            )
        total, entropies = _summed_over_ranks(model, *result)
        self._entropy_sum += entropies
        self._entropy_count += kept_steps
        if not torch.isfinite(total):
            raise distributed.SharedError(
                f"the loss is {total.item()} at optimizer step {self.state.global_step + 1}: lower "
                "distiller.learning_rate, or try dtype=float32."
            )
        return total

    def _share(self, passes: list[_Pass]) -> list[list[_Pass]]:
        shared = assign_passes([one.tokens for one in passes], distributed.world_size())
        return [[passes[index] for index in share] for share in shared]

    def _accumulate_splitting_on_oom(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """Like `_accumulate`, but splits the passes in half and retries when memory runs out.

        Loss and gradients stay the same except for dropout.
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
                        "sampler.max_new_tokens (its whole prefix is read), or use a smaller model "
                        "or dtype=bfloat16."
                    ) from error
                if not self._halvings:
                    log.warning(
                        "distill: a pass does not fit in memory and is split; lower "
                        "distiller.tokens_per_pass to avoid the failed attempts."
                    )
            self._halvings += 1
            passes = smaller
            model.zero_grad()  # of the failed attempt
            free_memory()

    def _in_lockstep(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """Like `_accumulate`, but with the same number of passes on every rank.

        Ranks that share a sharded model compute each pass together. One with fewer passes repeats
        the shortest with weight 0, and no rank can split its own.
        """
        shared = self._share(passes)
        spare = replace(min(passes, key=lambda one: one.tokens), weight=0.0)
        mine = shared[distributed.rank()]
        mine = mine + [spare] * (max(map(len, shared)) - len(mine))
        try:
            return self._accumulate(model, mine, kept_steps)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                distributed.check_peers()  # a collective call inside the layers may have failed
                raise
            raise UserError(
                "distill: a pass does not fit in memory, and with distiller.parallel=fsdp it "
                "cannot be split; lower distiller.tokens_per_pass or sampler.max_new_tokens."
            ) from error

    def _accumulate(
        self, model: torch.nn.Module, passes: list[_Pass], kept_steps: int
    ) -> tuple[Tensor, float]:
        """The passes' share of the mean loss over kept steps, and the sum of their entropies."""
        total, entropy = torch.zeros((), device=self.args.device), 0.0
        for one in passes:
            self._seed_dropout(one.number)
            losses, entropies = pass_losses(model, one.content, self._vocabulary_size, self._loss)
            # The sum over passes divided by the number of kept steps in the batch: the division
            # into passes has no effect.
            loss = one.weight * losses.sum() / kept_steps
            self.accelerator.backward(loss)
            total += loss.detach()
            entropy += one.weight * float(entropies.sum())
        return total, entropy

    def _seed_dropout(self, number: tuple[int, ...]) -> None:
        """Seeds torch for a pass of this optimizer step, on every device."""
        # Hashed because a CPU generator uses only the low 32 bits of its seed, which must differ
        # between neighboring optimizer steps and seeds.
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


def _summed_over_ranks(
    model: torch.nn.Module, total: Tensor, entropies: float
) -> tuple[Tensor, float]:
    """Both summed over the ranks; sums the model's gradients in place."""
    if not distributed.is_distributed():
        return total, entropies
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    has_one = total.new_tensor([float(parameter.grad is not None) for parameter in tuned])
    for parameter in tuned:
        if parameter.grad is None:  # no pass of this rank used it
            parameter.grad = torch.zeros_like(parameter)
    sums = torch.stack([total, total.new_tensor(entropies)])
    distributed.all_reduce([sums, has_one])
    distributed.all_reduce([parameter.grad for parameter in tuned if parameter.grad is not None])
    for parameter, anywhere in zip(tuned, has_one.tolist(), strict=True):
        if not anywhere:
            parameter.grad = None  # the optimizer skips it, as with one rank
    return sums[0], sums[1].item()

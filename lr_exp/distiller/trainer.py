"""The Hugging Face Trainer, taught to take packed passes with sparse targets.

Knows the loss and the passes of a batch; knows neither where labels come from nor where adapters
go. Checkpoints, resuming, schedules and devices are the Trainer's.

Each pass draws its dropout by itself, from the seed, the optimizer step and its own number: so it
depends neither on what was computed before it nor on where, and no checkpoint keeps a generator.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer

from lr_exp import contrast
from lr_exp.distiller.batches import halves
from lr_exp.errors import UserError
from lr_exp.memory_limits import free_memory, ran_out_of_memory
from lr_exp.packing import Pack, read_logits
from lr_exp.store import digest

log = logging.getLogger(__name__)


def pass_losses(
    model: torch.nn.Module, batch: dict[str, Tensor], vocabulary_size: int
) -> tuple[Tensor, Tensor]:
    """Loss of every kept step of one packed pass (Eq. 7-8), and the policy's entropy there.

    Only the kept positions' hidden states meet the vocabulary. Rows at and above `vocabulary_size`
    have no token and stay out of the distribution, as they do in scoring.

    Returns:
        `(kept,)` losses and `(kept,)` entropies (no gradient), both in nats.
    """
    packed = Pack(batch["input_ids"], batch["position_ids"], batch["read_at"])
    student = contrast.log_probs(read_logits(model, packed)[:, :vocabulary_size])
    losses = contrast.distillation_loss(student, batch["target_ids"], batch["target_weights"])
    with torch.no_grad():
        entropies = contrast.entropy_nats(student)
    return losses, entropies


class ContrastTrainer(Trainer):
    """A Trainer whose dataset item is one optimizer step (see `batches.BatchDataset`).

    The loss of a step is the mean over its kept steps, however they are spread over passes. Logs
    carry `loss`, `grad_norm`, `learning_rate` and `entropy` (nats, mean over the kept steps since
    the last log).
    """

    def __init__(self, *args: Any, vocabulary_size: int, **kwargs: Any) -> None:
        super().__init__(*args, data_collator=_only, **kwargs)
        self._vocabulary_size = vocabulary_size
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
        total = self._summed_up(model, batch["passes"], batch["kept_steps"])
        if not torch.isfinite(total):
            raise UserError(
                f"the loss is {total.item()} at optimizer step {self.state.global_step + 1}: lower "
                "distiller.learning_rate, or try dtype=float32."
            )
        return total

    def _summed_up(
        self, model: torch.nn.Module, passes: list[dict[str, Tensor]], kept_steps: int
    ) -> Tensor:
        """The loss of an optimizer step, its gradients left in the model.

        Where memory runs out the step begins anew in halves, which are numbered as passes: but for
        their dropout, its loss and gradients are the same.
        """
        for _ in range(self._halvings):
            passes = [half for one in passes for half in halves(one)]
        while True:
            try:
                losses, entropies = self._accumulate(model, passes, kept_steps)
                break
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                smaller = [half for one in passes for half in halves(one)]
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
        self._entropy_sum += entropies
        self._entropy_count += kept_steps
        return losses

    def _accumulate(
        self, model: torch.nn.Module, passes: list[dict[str, Tensor]], kept_steps: int
    ) -> tuple[Tensor, float]:
        """Mean loss over the kept steps and the sum of their entropies, pass by pass."""
        total, entropy = torch.zeros((), device=self.args.device), 0.0
        for number, one_pass in enumerate(passes):
            self._seed_dropout(number)
            losses, entropies = pass_losses(model, one_pass, self._vocabulary_size)
            # Summed over passes and divided by the batch's own count: how the steps fell into
            # passes does not show.
            loss = losses.sum() / kept_steps
            self.accelerator.backward(loss)
            total += loss.detach()
            entropy += float(entropies.sum())
        return total, entropy

    def _seed_dropout(self, number: int) -> None:
        """Seeds torch for a pass of this optimizer step, on every device."""
        # Hashed because a CPU generator reads the low 32 bits of its seed only, which neighbouring
        # steps and seeds must not share.
        place = [self.args.seed, self.state.global_step, number]
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


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item

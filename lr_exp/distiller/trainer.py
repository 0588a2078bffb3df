"""The Hugging Face Trainer, taught to take packed passes with sparse targets.

Knows the loss and the passes of a batch; knows neither where labels come from nor where adapters
go. Checkpoints, resuming, schedules and devices are the Trainer's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer

from lr_exp import contrast
from lr_exp.errors import UserError
from lr_exp.packing import Pack, read_logits


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
        total = torch.zeros((), device=self.args.device)
        for one_pass in batch["passes"]:
            losses, entropies = pass_losses(model, one_pass, self._vocabulary_size)
            # Summed over passes and divided by the batch's own count: how the steps fell into
            # passes does not show.
            loss = losses.sum() / batch["kept_steps"]
            self.accelerator.backward(loss)
            total += loss.detach()
            self._entropy_sum += float(entropies.sum())
            self._entropy_count += len(entropies)
        if not torch.isfinite(total):
            raise UserError(
                f"the loss is {total.item()} at optimizer step {self.state.global_step + 1}: lower "
                "distiller.learning_rate, or try dtype=float32."
            )
        return total

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

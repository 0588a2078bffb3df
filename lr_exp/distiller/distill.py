"""LoRA tuning of the expert on supervision, to an adapter folder."""

import errno
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import TrainerState

from lr_exp import distributed
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller.adapter_files import ADAPTER, HISTORY, SNAPSHOTS, read_snapshots
from lr_exp.distiller.batches import batches_of, plan_batches, tokens_read
from lr_exp.distiller.lora import lora_layers
from lr_exp.distiller.sharding import shard
from lr_exp.distiller.trainer import ContrastTrainer
from lr_exp.errors import UserError, first_line
from lr_exp.models.loading import LanguageModel
from lr_exp.models.packing import pass_size
from lr_exp.models.probing import PROBE, same_but_for_rounding
from lr_exp.progress import Progress
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import write_atomically

log = logging.getLogger(__name__)

_CHECKPOINTS = "checkpoints"
_WEIGHTS = "adapter_model.safetensors"  # of a checkpoint
_TORCH_FILES = ("optimizer.pt", "scheduler.pt")  # of a checkpoint
_CHECKED_STEPS = 10  # optimizer steps whose passes are counted
# The checkpoint may be intact but is unreadable right now.
_TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EIO, errno.ESTALE)


@dataclass(frozen=True)
class Training:
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]  # see `losses`
    seed: int
    device: str
    base_location: str  # the base model that the adapter's config names ...
    base_revision: str | None  # ... and its hub commit
    on_log: Callable[[int, dict[str, float]], None]  # optimizer step, metrics


def distill(
    supervision: Supervision,
    expert: LanguageModel,
    folder: Path,
    settings: DistillerSettings,
    training: Training,
) -> dict[str, Any]:
    """Tunes the expert and writes `adapter/` (PEFT) and `history.jsonl` into `folder`.

    Resumes from the last checkpoint in `folder`, written by any number of ranks. Leaves the expert
    unchanged unless it `is_sharded`. All ranks call it; rank 0 writes. With `snapshot_every` it
    also saves the adapter at those optimizer steps (`read_snapshots`).

    Args:
        expert: on the training's device; where it `is_sharded`, a copy of its own on the CPU.

    Returns:
        Facts: `optimizer_steps`, `batch_size`, `tuned_tokens` (kept steps trained, repeats
        counted), `kept_steps` (distinct ones), `tokens_read` (by passes), `final_loss`.
    """
    seed, device = training.seed, training.device
    distributed.run_identically(lambda: _check_lengths(supervision, expert))
    plan = plan_batches(
        supervision,
        batch_size=settings.batch_size,
        steps=settings.steps,
        order=settings.order,
        seed=seed,
    )
    size = pass_size(settings.tokens_per_pass, torch.device(device).type, packs=expert.packs)
    batches = batches_of(supervision, plan, size)
    if distributed.is_distributed() and distributed.is_rank0():
        _warn_of_idle_ranks(batches)
    set_seed(seed)
    model = distributed.run_identically(lambda: _with_lora(expert, settings))
    try:
        if is_sharded(settings):
            shard(model, device)
        checkpoints = folder / _CHECKPOINTS
        resumed = distributed.run_on_rank0(lambda: _last_complete_checkpoint(checkpoints))
        done = _step_of(resumed) if resumed else 0
        progress = Progress(
            "distill", settings.steps, "optimizer step", found=done, also="kept step"
        )
        report = _Report(training.on_log, progress, settings.batch_size)
        trainer = ContrastTrainer(
            model=model,
            args=_arguments(settings, checkpoints, seed, device),
            train_dataset=cast(Any, batches),  # torch needs only its length and items
            callbacks=[report, _Snapshots(folder / SNAPSHOTS, settings.snapshot_every)],
            loss=training.loss,
            vocabulary_size=expert.vocabulary_size,
            sharded=is_sharded(settings),
        )
        # Our progress bar and log already show these metrics.
        trainer.remove_callback(PrinterCallback)
        with warnings.catch_warnings(), progress:
            # peft looks for a config next to the weights to check whether the embeddings were
            # resized. A GGUF file's folder has no config, and we never resize them.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        history = [_kept_metrics(entry) for entry in trainer.state.log_history if "loss" in entry]
        distributed.all_gather(None)  # every rank is done reading checkpoints
        if distributed.is_rank0():
            # Set only now: each checkpoint would look the name up on the hub.
            config = cast(LoraConfig, model.peft_config["default"])
            config.base_model_name_or_path = training.base_location
            config.revision = training.base_revision
            config.target_modules = sorted(config.target_modules or ())  # a set has no fixed order
            # Embeddings are not tuned, and peft would query the hub to find out.
            model.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
    finally:
        if not is_sharded(settings):  # a sharded model is discarded as a whole
            model.unload().eval()  # training left it with its dropout on
    if distributed.is_rank0():
        _tidy(folder, history, Path(training.base_location))
    return {
        "optimizer_steps": settings.steps,
        "batch_size": settings.batch_size,
        "tuned_tokens": settings.steps * settings.batch_size,
        "kept_steps": supervision.kept,
        "tokens_read": tokens_read(supervision, plan),
        "final_loss": history[-1]["loss"],  # mean of the steps since the log before it
    }


def is_sharded(settings: DistillerSettings) -> bool:
    """Whether the ranks of this run hold the expert together while it is tuned."""
    return settings.parallel == "fsdp" and distributed.is_distributed()


def attach_adapter(expert: LanguageModel, adapter: Path) -> PeftModel:
    """The expert with a saved adapter, as plain `peft` loads it. `unload()` takes it off again."""
    with _tied_heads_accepted():
        model = PeftModel.from_pretrained(expert.model, str(adapter), is_trainable=False)
    return model.eval()


def merge(expert: LanguageModel, adapter: Path, folder: Path) -> None:
    """Writes the expert with the adapter merged in, as a model folder plain `transformers` loads.

    The expert's weights are used up: load it for this alone.

    Raises UserError: the written model differs from the expert with its adapter.
    """
    tuned = attach_adapter(expert, adapter)
    expected = _probe_logits(tuned)
    _untie_tuned_head(tuned)
    merged: Any = tuned.merge_and_unload()
    merged.generation_config = GenerationConfig(
        eos_token_id=list(expert.stop_ids), pad_token_id=expert.tokenizer.pad_token_id
    )
    merged.save_pretrained(folder)
    expert.tokenizer.save_pretrained(folder)
    kind, dtype, expert.model = type(merged), merged.dtype, None
    del tuned, merged  # one model in memory at a time
    written = _probe_logits(kind.from_pretrained(folder, dtype=dtype).eval())
    if not same_but_for_rounding(expected, written, dtype):
        raise UserError(
            f"distiller.merge: the merged model of {expert.name} does not give the tuned expert's "
            "distributions. Set distiller.merge=false and use the adapter, or set dtype=float32."
        )


@contextmanager
def _tied_heads_accepted() -> Iterator[None]:
    """Hides peft's warning about tuned output layers that are tied: `merge` unties them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


@torch.no_grad()
def _probe_logits(model: Any) -> Tensor:
    return model(input_ids=torch.tensor([PROBE]), use_cache=False).logits[0]


def _untie_tuned_head(tuned: PeftModel) -> None:
    """Gives a tuned output layer its own weight, as merging would also change tied embeddings."""
    base: Any = tuned.get_base_model()
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    if isinstance(head, BaseTunerLayer) and head.get_base_layer().weight is embedding.weight:
        head.get_base_layer().weight = torch.nn.Parameter(embedding.weight.detach().clone())
        for config in (base.config, base.config.get_text_config()):
            config.tie_word_embeddings = False


def _tidy(folder: Path, history: list[dict[str, float]], base: Path) -> None:
    """Writes the history, completes the snapshots and deletes the checkpoints."""
    readme = folder / ADAPTER / "README.md"  # a template of placeholders
    if base.suffix.lower() == ".gguf":
        arguments = f"{str(base.parent)!r}, gguf_file={base.name!r}"
        readme.write_text(
            f"Trained on the dequantized weights of {base}; load them with\n"
            f"`AutoModelForCausalLM.from_pretrained({arguments})`.\n"
        )
    else:
        readme.unlink(missing_ok=True)
    for _, snapshot in read_snapshots(folder):  # with the base model's name
        shutil.copy(folder / ADAPTER / "adapter_config.json", snapshot)
        (snapshot / "README.md").unlink(missing_ok=True)
    write_atomically(folder / HISTORY, "".join(json.dumps(entry) + "\n" for entry in history))
    shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)


def _warn_of_idle_ranks(batches: Sequence[dict[str, Any]]) -> None:
    """Warns where some ranks would idle in many optimizer steps.

    Passes are not split further, because dropout is drawn for each pass and must not depend on the
    number of ranks.
    """
    passes = fmean(len(batch["passes"]) for batch in batches[:_CHECKED_STEPS])
    if passes < distributed.world_size():
        log.warning(
            "distill: an optimizer step has %.1f passes for %d ranks, so that some wait for the "
            "others; lower distiller.tokens_per_pass or raise distiller.batch_size.",
            passes,
            distributed.world_size(),
        )


def _check_lengths(supervision: Supervision, expert: LanguageModel) -> None:
    for trajectory in supervision.trajectories:
        if expert.context is not None and len(trajectory.input_ids) > expert.context:
            raise UserError(
                f"question {trajectory.question_id}: its prompt and prefix have "
                f"{len(trajectory.input_ids)} tokens, but {expert.name} has a context of "
                f"{expert.context}: remove the records of this question."
            )


def _with_lora(expert: LanguageModel, settings: DistillerSettings) -> PeftModel:
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        bias="none",
        **lora_layers(expert.model, settings.target_modules),
    )
    with _tied_heads_accepted():
        return get_peft_model(expert.model, config)  # type: ignore[return-value]


def _arguments(
    settings: DistillerSettings, checkpoints: Path, seed: int, device: str
) -> TrainingArguments:
    # Checkpoints fall on logged steps, so that resuming loses no part of a logged mean.
    logs_between = max(1, round(settings.checkpoint_every / settings.log_every))
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.steps,
        per_device_train_batch_size=1,  # a dataset item is an optimizer step
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # the trainer raises on a loss that is not finite
        save_strategy="steps" if distributed.is_rank0() else "no",
        save_steps=logs_between * settings.log_every,
        save_total_limit=2,  # a power cut may damage the newest
        seed=seed,
        use_cpu=torch.device(device).type == "cpu",
        remove_unused_columns=False,
        report_to="none",  # metrics go to on_log
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    # One device per process: otherwise the Trainer uses DataParallel over all visible GPUs.
    _ = arguments.device
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _last_complete_checkpoint(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint; damaged ones are deleted.

    Reads every file that resuming reads, because a damaged one would fail every attempt.
    """
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=_step_of, reverse=True):
        try:
            TrainerState.load_from_json(str(folder / "trainer_state.json"))
            load_file(folder / _WEIGHTS)
            for name in _TORCH_FILES:
                torch.load(folder / name, map_location="cpu", weights_only=True)
        except Exception as error:  # each library raises its own for a damaged file
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _TRANSIENT:
                raise  # temporarily unreadable, not damaged
            log.warning(
                "distill: %s is damaged and was deleted (%s)", folder.name, first_line(error)
            )
            shutil.rmtree(folder)
        else:
            return folder
    return None


class _Report(TrainerCallback):
    """Reports metrics, first those before a resume, and shows the progress."""

    def __init__(
        self, on_log: Callable[[int, dict[str, float]], None], progress: Progress, batch_size: int
    ) -> None:
        self._on_log, self._progress, self._batch_size = on_log, progress, batch_size

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for entry in state.log_history:
            if "loss" in entry:
                self._on_log(entry["step"], _kept_metrics(entry))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.add(also=self._batch_size)
        if state.global_step == state.max_steps:
            control.should_log = True  # the last steps too

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self._progress.add(0, note=f"loss {logs['loss']:.4f}")
            self._on_log(state.global_step, _kept_metrics({**logs, "step": state.global_step}))


class _Snapshots(TrainerCallback):
    """Saves the adapter every so many optimizer steps, except the last, which is saved anyway."""

    def __init__(self, folder: Path, every: int | None) -> None:
        self._folder, self._every = folder, every

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        step = state.global_step
        is_due = self._every and step % self._every == 0 and step < state.max_steps
        if is_due and distributed.is_rank0():
            place = self._folder / f"step-{step:08d}"
            given["model"].save_pretrained(str(place), save_embedding_layers=False)


def _kept_metrics(entry: dict[str, float]) -> dict[str, float]:
    names = ("step", "loss", "entropy", "grad_norm", "learning_rate")
    return {name: entry[name] for name in names if name in entry}

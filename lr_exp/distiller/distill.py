"""LoRA tuning of the expert on supervision, to an adapter folder."""

import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import GenerationConfig, set_seed

from lr_exp import distributed
from lr_exp.config.settings import DistillerSettings
from lr_exp.data.lazy import Lazy
from lr_exp.distiller.adapter_files import ADAPTER, HISTORY, SNAPSHOTS
from lr_exp.distiller.batches import build_batch, plan_batches, tokens_read
from lr_exp.distiller.lora import lora_layers
from lr_exp.distiller.sharding import shard
from lr_exp.distiller.trainer import ContrastTrainer, Training
from lr_exp.errors import UserError
from lr_exp.models.loading import LanguageModel
from lr_exp.models.packing import pass_size
from lr_exp.models.probing import PROBE, same_but_for_rounding
from lr_exp.progress import Progress
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import json_lines, write_atomically

_CHECKPOINT = "checkpoint.pt"


def distill(
    supervision: Supervision, expert: LanguageModel, folder: Path, training: Training
) -> dict[str, Any]:
    """Tunes the expert and writes `adapter/` (PEFT) and `history.jsonl` into `folder`.

    Resumes from the last checkpoint in `folder`, written by any number of ranks. Leaves the expert
    unchanged unless it `is_sharded`. All ranks call it; rank 0 writes. With `snapshot_every` it
    also saves the adapter at those optimizer steps (`read_snapshots`).

    Args:
        expert: on the training's device; where it `is_sharded`, a copy of its own on the CPU.

    Returns:
        Facts: `optimizer_steps`, `batch_size` (None with `batch_answers`), `tuned_tokens` (kept
        steps trained, repeats counted), `kept_steps` (distinct ones), `tokens_read` (by passes),
        `flops` (without the gradients of the few tuned weights), `final_loss`.
    """
    settings, seed, device = training.settings, training.seed, training.device
    distributed.run_identically(lambda: _check_lengths(supervision, expert))
    plan = distributed.run_identically(lambda: plan_batches(supervision, settings, seed))
    tokens = cast(int, settings.tokens_per_pass)  # not None in a run, see `Inputs`
    size = pass_size(tokens, torch.device(device).type, packs=expert.packs)
    batches = Lazy(len(plan), lambda step: build_batch(supervision, plan[step], size))
    set_seed(seed)
    model = distributed.run_identically(lambda: _with_lora(expert, settings))
    try:
        if training.is_sharded:
            shard(model, device)
        trainer = ContrastTrainer(model, training, expert.vocabulary_size, expert.compile)
        config = cast(LoraConfig, model.peft_config["default"])
        config.base_model_name_or_path = training.base_location
        config.revision = training.base_revision
        config.target_modules = sorted(config.target_modules or ())  # a set has no fixed order
        _train(trainer, model, batches, folder)
        if distributed.is_rank0():
            if training.score is None:
                _save_adapter(model, folder / ADAPTER, Path(training.base_location))
            else:
                best = _snapshot(folder, best_step(trainer.history))
                shutil.copytree(best, folder / ADAPTER, dirs_exist_ok=True)  # of a stopped call
            write_atomically(folder / HISTORY, json_lines(trainer.history))
            if training.keeps_checkpoint:
                trainer.save(folder / _CHECKPOINT)
            else:
                (folder / _CHECKPOINT).unlink(missing_ok=True)
    finally:
        if not training.is_sharded:  # a sharded model is discarded as a whole
            model.unload().eval()  # training left it with its dropout on
    plan = plan[: trainer.step]
    return {
        "optimizer_steps": trainer.step,
        **({"best_step": best_step(trainer.history)} if training.score else {}),
        "batch_size": settings.batch_size if settings.batch_answers is None else None,
        "tuned_tokens": sum(map(len, plan)),
        "kept_steps": supervision.kept,
        "tokens_read": (read := tokens_read(supervision, plan)),
        # Forward, and as many for the gradients of activations; without LoRA's own weights.
        "flops": 2 * expert.forward_flops(read),
        "final_loss": trainer.history[-1]["loss"],  # mean of the steps since the log before it
    }


def _train(
    trainer: ContrastTrainer, model: PeftModel, batches: Sequence[dict[str, Any]], folder: Path
) -> None:
    """Trains on all batches, from the last checkpoint on; logs the metrics before it, too."""
    training, settings = trainer.training, trainer.training.settings
    checkpoint, base = folder / _CHECKPOINT, Path(training.base_location)
    saved = time.monotonic()
    start = training.start and training.start / _CHECKPOINT
    found = distributed.run_on_rank0(lambda: checkpoint if checkpoint.exists() else start)
    if found is not None:
        distributed.run_on_all_ranks(lambda: trainer.load(found))
    for entry in trainer.history:
        training.on_log(int(entry["step"]), entry)
    progress = Progress(
        "distill", settings.steps, "optimizer step", found=trainer.step, also="kept step"
    )
    with progress:
        for index in range(trainer.step, settings.steps):
            if training.score and _is_over(trainer):
                return
            batch = batches[index]
            trainer.training_step(batch)
            progress.add(also=batch["kept_steps"])
            step, is_last = index + 1, index + 1 == settings.steps
            is_due = settings.snapshot_every and step % settings.snapshot_every == 0
            if is_due and (training.score or not is_last) and distributed.is_rank0():
                _save_adapter(model, _snapshot(folder, step), base)
            if step == 1 or step % settings.log_every == 0 or is_last:
                entry = trainer.log()
                if training.score and is_due:
                    entry["score"] = training.score(model.eval(), entry)
                progress.add(0, note=f"loss {entry['loss']:.4f}")
                training.on_log(step, entry)
                # On logged steps only, so that resuming loses no part of a logged mean.
                is_old = time.monotonic() - saved >= settings.checkpoint_seconds
                if is_old and not is_last and distributed.is_rank0():
                    trainer.save(checkpoint)
                    saved = time.monotonic()


def _is_over(trainer: ContrastTrainer) -> bool:
    """Whether the last snapshots were no better than the best one; see `distiller.stop`."""
    scored = [entry for entry in trainer.history if "score" in entry]
    if not scored:
        return False
    settings, waited = trainer.training.settings, scored[-1]["step"] - best_step(scored)
    return waited >= settings.stop_patience * cast(int, settings.snapshot_every)


def best_step(history: Sequence[dict[str, float]]) -> int:
    """The first optimizer step with the highest score."""
    scored = (entry for entry in history if "score" in entry)
    return int(max(scored, key=lambda entry: entry["score"])["step"])


def _snapshot(folder: Path, step: int) -> Path:
    return folder / SNAPSHOTS / f"step-{step:08d}"


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
            f"The model of {expert.name} with the adapter merged in does not give the same "
            "distributions as with the adapter attached: set dtype=float32, or do not merge."
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


def _save_adapter(model: PeftModel, folder: Path, base: Path) -> None:
    # Embeddings are not tuned, and peft would query the hub to find out.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    readme = folder / "README.md"  # a template of placeholders
    if base.suffix.lower() == ".gguf":
        arguments = f"{str(base.parent)!r}, gguf_file={base.name!r}"
        readme.write_text(
            f"Trained on the dequantized weights of {base}; load them with\n"
            f"`AutoModelForCausalLM.from_pretrained({arguments})`.\n"
        )
    else:
        readme.unlink(missing_ok=True)


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

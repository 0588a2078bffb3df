"""The stage `distill`: from supervision to an adapter, with the recipe of its artifact."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, cast

from lr_exp.config.settings import DistillerSettings, identity_settings
from lr_exp.data.questions import fingerprint
from lr_exp.distiller.adapter_files import ADAPTER, VERSION, read_history, read_snapshots
from lr_exp.evaluator import answer, grade
from lr_exp.models import loading
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.outcome import link
from lr_exp.report.read.summary import DistillSummary
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import Artifact, Recipe, digest, file_digest
from lr_exp.store.shards import read_by_index


@dataclass(frozen=True)
class Tuned:
    artifact: Artifact
    adapter: Path  # the folder that plain `peft` loads
    step: int | None = None  # the optimizer step of a snapshot; None for the final adapter

    @property
    def digest(self) -> str:
        """Of the adapter's files: identical adapters give identical answers."""
        files = sorted(path for path in self.adapter.iterdir() if path.is_file())
        return digest({path.name: file_digest(path) for path in files})

    @property
    def trained_steps(self) -> int:
        """The optimizer steps of the final adapter, with `distiller.stop` those of the best one."""
        facts = self.artifact.facts
        return facts.get("best_step", facts["optimizer_steps"])

    def snapshots(self) -> list["Tuned"]:
        found = read_snapshots(self.artifact.folder)
        return [Tuned(self.artifact, adapter, step) for step, adapter in found]


def tune_expert(
    context: RunContext, supervision: Artifact, folder: Path
) -> tuple[Tuned, DistillSummary]:
    """Tunes an adapter, and links it into the run's folder."""
    tuned = make_adapter(context, supervision)
    link(folder / "adapter", tuned.adapter)
    artifact, facts = tuned.artifact, tuned.artifact.facts
    summary = {
        **facts,
        "passes": facts["tuned_tokens"] / facts["kept_steps"],
        "seconds": artifact.seconds,
        "reused": artifact.reused,
        "artifact": str(artifact.folder),
    }
    if context.inputs.settings.distiller.merge:
        merged = _merge(context, tuned)
        link(folder / "merged", merged.folder)
        summary["merged"] = str(merged.folder)
    return tuned, DistillSummary.model_validate(summary)


def make_adapter(
    context: RunContext, supervision: Artifact, *, rung: bool = False, start: Artifact | None = None
) -> Tuned:
    """Tunes an adapter.

    A `rung` has a checkpoint, too: it can be the `start` of a training that differs in having more
    optimizer steps. Where a training starts does not change its weights, so no recipe has it.
    """
    inputs, settings = context.inputs, settings_for_epochs(context, supervision)
    recipe = Recipe(
        "rung" if rung else "adapter",
        VERSION,
        {"supervision": supervision.facts["digest"], "expert": inputs.expert.fingerprint},
        {
            **identity_settings(settings),
            **inputs.method.identity("loss"),
            "seed": inputs.settings.seed,
            **inputs.machine,
            "peft": version("peft"),
            **_stop_identity(context),
        },
    )

    log = partial(context.log, "distill")

    def build(folder: Path) -> dict[str, Any]:
        from lr_exp.distiller.distill import distill  # imports peft
        from lr_exp.distiller.trainer import Training

        models = context.models
        training = Training(
            settings,
            loss=inputs.method.loss,
            seed=inputs.settings.seed,
            device=inputs.device,
            base_location=inputs.expert.location,
            base_revision=inputs.expert.revision,
            on_log=log,
            start=start and start.folder,
            keeps_checkpoint=rung,
            score=_score(context) if settings.stop else None,
        )
        kept = Supervision.load(supervision.folder)
        expert = models.expert_to_shard() if training.is_sharded else models.expert()
        return distill(kept, expert, folder, training)

    artifact = context.make(recipe, build, stage="distill", together=True)
    for entry in read_history(artifact.folder) if artifact.reused else ():  # is logged, too
        log(int(entry["step"]), entry)
    return Tuned(artifact, artifact.folder / ADAPTER)


def _stop_identity(context: RunContext) -> dict[str, Any]:
    """What `distiller.stop` depends on; empty without it, so that other addresses stay the same."""
    inputs, distiller = context.inputs, context.inputs.settings.distiller
    identity: list[Any] = [distiller.stop, distiller.stop_patience]
    if distiller.stop == "validation":
        evaluator = inputs.settings.evaluator
        identity += [fingerprint(inputs.validation_questions), inputs.evaluation_prompt.identity]
        identity += [evaluator.max_new_tokens, evaluator.batch_size, answer.VERSION, grade.VERSION]
    return {"stop": identity} if distiller.stop else {}


def _score(context: RunContext) -> Callable[[Any, dict[str, float]], float]:
    """The score of a snapshot in training, see `Training.score`."""
    inputs, settings = context.inputs, context.inputs.settings
    if settings.distiller.stop == "entropy":
        return lambda _, metrics: metrics["entropy"]
    asked, evaluator = inputs.validation_questions, settings.evaluator

    def validate(model: Any, _: dict[str, float]) -> float:
        with TemporaryDirectory() as scratch:
            answer.answer(
                asked,
                replace(context.models.expert(), model=model),
                Path(scratch),
                name="validation",
                prompt=inputs.evaluation_prompt,
                max_new_tokens=evaluator.max_new_tokens,
                batch_size=cast(int, evaluator.batch_size),
            )
            outputs = read_by_index(Path(scratch))
        graded = grade.grade_all(asked, outputs, settings.data.answer)
        return fmean(one["correct"] for one in graded)

    return validate


def settings_for_epochs(context: RunContext, supervision: Artifact) -> DistillerSettings:
    """The distiller's settings, with the order and a batch size that allow the method's epochs."""
    settings, epochs = context.inputs.settings.distiller, context.inputs.method.epochs
    by_steps = epochs is None and settings.batch_answers is None
    settings = replace(settings, order=settings.order or ("steps" if by_steps else "trajectories"))
    if epochs is None or settings.batch_answers or context.inputs.settings.imports_records:
        return settings
    needed = math.ceil(epochs * supervision.facts["kept"] / settings.steps)
    return replace(settings, batch_size=max(settings.batch_size, needed))


def _merge(context: RunContext, tuned: Tuned) -> Artifact:
    """The expert with the adapter merged in, as a model folder."""
    recipe = Recipe(
        "merged",
        VERSION,
        {"adapter": tuned.artifact.address, "expert": context.inputs.expert.fingerprint},
        context.inputs.machine,
    )

    def build(folder: Path) -> dict[str, Any]:
        from lr_exp.distiller.distill import merge  # imports peft

        # Merging changes weights in place, so it gets a copy, in the CPU's memory.
        copy = loading.load(context.inputs.expert, device="cpu", dtype=context.inputs.dtype)
        merge(copy, tuned.adapter, folder)
        return {}

    return context.make(recipe, build)

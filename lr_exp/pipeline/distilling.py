"""The distiller's stages as recipes: from supervision to an adapter."""

import math
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller.adapter_files import ADAPTER, VERSION, read_history, read_snapshots
from lr_exp.models import loading
from lr_exp.pipeline.context import RunContext
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import Artifact, Recipe, digest, file_digest

# Settings that do not change the adapter.
_NOT_IN_RECIPE = ("merge", "checkpoint_every", "parallel")


@dataclass(frozen=True)
class Tuned:
    """An adapter and its training history."""

    artifact: Artifact
    adapter: Path  # the folder that plain `peft` loads
    history: list[dict[str, float]]  # one entry a log, each with its `step`
    step: int | None = None  # the optimizer step of a snapshot; None for the final adapter

    @property
    def digest(self) -> str:
        """Of the adapter's files: identical adapters give identical answers."""
        files = sorted(path for path in self.adapter.iterdir() if path.is_file())
        return digest({path.name: file_digest(path) for path in files})

    def snapshots(self) -> list["Tuned"]:
        """The adapters saved during training, by optimizer step."""
        return [
            Tuned(self.artifact, adapter, self.history, step)
            for step, adapter in read_snapshots(self.artifact.folder)
        ]


class DistillerStages:
    """Supervision to an adapter."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._inputs = context.inputs

    def distill(self, supervision: Artifact) -> Tuned:
        """Supervision to an adapter."""
        inputs, settings = self._inputs, self._settings_for_epochs(supervision)
        loss = inputs.method.loss
        recorded = {k: v for k, v in asdict(settings).items() if k not in _NOT_IN_RECIPE}
        if settings.snapshot_every is None:
            del recorded["snapshot_every"]  # keeps the addresses of versions without the setting
        if loss.choice.name != "kl":  # likewise
            recorded |= {"loss": loss.choice.name, **loss.arguments}
        recipe = Recipe(
            "adapter",
            VERSION,
            {"supervision": supervision.facts["digest"], "expert": inputs.expert.fingerprint},
            {
                **recorded,
                **inputs.method.outside_sources("loss"),
                "seed": inputs.settings.seed,
                # Written to the adapter's config.
                "base": [inputs.base_name, inputs.expert.revision],
                **inputs.machine,
                "peft": version("peft"),
            },
        )
        made_now = False

        def log(step: int, metrics: dict[str, float]) -> None:
            tuned_tokens = step * settings.batch_size
            self._context.log("distill", step, {**metrics, "tuned_tokens": tuned_tokens})

        def build(folder: Path) -> dict[str, Any]:
            from lr_exp.distiller import distill  # imports peft

            nonlocal made_now
            made_now = True
            sharded, models = distill.is_sharded(settings), self._context.models
            return distill.distill(
                Supervision.load(supervision.folder),
                models.expert_to_shard() if sharded else models.expert(),
                folder,
                settings,
                distill.Training(
                    loss=loss,
                    seed=inputs.settings.seed,
                    device=inputs.device,
                    base_name=inputs.base_name,
                    base_revision=inputs.expert.revision,
                    on_log=log,
                ),
            )

        artifact = self._context.artifacts.make_if_requested(
            "distill", recipe, build, together=True
        )
        history = read_history(artifact.folder)
        if not made_now:  # a reused adapter logs its history too
            for entry in history:
                log(int(entry["step"]), entry)
        return Tuned(artifact, artifact.folder / ADAPTER, history)

    def _settings_for_epochs(self, supervision: Artifact) -> DistillerSettings:
        """The distiller's settings, with a batch size that allows the method's epochs."""
        settings, epochs = self._inputs.settings.distiller, self._inputs.method.epochs
        if epochs is None or self._inputs.settings.imports_records:
            return settings
        needed = math.ceil(epochs * supervision.facts["kept"] / settings.steps)
        return replace(settings, batch_size=max(settings.batch_size, needed))

    def merge(self, tuned: Tuned) -> Artifact:
        """The expert with the adapter merged in, as a model folder."""
        recipe = Recipe(
            "merged",
            VERSION,
            {"adapter": tuned.artifact.address, "expert": self._inputs.expert.fingerprint},
            self._inputs.machine,
        )

        def build(folder: Path) -> dict[str, Any]:
            from lr_exp.distiller import distill  # imports peft

            # Merging changes weights in place, so it gets a copy, in the CPU's memory.
            copy = loading.load(self._inputs.expert, device="cpu", dtype=self._inputs.dtype)
            distill.merge(copy, tuned.adapter, folder)
            return {}

        return self._context.artifacts.make(recipe, build, measured=False)

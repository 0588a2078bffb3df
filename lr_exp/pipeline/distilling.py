"""The distiller's stages as recipes: what determines an adapter, and which function makes it.

Knows inputs, the workbench and the distiller's functions; torch is imported only to train.
"""

import math
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.config.settings import DistillerSettings
from lr_exp.models import loading
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.workbench import Workbench
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import Artifact, Recipe, digest, file_digest

# They do not change what the stage makes.
_NOT_IN_RECIPE = ("merge", "checkpoint_every", "parallel")


@dataclass(frozen=True)
class Tuned:
    """An adapter and how its training went."""

    artifact: Artifact
    adapter: Path  # the folder that plain `peft` loads
    history: list[dict[str, float]]  # one entry a log, each with its `step`
    step: int | None = None  # of a snapshot: optimizer steps until then; None at the end

    @property
    def digest(self) -> str:
        """Of the adapter's files: two equal ones answer alike, however they were come by."""
        files = sorted(path for path in self.adapter.iterdir() if path.is_file())
        return digest({path.name: file_digest(path) for path in files})

    def snapshots(self) -> list["Tuned"]:
        """The adapters that were kept along the way, in the order of their steps."""
        from lr_exp.distiller import distill

        return [
            Tuned(self.artifact, adapter, self.history, step)
            for step, adapter in distill.read_snapshots(self.artifact.folder)
        ]


class DistillerStages:
    """Supervision to an adapter."""

    def __init__(self, inputs: Inputs, bench: Workbench) -> None:
        self._inputs = inputs
        self._bench = bench

    def distill(self, supervision: Artifact) -> Tuned:
        """Supervision to an adapter."""
        from lr_exp.distiller import distill

        source, settings = self._inputs, self._batches_grown(supervision)
        told = {k: v for k, v in asdict(settings).items() if k not in _NOT_IN_RECIPE}
        if settings.snapshot_every is None:
            del told["snapshot_every"]  # its address is that of the versions that knew none
        recipe = Recipe(
            "adapter",
            distill.VERSION,
            {"supervision": supervision.facts["digest"], "expert": source.expert.fingerprint},
            {
                **told,
                "seed": source.settings.seed,
                # Named in the adapter's config.
                "base": [source.base_name, source.expert.revision],
                **source.machine,
                "peft": version("peft"),
            },
        )
        made_now = False

        def log(step: int, metrics: dict[str, float]) -> None:
            tuned = {"tuned_tokens": step * settings.batch_size}
            self._bench.on_log("distill", step, {**metrics, **tuned})

        def build(folder: Path) -> dict[str, Any]:
            nonlocal made_now
            made_now = True
            sharded = distill.is_sharded(settings)
            return distill.distill(
                Supervision.load(supervision.folder),
                self._bench.expert_to_shard() if sharded else self._bench.expert(),
                folder,
                settings,
                seed=source.settings.seed,
                device=source.device,
                base_name=source.base_name,
                base_revision=source.expert.revision,
                on_log=log,
            )

        artifact = self._bench.make_if_asked("distill", recipe, build, together=True)
        history = distill.read_history(artifact.folder)
        if not made_now:  # the record of a run is whole also where the work was done before
            for entry in history:
                log(int(entry["step"]), entry)
        return Tuned(artifact, artifact.folder / distill.ADAPTER, history)

    def _batches_grown(self, supervision: Artifact) -> DistillerSettings:
        """The distiller's settings, with batches that hold the method's passes over all steps."""
        settings, epochs = self._inputs.settings.distiller, self._inputs.settings.method.epochs
        if epochs is None or self._inputs.settings.imports_records:
            return settings
        needed = math.ceil(epochs * supervision.facts["kept"] / settings.steps)
        return replace(settings, batch_size=max(settings.batch_size, needed))

    def merge(self, tuned: Tuned) -> Artifact:
        """The adapter merged into the expert, as a model folder of its own."""
        from lr_exp.distiller import distill

        recipe = Recipe(
            "merged",
            distill.VERSION,
            {"adapter": tuned.artifact.address, "expert": self._inputs.expert.fingerprint},
            self._inputs.machine,
        )

        def build(folder: Path) -> dict[str, Any]:
            # Merging changes weights in place: on a copy of its own, where memory is cheap.
            alone = loading.load(self._inputs.expert, device="cpu", dtype=self._inputs.dtype)
            distill.merge(alone, tuned.adapter, folder)
            return {}

        return self._bench.store.make(recipe, build)

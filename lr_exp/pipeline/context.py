"""What all stages of a run use: inputs, models, artifacts and the metrics log."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.inference.memory import peak_memory_bytes, reset_peak_memory
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.loaded_models import LoadedModels
from lr_exp.store import Artifact, Recipe, Store

Build = Callable[[Path], dict[str, Any]]  # fills a folder, returns facts
Log = Callable[[str, int, dict[str, float]], None]  # family, step, metrics


class ArtifactMaker:
    """Makes artifacts in the store and measures the memory that each takes."""

    def __init__(self, inputs: Inputs, store: Store) -> None:
        self._stages = tuple(inputs.settings.stages)
        self._device = inputs.device
        self._store = store
        self._peaks: list[int] = []

    @property
    def peak_memory_bytes(self) -> int:
        """The highest peak recorded with any of this run's artifacts, reused ones included."""
        return max(self._peaks, default=0) or peak_memory_bytes(self._device)

    def make(
        self, recipe: Recipe, build: Build, *, together: bool = False, measured: bool = True
    ) -> Artifact:
        """The artifact, built unless the store has it.

        Args:
            recipe: what determines it.
            build: fills the artifact's folder.
            together: whether all ranks take part, see `Store.make`.
            measured: whether to record its peak memory.
        """
        if not measured:
            return self._store.make(recipe, build, together=together)
        return self._record(self._store.make(recipe, self._measured(build), together=together))

    def make_if_requested(
        self, stage: str, recipe: Recipe, build: Build, *, together: bool = False
    ) -> Artifact:
        """As `make`, but fails where the artifact is missing and `stages` leaves its stage out."""
        if stage in self._stages:
            return self.make(recipe, build, together=together)
        found = self._store.find(recipe)
        if found is None:
            raise distributed.SharedError(
                f"stages={list(self._stages)}: the store {self._store.root} has no {recipe.stage} "
                f"for these settings. Add {stage} to stages."
            )
        return self._record(found)

    def _measured(self, build: Build) -> Build:
        def measured(folder: Path) -> dict[str, Any]:
            reset_peak_memory()
            facts = build(folder)
            return {**facts, "peak_memory_bytes": peak_memory_bytes(self._device)}

        return measured

    def _record(self, artifact: Artifact) -> Artifact:
        self._peaks.append(artifact.facts.get("peak_memory_bytes", 0))
        return artifact


class RunContext:
    """The parts of a run that every stage uses."""

    def __init__(self, inputs: Inputs, store: Store, log: Log = lambda *_: None) -> None:
        """Loads nothing yet.

        Args:
            inputs: of the run.
            store: where the artifacts are.
            log: receives the metrics; by default they are dropped.
        """
        self.inputs = inputs
        self.models = LoadedModels(inputs, store.root)
        self.artifacts = ArtifactMaker(inputs, store)
        self.log = log

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


class RunContext:
    """The parts of a run that every stage uses."""

    def __init__(self, inputs: Inputs, store: Store, log: Log = lambda *_: None) -> None:
        """Loads nothing yet. `log` receives the metrics; by default they are dropped."""
        self.inputs = inputs
        self.models = LoadedModels(inputs, store.root)
        self.log = log
        self._store = store
        self._peaks: list[int] = []

    @property
    def peak_memory_bytes(self) -> int:
        """The highest peak recorded with any of this run's artifacts, reused ones included."""
        return max(self._peaks, default=0) or peak_memory_bytes(self.inputs.device)

    def make(
        self, recipe: Recipe, build: Build, *, stage: str | None = None, together: bool = False
    ) -> Artifact:
        """The artifact, built unless the store has it, with the peak memory that building it took.

        Args:
            stage: the stage of the run that builds it. The artifact must exist where `stages`
                leaves this stage out.
            together: whether all ranks take part, see `Store.make`.
        """

        def measured(folder: Path) -> dict[str, Any]:
            # Fails before the first artifact takes time, and alike on every rank.
            distributed.run_identically(lambda: self.inputs.lora_targets)
            reset_peak_memory()
            facts = build(folder)
            return {**facts, "peak_memory_bytes": peak_memory_bytes(self.inputs.device)}

        stages = self.inputs.settings.stages
        if stage is None or stage in stages:
            artifact = self._store.make(recipe, measured, together=together)
        elif (found := self._store.find(recipe)) is not None:
            artifact = found
        else:
            raise distributed.SharedError(
                f"stages={list(stages)}: the store {self._store.root} has no {recipe.stage} "
                f"for these settings. Add {stage} to stages."
            )
        self._peaks.append(artifact.facts.get("peak_memory_bytes", 0))
        return artifact

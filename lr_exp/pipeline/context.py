"""What all stages of a run use: inputs, loaded models and engines, artifacts, the metrics log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from lr_exp import distributed, progress
from lr_exp.errors import printable
from lr_exp.inference.engines import Engine, Generate, last_known_identity
from lr_exp.inference.memory import free_memory, peak_memory_bytes, reset_peak_memory
from lr_exp.models import early_exit, loading, locating
from lr_exp.models.loading import LanguageModel, ModelPair
from lr_exp.pipeline.inputs import RENDERING_PACKAGES, Inputs, versions_of
from lr_exp.store import Artifact, Recipe, Store, digest

Build = Callable[[Path], dict[str, Any]]  # fills a folder, returns facts
Log = Callable[[str, int, dict[str, float]], None]  # family, step, metrics


class RunContext:
    """The parts of a run that every stage uses."""

    def __init__(self, inputs: Inputs, store: Store, log: Log = lambda *_: None) -> None:
        """`log` receives the metrics; by default they are dropped."""
        self.inputs = inputs
        self.models = LoadedModels(inputs, store.root)
        self.log = log
        self._store = store
        self._peaks: list[int] = []

    def changed(self, **settings: Any) -> "RunContext":
        """A context with other settings, see `Inputs.changed`, that shares the loaded models."""
        other = copy(self)
        other.inputs, other.models = self.inputs.changed(**settings), copy(self.models)
        other.models._inputs = other.inputs
        return other

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


class LoadedModels:
    """Loads models on first use and frees them where an engine or a sharded copy needs the room."""

    def __init__(self, inputs: Inputs, store_root: Path) -> None:
        self._inputs = inputs
        self._store_root = store_root
        self._loaded: dict[str, LanguageModel] = {}
        self._engines: dict[str, Engine] = {}
        # The identities of the engines used so far, by part of the settings.
        self.engine_identities: dict[str, dict[str, Any]] = {}

    def expert(self) -> LanguageModel:
        if "expert" not in self._loaded:
            self._loaded["expert"] = self._load(self._inputs.expert)
        return self._loaded["expert"]

    def expert_to_shard(self) -> LanguageModel:
        """A copy of the expert on the CPU, to be sharded over the ranks and then dropped."""
        self._loaded.clear()  # the devices need the memory for their shards
        free_memory()
        return self._load_on(self._inputs.expert, "cpu")

    def pair(self) -> ModelPair:
        """Expert and amateur, to score with. The amateur is not cached."""
        expert, source = self.expert(), self._inputs.amateur
        if source.fingerprint == self._inputs.expert.fingerprint:
            amateur = expert
        elif source.drop_layers:
            amateur = early_exit.early_exit(expert, source.drop_layers, source.name)
        else:
            amateur = self._load(source)
        return ModelPair(expert, amateur, self._inputs.scored)

    def amateur(self) -> LanguageModel:
        """The amateur, to generate with.

        An early exit gets weights of its own: the expert's may carry an adapter at the time.
        """
        source = self._inputs.amateur
        if source.fingerprint not in self._loaded:
            for other in self._loaded.keys() - {"expert"}:
                del self._loaded[other]
            model = self._load(source)
            if source.drop_layers:
                model = early_exit.early_exit(model, source.drop_layers, source.name)
            self._loaded[source.fingerprint] = model
        return self._loaded[source.fingerprint]

    @contextmanager
    def generating(
        self, part: str, adapter: Path | None = None, who: str = "expert"
    ) -> Iterator[tuple[LanguageModel, Generate | None]]:
        """The model to generate with, and the engine that does so in its place, if there is one.

        With an engine the model has no weights. The amateur has no engine.

        Args:
            part: the part of the settings that names the engine: "sampler" or "evaluator".
            adapter: attached to the expert meanwhile.
            who: "expert" or, without an adapter, "amateur".
        """
        if who == "amateur":
            yield self.amateur(), None
        elif (engine := self._engine(part)) is not None:
            expert = loading.load_without_weights(self._inputs.expert)
            self._loaded.clear()  # an engine in this process needs their memory
            free_memory()
            with engine.open(expert, adapter) as generate:
                yield expert, generate
        else:
            with self.adapted(adapter) as model:
                yield model, None

    @contextmanager
    def adapted(self, adapter: Path | None) -> Iterator[LanguageModel]:
        """The expert, with its weights, and with the adapter attached meanwhile."""
        if adapter is None:
            yield self.expert()
            return
        from lr_exp.distiller.distill import attach_adapter  # imports peft

        attached = attach_adapter(self.expert(), adapter)
        try:
            yield replace(self.expert(), model=attached, name="tuned")
        finally:
            attached.unload()

    def generation_environment(self, part: str) -> dict[str, Any]:
        """What generated ids depend on besides settings: device, precision, versions, engine."""
        engine, identities = self._engine(part), self.engine_identities
        if engine is None:
            return self._inputs.machine
        if part not in identities:  # a server that is down takes long to answer: ask once
            server = self._inputs.settings.server
            key = digest([self._inputs.settings.engines[part], server.url, server.model])[:24]
            remembered = self._store_root / ".engines" / f"{key}.json"
            identities[part] = distributed.run_on_rank0(
                lambda: last_known_identity(engine, remembered)
            )
        # Prompts are rendered here, whatever generates.
        return identities[part] | versions_of(RENDERING_PACKAGES)

    def _engine(self, part: str) -> Engine | None:
        """The engine of a part of the settings; None for the model itself."""
        name = self._inputs.settings.engines[part]
        if name == "transformers":
            return None
        if name not in self._engines:
            if name == "server":
                from lr_exp.inference.engines.server import ServerEngine

                self._engines[name] = ServerEngine(self._inputs.settings.server)
            else:
                from lr_exp.inference.engines.in_process import VllmEngine

                if distributed.is_distributed():
                    raise distributed.SharedError(
                        f"{part}.engine=vllm runs in one process, but this run has "
                        f"{distributed.world_size()}. Start it without torchrun, or serve the "
                        f"expert (vllm serve) and set {part}.engine=server."
                    )
                self._engines[name] = VllmEngine(self._inputs.expert, self._inputs.dtype)
        return self._engines[name]

    def _load(self, source: locating.ModelSource) -> LanguageModel:
        for engine in self._engines.values():
            engine.close()  # the model may need their memory
        return self._load_on(source, self._inputs.device)

    def _load_on(self, source: locating.ModelSource, device: str) -> LanguageModel:
        progress.announce(f"loading the {source.role} {printable(source.name)}")
        return distributed.run_on_all_ranks(
            lambda: loading.load(source, device=device, dtype=self._inputs.dtype)
        )

"""Where stages work: artifacts made or found, models loaded once, adapters put on and taken off.

Knows the store, inputs and memory; what a stage makes of them is its own business.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.inference.engines import Engine, Generate, remembered_identity
from lr_exp.inference.memory import peak_memory_bytes, reset_peak_memory
from lr_exp.inference.out_of_memory import free_memory
from lr_exp.models import early_exit, loading, locating
from lr_exp.models.loading import LanguageModel
from lr_exp.pipeline.inputs import RENDERING_PACKAGES, Inputs
from lr_exp.store import Artifact, Recipe, Store, digest

Build = Callable[[Path], dict[str, Any]]  # fills a folder, returns facts
OnLog = Callable[[str, int, dict[str, float]], None]  # family, step, metrics


class Workbench:
    """A run's store, its loaded models, and its record of memory."""

    def __init__(self, inputs: Inputs, store: Store) -> None:
        self._inputs = inputs
        self.store = store
        self.on_log: OnLog = lambda family, step, metrics: None
        self._loaded: dict[str, LanguageModel] = {}
        self._engines: dict[str, Engine] = {}
        self.identities: dict[str, dict[str, Any]] = {}  # of engines, by the part that asked them
        self._peaks: list[int] = []

    def make(self, recipe: Recipe, build: Build, *, together: bool = False) -> Artifact:
        """The artifact, made if it is not there; how much memory that took is kept.

        together: on all ranks, see `Store.make`; for what models do.
        """
        made = self.store.make(recipe, self._measured(build), together=together)
        return self._noted(made)

    def make_if_asked(
        self, stage: str, recipe: Recipe, build: Build, *, together: bool = False
    ) -> Artifact:
        """The artifact, made only if its stage is among those asked for."""
        if stage in self._inputs.settings.stages:
            return self.make(recipe, build, together=together)
        found = self.store.find(recipe)
        if found is None:
            asked = list(self._inputs.settings.stages)
            raise distributed.SharedError(
                f"stages={asked}: the {recipe.stage} of these settings is not in the store "
                f"{self.store.root}; add {stage} to stages."
            )
        return self._noted(found)

    def _measured(self, build: Build) -> Build:
        """The builder, with the most memory that it took among its facts."""

        def measured(folder: Path) -> dict[str, Any]:
            reset_peak_memory()
            facts = build(folder)
            return {**facts, "peak_memory_bytes": peak_memory_bytes(self._inputs.device)}

        return measured

    def _noted(self, artifact: Artifact) -> Artifact:
        self._peaks.append(artifact.facts.get("peak_memory_bytes", 0))
        return artifact

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that making any of this run's artifacts took, whenever that was."""
        return max(self._peaks, default=0) or peak_memory_bytes(self._inputs.device)

    def expert(self) -> LanguageModel:
        """The expert, loaded once."""
        if "expert" not in self._loaded:
            self._loaded["expert"] = self._load(self._inputs.expert)
        return self._loaded["expert"]

    def expert_to_shard(self) -> LanguageModel:
        """A copy of the expert in the CPU's memory, to be spread over devices and then dropped."""
        self._loaded.clear()  # the devices need their memory for their shares
        free_memory()
        source, dtype = self._inputs.expert, self._inputs.dtype
        return distributed.run_on_all_ranks(lambda: loading.load(source, device="cpu", dtype=dtype))

    def pair(self) -> tuple[LanguageModel, LanguageModel]:
        """Expert and amateur to score with; the amateur goes when the caller lets it go."""
        expert, amateur = self.expert(), self._inputs.amateur
        if amateur.drop_layers:
            return expert, early_exit.early_exit(expert, amateur.drop_layers, amateur.name)
        return expert, self._load(amateur)

    def amateur(self) -> LanguageModel:
        """The amateur for evaluation, loaded once.

        An early exit has weights of its own here: the expert's may carry an adapter at the time.
        """
        if "amateur" not in self._loaded:
            amateur = self._inputs.amateur
            model = self._load(replace(amateur, drop_layers=()))
            if amateur.drop_layers:
                model = early_exit.early_exit(model, amateur.drop_layers, amateur.name)
            self._loaded["amateur"] = model
        return self._loaded["amateur"]

    def engine(self, part: str) -> Engine | None:
        """What answers in the expert's place in a part of the settings; None: the expert itself."""
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

    def machine(self, part: str) -> dict[str, Any]:
        """What the same settings may be answered differently on, in a part of them."""
        engine = self.engine(part)
        if engine is None:
            return self._inputs.machine
        if part not in self.identities:  # asked once: a server that is away takes its time
            server = self._inputs.settings.server
            place = digest([self._inputs.settings.engines[part], server.url, server.model])[:24]
            remembered = self.store.root / ".engines" / f"{place}.json"
            self.identities[part] = distributed.run_on_rank0(
                lambda: remembered_identity(engine, remembered)
            )
        # The prompts are rendered here, whatever answers them.
        return {**self.identities[part], **{name: version(name) for name in RENDERING_PACKAGES}}

    @contextmanager
    def answering(
        self, part: str, adapter: Path | None = None, who: str = "expert"
    ) -> Iterator[tuple[LanguageModel, Generate | None]]:
        """What `evaluated` gives, and the engine, if any, that answers in its place.

        With an engine, the model has no weights; the amateur has no engine.
        """
        engine = self.engine(part) if who == "expert" else None
        if engine is None:
            with self.evaluated(adapter, who) as language_model:
                yield language_model, None
            return
        expert = loading.without_weights(self._inputs.expert)
        self._loaded.clear()  # an engine in this process needs their memory
        free_memory()
        with engine.open(expert, adapter) as generate:
            yield expert, generate

    def _load(self, source: locating.ModelSource) -> LanguageModel:
        for engine in self._engines.values():
            engine.close()  # what is loaded here may need its memory
        return distributed.run_on_all_ranks(
            lambda: loading.load(source, device=self._inputs.device, dtype=self._inputs.dtype)
        )

    @contextmanager
    def evaluated(self, adapter: Path | None, who: str) -> Iterator[LanguageModel]:
        """A model to evaluate: the expert, the expert with an adapter (taken off again at the end),
        or, with `who` "amateur", the amateur.
        """
        if who == "amateur":
            yield self.amateur()
            return
        expert = self.expert()
        if adapter is None:
            yield expert
            return
        from lr_exp.distiller import distill

        attached = distill.attach_adapter(expert, adapter)
        try:
            yield replace(expert, model=attached, name="tuned")
        finally:
            attached.unload()

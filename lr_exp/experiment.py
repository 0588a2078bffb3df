"""The stages of a run, each made from artifacts and kept in the store.

Knows settings, the store and every room; knows neither Hydra nor W&B. Each method of `Experiment`
writes down what determines its stage (the recipe) and hands the work to the room that does it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp import __version__, models
from lr_exp.data import (
    Question,
    fingerprint,
    load_questions,
    prompts_fingerprint,
    select_questions,
)
from lr_exp.errors import UserError
from lr_exp.evaluator import answer, grade
from lr_exp.evaluator.aggregate import Aggregate, aggregate
from lr_exp.evaluator.benchmarks import load_benchmark, load_shots
from lr_exp.models import LanguageModel
from lr_exp.sampler import records, rollout, score, select
from lr_exp.settings import BenchmarkSettings, Settings
from lr_exp.store import Artifact, Recipe, Store, file_digest, write_atomically
from lr_exp.supervision import Supervision
from lr_exp.vocabulary import SharedVocabulary, shared_vocabulary

# Kept out of a recipe: they do not change what the stage makes.
_NOT_IN_DISTILL = ("merge", "checkpoint_every")
_MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
_GRADING_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")

ANSWERS = "answers.jsonl"

OnLog = Callable[[str, int, dict[str, float]], None]  # family, step, metrics


@dataclass(frozen=True)
class Tuned:
    """An adapter and how its training went."""

    artifact: Artifact
    adapter: Path  # the folder that plain `peft` loads
    history: list[dict[str, float]]  # one entry a log, each with its `step`


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's result for one model, and where its graded answers are."""

    result: Aggregate
    seconds: float  # of answering and grading, whenever they were done
    reused: bool  # the answers were in the store
    cut_off: int  # answers that a limit ended
    answers: Path


class Experiment:
    """The stages of one run, each a method that returns its artifact, made or found."""

    def __init__(self, settings: Settings, store: Store, conf_dir: Path) -> None:
        self.settings = settings
        self.store = store
        self.on_log: OnLog = lambda family, step, metrics: None
        self._loaded: dict[str, LanguageModel] = {}
        # A benchmark that does not exist fails here; what it reads, in `check_inputs`.
        self.benchmarks = [load_benchmark(name, conf_dir) for name in settings.benchmarks]
        for name in settings.evaluator.shots:
            load_benchmark(name, conf_dir)
        self.device = models.resolve_device(settings.device)
        self.dtype = models.resolve_dtype(settings.dtype, self.device)

    # What goes in ----------------------------------------------------------------------------

    @cached_property
    def expert(self) -> models.ModelSource:
        return models.locate(self.settings.expert, "expert")

    @cached_property
    def amateur(self) -> models.ModelSource:
        return models.locate_amateur(self.settings.amateur, self.expert)

    @cached_property
    def questions(self) -> list[Question]:
        """The unlabelled questions, chosen by the seed."""
        data = self.settings.data
        everything = load_questions(data, hub_root=self.settings.hub_root)
        return select_questions(everything, data.max_questions, self.settings.seed)

    @cached_property
    def benchmark_questions(self) -> dict[str, list[Question]]:
        """Each benchmark's first questions."""
        count = self.settings.evaluator.max_examples
        return {
            benchmark.name: load_questions(benchmark, hub_root=self.settings.hub_root)[:count]
            for benchmark in self.benchmarks
        }

    @cached_property
    def _shots(self) -> dict[str, list[Question]]:
        """Each benchmark's worked examples."""
        counts, hub_root = self.settings.evaluator.shots, self.settings.hub_root
        return {
            benchmark.name: load_shots(benchmark, counts.get(benchmark.name, 0), hub_root=hub_root)
            for benchmark in self.benchmarks
        }

    @cached_property
    def shared(self) -> SharedVocabulary:
        """The ids that the pair is compared on; checked before any weights load."""
        reused = {*self.settings.expert.reused_ids, *self.settings.amateur.reused_ids}
        expert = models.load_tokenizer(self.expert)
        amateur = expert if self.amateur.drop_layers else models.load_tokenizer(self.amateur)
        return shared_vocabulary(
            expert,
            amateur,
            expert_rows=models.config_rows(self.expert),
            amateur_rows=models.config_rows(self.amateur),
            reused_ids=tuple(sorted(reused)),
        )

    def check_inputs(self) -> None:
        """Reads every input once, so that a bad one fails before the first model loads."""
        stages = self.settings.stages
        export = self.settings.sampler.export
        if export is not None and Path(export).is_dir():
            raise UserError(f"sampler.export={export} is a folder: give the name of a file.")
        _ = self.expert
        if "evaluate" in stages:
            for benchmark in self.benchmarks:
                _ = self._shots[benchmark.name]
                grade.check_references(self.benchmark_questions[benchmark.name], benchmark.answer)
        if "sample" in stages and not self.imports_records:
            _ = self.questions, self.shared
            models.check_drop_layers(self.amateur)

    @property
    def imports_records(self) -> bool:
        """Whether supervision is read from a file instead of sampled."""
        return self.settings.data.format == "lr_samples"

    def provenance(self) -> dict[str, Any]:
        """Which models, questions and machine the results are of."""
        stages = self.settings.stages
        sampled = "sample" in stages and not self.imports_records
        return {
            "expert": {
                "path": self._base_name,
                "revision": self.expert.revision,
                "fingerprint": self.expert.fingerprint,
            },
            "amateur": {
                "path": self.settings.amateur.path,
                "revision": self.amateur.revision,
                "fingerprint": self.amateur.fingerprint,
            }
            if sampled
            else None,
            "questions": fingerprint(self.questions) if sampled else None,
            "benchmarks": {
                name: fingerprint(questions) for name, questions in self.benchmark_questions.items()
            }
            if "evaluate" in stages
            else {},
            "device": self.device,
            "device_name": models.device_name(self.device),
            "dtype": self.dtype,
        }

    # Stages ----------------------------------------------------------------------------------

    def roll_out(self) -> Artifact:
        """Questions to trajectories."""
        sampler = self.settings.sampler
        told = {
            "system_prompt": sampler.system_prompt,
            "max_new_tokens": sampler.max_new_tokens,
            "batch_size": sampler.batch_size,
        }
        recipe = Recipe(
            "rollout",
            rollout.VERSION,
            {"questions": prompts_fingerprint(self.questions), "expert": self.expert.fingerprint},
            {**told, **self._machine},
        )
        return self._make(
            "sample",
            recipe,
            lambda folder: rollout.roll_out(self.questions, self.load_expert(), folder, **told),
        )

    def score(self, trajectories: Artifact) -> Artifact:
        """Trajectories to the step table."""
        sampler = self.settings.sampler
        told = {
            "system_prompt": sampler.system_prompt,
            "support_floor": sampler.support_floor,
            "tokens_per_pass": sampler.tokens_per_pass,
        }
        recipe = Recipe(
            "score",
            score.VERSION,
            {
                "trajectories": trajectories.address,
                "expert": self.expert.fingerprint,
                "amateur": self.amateur.fingerprint,
                "shared": asdict(self.shared),
            },
            {**told, **self._machine},
        )
        return self._make(
            "sample",
            recipe,
            lambda folder: score.score(
                trajectories.folder, *self._load_pair(), self.shared, folder, **told
            ),
        )

    def select(self, trajectories: Artifact, steps: Artifact) -> Artifact:
        """The step table to supervision, and what is known of the divergences."""
        method = self.settings.method
        # A choice that does not read alpha or beta has one address for all of their values.
        told = {
            "steps": method.steps,
            "target": method.target,
            "alpha": self.settings.alpha if method.target == "contrast" else None,
            "beta": self.settings.beta if method.steps == "kl_above_beta" else None,
        }
        recipe = Recipe(
            "supervision",
            select.VERSION,
            {"trajectories": trajectories.address, "steps": steps.address},
            told,
        )

        def build(folder: Path) -> dict[str, Any]:
            selection = select.select(
                trajectories.folder,
                steps.folder,
                method,
                alpha=self.settings.alpha,
                beta=self.settings.beta,
            )
            selection.supervision.save(folder)
            return {**select.profile(selection), "digest": selection.supervision.digest()}

        return self._make("sample", recipe, build)

    def import_records(self) -> Artifact:
        """A file of kept steps in the published form to supervision."""
        path = Path(self.settings.data.path or "")
        told = {
            "system_prompt": self.settings.sampler.system_prompt,
            "tokenizers": version("tokenizers"),
        }
        inputs = {
            "records": file_digest(path) if path.is_file() else None,
            "expert": self.expert.fingerprint,  # its tokenizer reads prefixes without ids
        }
        tokenizer = models.load_tokenizer(self.expert)

        def build(folder: Path) -> dict[str, Any]:
            supervision = records.import_records(
                path,
                tokenizer,
                system_prompt=told["system_prompt"],
                vocabulary_size=len(models.tokens_by_id(tokenizer)),
            )
            supervision.save(folder)
            return {**records.profile(supervision), "digest": supervision.digest()}

        # Reading a file is no sampling: it is done whichever stages were asked for.
        return self.store.make(Recipe("records", records.VERSION, inputs, told), build)

    def export(self, supervision: Artifact) -> Path | None:
        """Writes the kept steps in the published form, if the settings ask for it."""
        if self.settings.sampler.export is None:
            return None
        path = Path(self.settings.sampler.export)
        tokenizer = models.load_tokenizer(self.expert)
        records.export_records(Supervision.load(supervision.folder), tokenizer, path)
        return path

    def distill(self, supervision: Artifact) -> Tuned:
        """Supervision to an adapter."""
        from lr_exp.distiller import distill

        settings = self.settings.distiller
        told = {k: v for k, v in asdict(settings).items() if k not in _NOT_IN_DISTILL}
        recipe = Recipe(
            "adapter",
            distill.VERSION,
            {"supervision": supervision.facts["digest"], "expert": self.expert.fingerprint},
            {
                **told,
                "seed": self.settings.seed,
                "base": [self._base_name, self.expert.revision],  # named in the adapter's config
                **self._machine,
                "peft": version("peft"),
            },
        )
        made_now = False

        def build(folder: Path) -> dict[str, Any]:
            nonlocal made_now
            made_now = True
            return distill.distill(
                Supervision.load(supervision.folder),
                self.load_expert(),
                folder,
                settings,
                seed=self.settings.seed,
                device=self.device,
                base_name=self._base_name,
                base_revision=self.expert.revision,
                on_log=lambda step, metrics: self.on_log("distill", step, metrics),
            )

        artifact = self._make("distill", recipe, build)
        history = distill.read_history(artifact.folder)
        if not made_now:  # the record of a run is whole also where the work was done before
            for entry in history:
                self.on_log("distill", int(entry["step"]), entry)
        return Tuned(artifact, artifact.folder / distill.ADAPTER, history)

    def merge(self, tuned: Tuned) -> Artifact:
        """The adapter merged into the expert, as a model folder of its own."""
        from lr_exp.distiller import distill

        recipe = Recipe(
            "merged",
            distill.VERSION,
            {"adapter": tuned.artifact.address, "expert": self.expert.fingerprint},
            self._machine,
        )

        def build(folder: Path) -> dict[str, Any]:
            # Merging changes weights in place: on a copy of its own, where memory is cheap.
            alone = models.load(self.expert, device="cpu", dtype=self.dtype)
            distill.merge(alone, tuned.adapter, folder)
            return {}

        return self.store.make(recipe, build)

    def evaluate(self, benchmark: BenchmarkSettings, tuned: Tuned | None) -> Evaluation:
        """One benchmark, by the expert or, with an adapter, by the tuned expert."""
        questions = self.benchmark_questions[benchmark.name]
        answers = self._answers(benchmark, questions, tuned)
        recipe = Recipe(
            "grades",
            grade.VERSION,
            {
                "answers": answers.address,
                "questions": fingerprint(questions),  # their references
                **{name: version(name) for name in _GRADING_PACKAGES},
            },
            {"kind": benchmark.answer, "version": benchmark.version},
        )

        def build(folder: Path) -> dict[str, Any]:
            graded = grade.grade_all(
                questions, answer.read_outputs(answers.folder), benchmark.answer
            )
            lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in graded)
            write_atomically(folder / ANSWERS, "".join(lines))
            return dict(aggregate([line["correct"] for line in graded]))

        grades = self.store.make(recipe, build)
        result = Aggregate(**grades.facts)
        self.on_log(
            f"eval/{benchmark.name}",
            0 if tuned is None else self.settings.distiller.steps,
            {
                "accuracy": result["accuracy"],
                "stderr": result["stderr"],
                "correct": result["correct"],
                "total": result["total"],
            },
        )
        return Evaluation(
            result=result,
            seconds=answers.seconds + grades.seconds,
            reused=answers.reused,
            cut_off=answers.facts["questions"] - answers.facts["finished"],
            answers=grades.folder / ANSWERS,
        )

    def _answers(
        self, benchmark: BenchmarkSettings, questions: Sequence[Question], tuned: Tuned | None
    ) -> Artifact:
        evaluator = self.settings.evaluator
        shots = self._shots[benchmark.name]
        told = {
            "system_prompt": evaluator.system_prompt,
            "max_new_tokens": evaluator.max_new_tokens,
            "batch_size": evaluator.batch_size,
        }
        recipe = Recipe(
            "answers",
            answer.VERSION,
            {
                "questions": prompts_fingerprint(questions),
                "shots": fingerprint(shots),
                "expert": self.expert.fingerprint,
                "adapter": tuned.artifact.address if tuned else None,
                "benchmark": [benchmark.name, benchmark.version],
            },
            {**told, **self._machine},
        )
        who = "tuned" if tuned else "expert"

        def build(folder: Path) -> dict[str, Any]:
            with self._language_model(tuned) as language_model:
                return answer.answer(
                    questions,
                    language_model,
                    folder,
                    name=f"{benchmark.name} ({who})",
                    shots=shots,
                    **told,
                )

        return self.store.make(recipe, build)

    def _make(
        self, stage: str, recipe: Recipe, build: Callable[[Path], dict[str, Any]]
    ) -> Artifact:
        """The artifact, made only if its stage is among those asked for."""
        if stage in self.settings.stages:
            return self.store.make(recipe, build)
        found = self.store.find(recipe)
        if found is None:
            raise UserError(
                f"stages={list(self.settings.stages)}: the {recipe.stage} of these settings is not "
                f"in the store {self.store.root}; add {stage} to stages."
            )
        return found

    # Models ----------------------------------------------------------------------------------

    def load_expert(self) -> LanguageModel:
        """The expert, loaded once."""
        if "expert" not in self._loaded:
            self._loaded["expert"] = models.load(self.expert, device=self.device, dtype=self.dtype)
        return self._loaded["expert"]

    def _load_pair(self) -> tuple[LanguageModel, LanguageModel]:
        expert = self.load_expert()
        if self.amateur.drop_layers:
            return expert, models.early_exit(expert, self.amateur.drop_layers, self.amateur.name)
        return expert, models.load(self.amateur, device=self.device, dtype=self.dtype)

    @contextmanager
    def _language_model(self, tuned: Tuned | None) -> Iterator[LanguageModel]:
        """The expert, or the expert with an adapter that is taken off again at the end."""
        expert = self.load_expert()
        if tuned is None:
            yield expert
            return
        from lr_exp.distiller import distill

        attached = distill.attach_adapter(expert, tuned.adapter)
        try:
            yield replace(expert, model=attached, name="tuned")
        finally:
            attached.unload()

    @property
    def _base_name(self) -> str:
        """What an adapter's config names as its base: the hub id or path, not a cache's folder."""
        expert = self.settings.expert
        return expert.path or expert.fallback_path or f"{expert.package}/{expert.package_path}"

    @cached_property
    def _machine(self) -> dict[str, str]:
        """What the same settings may compute differently on."""
        return {
            "device": self.device.partition(":")[0],
            "dtype": self.dtype,
            **{name: version(name) for name in _MODEL_PACKAGES},
        }


def versions() -> dict[str, str]:
    """Versions that a result depends on, this package's first."""
    import platform

    packages = (*_MODEL_PACKAGES, "peft", "accelerate", "datasets", *_GRADING_PACKAGES)
    return {
        "lr_exp": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

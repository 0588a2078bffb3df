"""What goes into a run: models, questions, benchmarks, and whether they fit together.

Knows settings and where things are found; loads no weights, and makes no artifact but that of a
streamed source's questions.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp import __version__
from lr_exp.config.settings import Settings
from lr_exp.data.benchmarks import load_benchmark, load_shots
from lr_exp.data.questions import Question, fingerprint, load_questions, select_questions
from lr_exp.data.streaming import streamed_questions
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.models import devices, early_exit, loading, locating
from lr_exp.models.vocabulary import SharedVocabulary, shared_vocabulary
from lr_exp.store import Store

MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
RENDERING_PACKAGES = ("transformers", "tokenizers")  # they turn a question into token ids
GRADING_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")


class Inputs:
    """A run's inputs, each read once, when it is first asked for."""

    def __init__(
        self, settings: Settings, conf_dirs: Sequence[Path], store: Store | None = None
    ) -> None:
        """Inputs of these settings.

        Args:
            settings: of the run.
            conf_dirs: the folders of the YAML groups; see `option_folders`.
            store: where a streamed source's questions go; None: the settings' own.
        """
        self.settings = settings
        self._store = store
        # A benchmark that does not exist fails here; what it reads, in `check`.
        self.benchmarks = [load_benchmark(name, conf_dirs) for name in settings.benchmarks]
        for name in settings.evaluator.shots:
            load_benchmark(name, conf_dirs)
        self.device = devices.resolve_device(settings.device)
        self.dtype = devices.resolve_dtype(settings.dtype, self.device)

    @cached_property
    def expert(self) -> locating.ModelSource:
        source = locating.locate(self.settings.expert, "expert")
        return replace(source, attention=self.settings.attention)

    @cached_property
    def amateur(self) -> locating.ModelSource:
        source = locating.locate_amateur(self.settings.amateur, self.expert)
        return replace(source, attention=self.settings.attention)

    @cached_property
    def _data_source(self) -> Sequence[Question]:
        """What the questions are chosen from; of a stream, which is read no further, they alone."""
        if self.settings.data.streaming:
            return self.questions
        return load_questions(self.settings.data, hub_root=self.settings.hub_root)

    @cached_property
    def questions(self) -> Sequence[Question]:
        """The questions to learn from; only some methods read the answers.

        Chosen by the seed, in a list; with `data.streaming` the first ones, read from the store a
        shard at a time: to be gone through, never to be made a list of.
        """
        settings = self.settings
        if settings.data.streaming:
            store = self._store or Store(settings.store)
            return streamed_questions(settings.data, hub_root=settings.hub_root, store=store)
        return select_questions(
            self._data_source, self.settings.data.max_questions, self.settings.seed
        )

    @cached_property
    def benchmark_questions(self) -> dict[str, list[Question]]:
        """Each benchmark's first questions."""
        count = self.settings.evaluator.max_examples
        return {
            benchmark.name: load_questions(benchmark, hub_root=self.settings.hub_root)[:count]
            for benchmark in self.benchmarks
        }

    @cached_property
    def shots(self) -> dict[str, list[Question]]:
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
        expert = loading.load_tokenizer(self.expert)
        amateur = expert if self.amateur.drop_layers else loading.load_tokenizer(self.amateur)
        return shared_vocabulary(
            expert,
            amateur,
            expert_rows=locating.config_rows(self.expert),
            amateur_rows=locating.config_rows(self.amateur),
            reused_ids=tuple(sorted(reused)),
        )

    def check(self) -> None:
        """Reads every input once, so that a bad one fails before the first model loads."""
        stages = self.settings.stages
        export = self.settings.sampler.export
        if export is not None:
            _check_export(export)
        _ = self.expert
        if "evaluate" in stages:
            for benchmark in self.benchmarks:
                _ = self.shots[benchmark.name]
                grade.check_references(self.benchmark_questions[benchmark.name], benchmark.answer)
        if "sample" in stages and not self.settings.imports_records:
            self._check_method()
        if self.settings.asks_amateur:
            _ = self.shared
            early_exit.check_drop_layers(self.amateur)

    def _check_method(self) -> None:
        method, data = self.settings.method, self.settings.data
        if method.trajectories == "expert_verified":
            try:
                grade.check_references(self.questions, data.answer)
            except UserError as error:
                raise UserError(
                    f"method={method.name} verifies answers, and data={data.name} has not one for "
                    f"each question: {error}"
                ) from error
        elif method.trajectories == "human_solution":
            for question in self.questions:
                if not question.solution:
                    raise UserError(
                        f"method={method.name} tunes on human solutions, and question "
                        f"{question.id} of data={data.name} has none; choose other data or another "
                        "method."
                    )
        if self.settings.sampler.export is not None and not method.needs_amateur:
            raise UserError(
                f"sampler.export: method={method.name} measures no divergence, which the record "
                "form needs; leave sampler.export out or choose another method."
            )

    def provenance(self) -> dict[str, Any]:
        """Which models, questions and machine the results are of."""
        stages = self.settings.stages
        sampled = "sample" in stages and not self.settings.imports_records
        return {
            "expert": {
                "path": self.base_name,
                "revision": self.expert.revision,
                "fingerprint": self.expert.fingerprint,
            },
            "amateur": {
                "path": self.settings.amateur.path,
                "revision": self.amateur.revision,
                "fingerprint": self.amateur.fingerprint,
            }
            if self.settings.asks_amateur
            else None,
            "data": fingerprint(self._data_source) if sampled else None,
            "questions": fingerprint(self.questions) if sampled else None,
            "benchmarks": {
                name: fingerprint(questions) for name, questions in self.benchmark_questions.items()
            }
            if "evaluate" in stages
            else {},
            "device": self.device,
            "device_name": devices.device_name(self.device),
            "dtype": self.dtype,
        }

    @property
    def base_name(self) -> str:
        """What an adapter's config names as its base: the hub id or path, not a cache's folder."""
        expert = self.settings.expert
        return expert.path or expert.fallback_path or f"{expert.package}/{expert.package_path}"

    @cached_property
    def machine(self) -> dict[str, str]:
        """What the same settings may compute differently on."""
        chosen = self.settings.attention
        return {
            "device": self.device.partition(":")[0],
            "dtype": self.dtype,
            # Left to the library, its version says it; addresses stay what they were.
            **({"attention": chosen} if chosen else {}),
            **{name: version(name) for name in MODEL_PACKAGES},
        }


def _check_export(export: str) -> None:
    """Raises UserError where no file can be written, before hours of sampling."""
    path = Path(export)
    if path.is_dir():
        raise UserError(f"sampler.export={export} is a folder: give the name of a file.")
    for above in path.parents:
        if above.exists():
            if not above.is_dir():
                raise UserError(
                    f"sampler.export={export}: {above} is a file and no folder: give another name."
                )
            return


def versions() -> dict[str, str]:
    """Versions that a result depends on, this package's first."""
    import platform

    packages = (*MODEL_PACKAGES, "peft", "accelerate", "datasets", *GRADING_PACKAGES)
    return {
        "lr_exp": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

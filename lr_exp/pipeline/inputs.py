"""The inputs of a run: method, models, questions and benchmarks, found and checked.

Weights are loaded only to merge `expert.adapter` into the expert.
"""

import logging
import platform
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from lr_exp import __version__, distributed
from lr_exp.config.method import Method
from lr_exp.config.settings import LM_EVAL, PromptSettings, Settings
from lr_exp.data.benchmarks import load_benchmark, load_shots
from lr_exp.data.noise import with_noise
from lr_exp.data.questions import (
    Question,
    fingerprint,
    load_questions,
    select_examples,
    select_questions,
)
from lr_exp.errors import UserError, warn_once
from lr_exp.evaluator import grade
from lr_exp.evaluator.prompts import examples_of, question_text
from lr_exp.models import devices, early_exit, loading, locating, prompt_forms, prompts
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.vocabulary import SharedVocabulary, shared_vocabulary, warn_of_unknown_tokens
from lr_exp.pipeline.adapted import with_adapter
from lr_exp.pipeline.method import method_of
from lr_exp.pipeline.origin import origin
from lr_exp.sampler import cross_tokenizer
from lr_exp.store import Store, digest, file_digest

log = logging.getLogger(__name__)

# Packages on whose versions results depend.
MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
RENDERING_PACKAGES = ("transformers", "tokenizers")  # from a question to token ids
GRADING_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")

# Questions per batch in sampling and in evaluation, and tokens per pass: the defaults by device.
_CPU_SIZES, _GPU_SIZES = (16, 32, 1024), (256, 256, 4096)
_GPU_SIZES_OF_LARGE_MODELS, _LARGE = (64, 64, 4096), 10e9  # weights
_CHECKED_QUESTIONS = 100  # of each data set, for words without tokens


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    return {name: version(name) for name in packages}


def versions() -> dict[str, str]:
    """Versions that results depend on, this package's first."""
    packages = (*MODEL_PACKAGES, "peft", "datasets", *GRADING_PACKAGES)
    ours = {"lr_exp": __version__, "python": platform.python_version()}
    return ours | versions_of(packages)


class Inputs:
    """A run's inputs, each read on first use."""

    def __init__(
        self, settings: Settings, conf_dirs: Sequence[Path], store: Store | None = None
    ) -> None:
        """Reads the benchmarks' settings and the prompts' forms in the folders of options.

        With `expert.adapter` the expert is read from the run's store (None: the settings').
        """
        self.device = devices.resolve_device(settings.device)
        self.dtype = devices.resolve_dtype(settings.dtype, self.device)
        self.settings, self._store = self._with_sizes(settings), store
        self._adapted: dict[str, str] = {}  # facts of the expert with `expert.adapter`
        self._tokenizers: dict[str, Any] = {}  # by role, of the models found so far
        self.benchmarks = [load_benchmark(name, conf_dirs) for name in settings.benchmarks]
        self._form = prompt_forms.load_form(settings.sampler.prompt, conf_dirs)
        names = settings.evaluator.prompts
        self._forms = [prompt_forms.load_form(name, conf_dirs) for name in names]
        self._conf_dirs = conf_dirs

    def _with_sizes(self, settings: Settings) -> Settings:
        """The settings with the default sizes of this kind of device and size of expert.

        They determine sampled answers and rounding, so they do not depend on the free memory of the
        moment; a batch that does not fit is halved, with a warning.
        """
        sampler, distiller, evaluator = settings.sampler, settings.distiller, settings.evaluator
        sizes = _CPU_SIZES
        if self.device != "cpu":
            source = locating.locate(settings.expert, "expert")
            is_large = loading.parameter_count(source) >= _LARGE
            sizes = _GPU_SIZES_OF_LARGE_MODELS if is_large else _GPU_SIZES
        sampled, answered, tokens = sizes
        return replace(
            settings,
            sampler=replace(
                sampler,
                batch_size=sampler.batch_size or sampled,
                tokens_per_pass=sampler.tokens_per_pass or tokens,
            ),
            distiller=replace(distiller, tokens_per_pass=distiller.tokens_per_pass or tokens),
            evaluator=replace(evaluator, batch_size=evaluator.batch_size or answered),
        )

    def changed(self, **settings: Any) -> "Inputs":
        """A copy with other `alpha`, `beta`, `distiller` or `amateur`; only an amateur is read."""
        other = copy(self)
        other.settings = replace(self.settings, **settings)
        other._tokenizers = {**self._tokenizers}
        for name in ("method", *(("amateur", "shared", "cross") if "amateur" in settings else ())):
            vars(other).pop(name, None)
        return other

    @cached_property
    def method(self) -> Method:
        return method_of(self.settings)

    @property
    def needs_amateur(self) -> bool:
        return self._amateur_scores or self.settings.evaluates_amateur

    @property
    def _amateur_scores(self) -> bool:
        return self.settings.learns_from_questions and self.method.needs_amateur

    @cached_property
    def expert(self) -> locating.ModelSource:
        source = locating.locate(self.settings.expert, "expert")
        if (adapter := self.settings.expert.adapter) is not None:
            if "server" in (self.settings.sampler.engine, self.settings.evaluator.engine):
                raise UserError(
                    "expert.adapter is merged into the expert here, but engine=server uses the "
                    "server's model: run with another engine, or serve a merged model and set "
                    "expert.path to its folder."
                )
            source = replace(source, prompt_date=self.settings.prompt_date)
            store = self._store or Store(self.settings.store)
            source, self._adapted = with_adapter(source, adapter, store, self.machine)
        return self._as_used(source)

    @cached_property
    def amateur(self) -> locating.ModelSource:
        if self.method.needs("context"):  # the expert under the sampler's prompt
            self._tokenizers["amateur"] = self.expert_tokenizer
            return replace(self.expert, role="amateur")
        return self._as_used(locating.locate_amateur(self.settings.amateur, self.expert))

    def _as_used(self, source: locating.ModelSource) -> locating.ModelSource:
        """The model with the run's attention and prompts; its fingerprint covers the prompts."""
        names = ("attention", "compile", "prompt_date", "control_tokens")
        source = replace(source, **{name: getattr(self.settings, name) for name in names})
        tokenizer = self._tokenizers[source.role] = loading.load_tokenizer(source)
        parts = [source.fingerprint, prompts.rendered_probes(tokenizer)]
        if source.control_tokens:  # only where it is set, so that other addresses stay the same
            parts.append("control tokens")
        if source.role == "amateur" and self.settings.amateur.tokenizer == "own":
            parts.append(f"own tokenizer {cross_tokenizer.VERSION}")
        forms = [self._form, *self._forms]
        if not prompts.has_chat_template(tokenizer) and any(form.chat for form in forms):
            log.info("%s %s has no chat template: its prompts are plain", source.role, source.name)
        prompts.warn_without_generation_prompt(tokenizer, f"{source.role} {source.name}")
        return replace(source, fingerprint=digest(parts))

    @property
    def expert_tokenizer(self) -> Any:
        """Loaded with `expert`, whose fingerprint covers rendered prompts."""
        return self._tokenizers[self.expert.role]

    @cached_property
    def _data_source(self) -> Sequence[Question]:
        return load_questions(self.settings.data, hub_root=self.settings.hub_root)

    @cached_property
    def questions(self) -> Sequence[Question]:
        """The questions to learn from, chosen by the seed."""
        settings = self.settings
        data, seed = settings.data, settings.seed
        chosen = select_questions(self._data_source, data.max_questions, seed)
        if data.noise is None:
            return chosen
        return with_noise(chosen, self._data_source, data.noise, data.noise_share, seed)

    @cached_property
    def validation_questions(self) -> list[Question]:
        """Questions of the source that are not learned from, for `distiller.stop=validation`.

        Worked examples of the evaluation's prompt are excluded.

        Raises UserError: too few are left, or a reference cannot be used.
        """
        used, count = len(self.questions), self.settings.distiller.stop_questions
        whole = select_questions(self._data_source, len(self._data_source), self.settings.seed)
        shown = {one.question for one in self.evaluation_prompt.examples}
        chosen = [one for one in whole[used:] if question_text(one) not in shown][:count]
        if len(chosen) < count:
            raise UserError(
                f"distiller.stop=validation needs {count} questions besides those to learn from "
                f"and its prompt's examples, and of the {len(whole):,} of "
                f"data={self.settings.data.name} {len(chosen)} are left: lower data.max_questions "
                f"below {len(whole):,}, or distiller.stop_questions."
            )
        grade.check_references(chosen, self.settings.data.answer)
        return chosen

    @cached_property
    def benchmark_questions(self) -> dict[str, list[Question]]:
        """Each benchmark's first questions; of lm-evaluation-harness, those of each task."""
        count, root = self.settings.evaluator.max_examples, self.settings.hub_root
        return {
            one.name: [*tasks.prompt(self._forms[0], self.expert_tokenizer).questions]
            if (tasks := self.task_benchmarks.get(one.name))
            else load_questions(one, count, hub_root=root)
            for one in self.benchmarks
        }

    @cached_property
    def task_benchmarks(self) -> dict[str, Any]:
        """The benchmarks that lm-evaluation-harness runs, which is imported for them alone."""
        names = [one.name for one in self.benchmarks if one.name.startswith(LM_EVAL)]
        if not names:
            return {}
        try:
            from lr_exp.evaluator.harness import TaskBenchmark
        except ImportError as error:
            raise UserError(
                f"benchmarks={names} need lm-evaluation-harness ({error}): "
                "pip install 'lr_exp[lm_eval]'."
            ) from error
        root = self.settings.hub_root
        return {name: TaskBenchmark(name, self.settings.evaluator, root) for name in names}

    @cached_property
    def prompt(self) -> Prompt:
        """How the student and the amateur are asked the sampler's questions."""
        return self._sampled(self._form, self.settings.sampler.system_prompt, "sampler.prompt")

    @cached_property
    def teacher_prompt(self) -> Prompt:
        """How the expert is asked the sampler's questions: as the student, unless the method says.

        A form in `method.teacher_prompt` has the evaluation's system prompt.
        """
        if not self.method.reads("teacher_prompt"):
            return self.prompt
        form = prompt_forms.load_form(self.method.parameters["teacher_prompt"], self._conf_dirs)
        system = self.settings.evaluator.system_prompt
        return self._sampled(form, system, "method.teacher_prompt")

    @cached_property
    def evaluation_prompt(self) -> Prompt:
        """The first of `evaluator.prompts`, for the sampler's questions."""
        system = self.settings.evaluator.system_prompt
        return self._sampled(self._forms[0], system, "evaluator.prompts")

    def _sampled(self, form: PromptSettings, system: str, key: str) -> Prompt:
        """A prompt for the sampler's questions, with others of the source as worked examples."""
        data = self.settings.data
        shots: list[Question] = []
        if form.num_fewshot:
            shots = select_examples(self._data_source, form.num_fewshot, self.questions)
        if len(shots) < form.num_fewshot:
            raise UserError(
                f"{key}={form.name} needs {form.num_fewshot} questions with answers as "
                f"examples, and data={data.name} has {len(shots)} besides those to sample from: "
                "lower data.max_questions, or choose another prompt."
            )
        return Prompt(system, form, examples_of(shots))

    @cached_property
    def prompts(self) -> dict[str, dict[str, Prompt]]:
        """How the evaluator asks its questions: by the form's and the benchmark's names."""
        evaluator, found = self.settings.evaluator, {}
        has_shots = self.task_benchmarks or any(form.num_fewshot for form in self._forms)
        if evaluator.num_fewshot and not has_shots:
            raise UserError(
                f"evaluator.num_fewshot={evaluator.num_fewshot}: no form in evaluator.prompts has "
                "examples; add few_shot_chat or few_shot_plain."
            )
        for form in self._forms:
            if form.name in found:
                raise UserError(
                    f"evaluator.prompts has two forms named {form.name}: rename a file."
                )
            count = form.num_fewshot and (evaluator.num_fewshot or form.num_fewshot)
            found[form.name] = {}
            for benchmark in self.benchmarks:
                if tasks := self.task_benchmarks.get(benchmark.name):
                    found[form.name][benchmark.name] = tasks.prompt(form, self.expert_tokenizer)
                    continue
                asked = self.benchmark_questions[benchmark.name]
                shots = load_shots(benchmark, count, asked, hub_root=self.settings.hub_root)
                prompt = Prompt(evaluator.system_prompt, form, examples_of(shots))
                found[form.name][benchmark.name] = prompt
        return found

    @property
    def headline(self) -> str:
        """The name of the first form in `evaluator.prompts`."""
        return next(iter(self.prompts))

    @cached_property
    def shared(self) -> SharedVocabulary:
        """The token ids that both models share, checked before weights are loaded."""
        reused = {*self.settings.expert.reused_ids, *self.settings.amateur.reused_ids}
        return shared_vocabulary(
            self.expert_tokenizer,
            self._tokenizers[self.amateur.role],
            expert_rows=locating.config_number(self.expert, "vocab_size"),
            amateur_rows=locating.config_number(self.amateur, "vocab_size"),
            reused_ids=tuple(sorted(reused)),
        )

    @cached_property
    def cross(self) -> cross_tokenizer.CrossTokenizer | None:
        """With `amateur.tokenizer=own`, unless the amateur is the expert in another context."""
        if self.settings.amateur.tokenizer == "shared" or self.method.needs("context"):
            return None
        pair = (loading.load_without_weights(source) for source in (self.expert, self.amateur))
        return cross_tokenizer.CrossTokenizer(*pair)

    @property
    def scored(self) -> SharedVocabulary:
        """The expert's token ids on which answers are scored."""
        return self.shared if self.cross is None else self.cross.shared

    def check(self) -> None:
        """Reads every input, so that a bad one fails before a model is loaded."""
        sampled: dict[str, Sequence[Question]] = {}
        evaluated: dict[str, Sequence[Question]] = {}  # with prompts of ours
        if self.settings.sampler.export is not None:
            _check_export(self.settings.sampler.export)
        _ = self.expert, self.method
        if "evaluate" in self.settings.stages:
            _ = self.prompts
            for benchmark in self.benchmarks:
                asked = self.benchmark_questions[benchmark.name]
                if benchmark.name in self.task_benchmarks:
                    continue
                grade.check_references(asked, benchmark.answer)
                evaluated[f"benchmark {benchmark.name}"] = asked
        if self.settings.learns_from_questions:
            _ = self.prompt, self.teacher_prompt
            self._check_method()
            if self.settings.distiller.stop == "validation" and "distill" in self.settings.stages:
                if distributed.is_distributed():
                    raise UserError(
                        "distiller.stop=validation runs in one process: start it without torchrun, "
                        "or set distiller.stop=entropy."
                    )
                _ = self.validation_questions
            sampled[f"data={self.settings.data.name}"] = self.questions
        if self.needs_amateur:
            decodes = self.settings.evaluator.decoder == "contrastive"
            _ = self.shared if decodes else self.scored
            early_exit.check_drop_layers(self.amateur)
        self._check_words(sampled, self._amateur_scores)
        self._check_words(evaluated, self.settings.evaluates_amateur)
        self._check_stop_strings(self._form, sampled)
        for form in self._forms:
            self._check_stop_strings(form, evaluated)

    def _check_words(self, asked: Mapping[str, Sequence[Question]], with_amateur: bool) -> None:
        """Warns, once a model and data set, of many words that the model has no tokens for."""
        for data, questions in asked.items():
            texts = [question_text(question) for question in islice(questions, _CHECKED_QUESTIONS)]
            for source in [self.expert, *([self.amateur] if with_amateur else [])]:
                model, tokenizer = f"{source.role} {source.name}", self._tokenizers[source.role]
                warn_of_unknown_tokens(model, data, tokenizer, texts)

    def _check_stop_strings(
        self, form: PromptSettings, asked: Mapping[str, Sequence[Question]]
    ) -> None:
        """Warns, once a form and data set, of questions that contain a stop string of the form."""
        form = prompts.form_for(self.expert_tokenizer, Prompt(form=form))
        for data, questions in asked.items() if form.stop else ():
            texts = ((question.id, question_text(question)) for question in questions)
            found = [name for name, text in texts if any(stop in text for stop in form.stop)]
            if found:
                stops = " or ".join(map(repr, form.stop))
                message = (
                    f"prompt {form.name}: {len(found):,} of {len(questions):,} questions of {data} "
                    f"contain the stop string {stops}, such as {found[0]}; answers that quote it "
                    "end there. Use another prompt, or change its `stop`."
                )
                warn_once(log, "%s", message)

    @cached_property
    def lora_targets(self) -> list[str] | None:
        """Names of the layers to tune, if any; raises UserError if the expert lacks one."""
        if "distill" not in self.settings.stages:
            return None
        from lr_exp.distiller.lora import choose_targets

        try:
            model = loading.model_on_meta(self.expert)
        except Exception:  # loading the model reports a broken config
            return None
        return choose_targets(model, self.settings.distiller.target_modules)

    def _check_method(self) -> None:
        method, data = self.method, self.settings.data
        given = {word.lstrip("+").partition("=")[0] for word in self.settings.overrides}
        for name in self.settings.method.parameters:
            # A sweep over methods may set one that only some of them read.
            if f"method.{name}" in given and not method.reads(name) and not self.settings.sweep:
                warn_once(log, "method.%s has no effect with method=%s.", name, method.name)
        if method.reads("teacher_prompt"):
            asked, tokenizer = question_text(self.questions[0]), self.expert_tokenizer
            teacher = prompts.render_prompt(tokenizer, asked, self.teacher_prompt)
            if teacher == prompts.render_prompt(tokenizer, asked, self.prompt):
                raise UserError(
                    f"method.teacher_prompt={self.teacher_prompt.form.name} gives the same prompts "
                    "as sampler.prompt, so there is nothing to distil: choose another form."
                )
        if method.needs("references"):
            try:
                grade.check_references(self.questions, data.answer)
            except UserError as error:
                raise UserError(
                    f"method={method.name} verifies answers, but a reference of data={data.name} "
                    f"cannot be used: {error}"
                ) from error
        if method.needs("solutions"):
            for question in self.questions:
                if not question.solution:
                    raise UserError(
                        f"method={method.name} needs human solutions, but question "
                        f"{question.id} of data={data.name} has none: choose other data or another "
                        "method."
                    )
        if self.settings.sampler.export is not None and not method.needs_amateur:
            raise UserError(
                f"sampler.export: method={method.name} measures no divergence, which the record "
                "form needs: remove sampler.export or choose another method."
            )

    def fingerprints(self) -> dict[str, Any]:
        """Digests of all inputs of the requested stages, also where artifacts are reused."""
        learns, evaluates = self.settings.learns_from_questions, "evaluate" in self.settings.stages
        benchmarks = self.benchmark_questions if evaluates else {}
        return {
            "expert": self.expert.fingerprint,
            "amateur": self.amateur.fingerprint if self.needs_amateur else None,
            "data": fingerprint(self._data_source) if learns else self.records_digest,
            "questions": fingerprint(self.questions) if learns else None,
            "benchmarks": {name: fingerprint(asked) for name, asked in benchmarks.items()},
            "prompt": digest(self.prompt.identity) if learns else None,
            "prompts": {
                form: digest({name: prompt.identity for name, prompt in by_benchmark.items()})
                for form, by_benchmark in (self.prompts if evaluates else {}).items()
            },
        }

    @property
    def records_digest(self) -> str | None:
        """Of the file of imported records; None without one, or if it is missing."""
        path = Path(self.settings.data.path or "").expanduser()
        is_read = self.settings.imports_records and path.is_file()
        return file_digest(path) if is_read else None

    def provenance(self) -> dict[str, Any]:
        """The models, questions and machine behind the results."""

        def of_model(source: locating.ModelSource) -> dict[str, Any]:
            facts = {"revision": source.revision, "fingerprint": source.fingerprint}
            return {"path": source.location, **facts}

        evaluated = self.prompts if "evaluate" in self.settings.stages else {}
        return {
            **origin(),
            **self.fingerprints(),
            # By benchmark, so that runs on other benchmarks can be compared on the common ones.
            "prompts": {
                f"{form}, {benchmark}": digest(prompt.identity)
                for form, by_benchmark in evaluated.items()
                for benchmark, prompt in by_benchmark.items()
            },
            "expert": of_model(self.expert) | self._adapted,
            "amateur": of_model(self.amateur) if self.needs_amateur else None,
            "device": self.device,
            "device_name": devices.device_name(self.device),
            "dtype": self.dtype,
        }

    @cached_property
    def machine(self) -> dict[str, str]:
        """What numbers depend on besides settings: device, precision and versions."""
        chosen = {name: getattr(self.settings, name) for name in ("attention", "compile")}
        return {
            "device": self.device.partition(":")[0],
            "dtype": self.dtype,
            # Only where it is set, so that other addresses stay the same.
            **{name: value for name, value in chosen.items() if value},
            **versions_of(MODEL_PACKAGES),
        }


def _check_export(export: str) -> None:
    """Raises UserError where the export cannot be written, before anything is sampled."""
    path = Path(export)
    if path.is_dir():
        raise UserError(f"sampler.export={export} is a folder: give a file name.")
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir():
        raise UserError(
            f"sampler.export={export}: {above} is a file, not a folder; choose another path."
        )

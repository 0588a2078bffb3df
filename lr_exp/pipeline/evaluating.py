"""The stage `evaluate`: from models and benchmarks to graded answers.

Answers and grades are separate artifacts, so that a corrected reference or grader regenerates no
answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lr_exp import distributed
from lr_exp.config.settings import BenchmarkSettings
from lr_exp.data.lazy import repeated
from lr_exp.data.questions import fingerprint, prompts_fingerprint
from lr_exp.data.sources import GENERATED
from lr_exp.evaluator import answer, forcing, grade, votes
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.answer import Sampling
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.inputs import GRADING_PACKAGES
from lr_exp.pipeline.outcome import link
from lr_exp.report.analyse.decomposition import decompose, forced_correct, has_format
from lr_exp.report.analyse.prompts import gains
from lr_exp.report.analyse.samples import by_question, coverage, sampled_result
from lr_exp.report.read.json_file import read_json_lines
from lr_exp.report.read.summary import (
    CurvePoint,
    EvaluateSummary,
    Gains,
    Gap,
    PromptResults,
    Result,
    Results,
    SampledResult,
    Samples,
)
from lr_exp.store import Artifact, Recipe, write_atomically
from lr_exp.store.run_folder import answers_file, forced_file
from lr_exp.store.shards import read_by_index
from lr_exp.tracking import Tracker

_ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Variant:
    """A model and how it answers a benchmark."""

    form: str  # the name of the prompt's form
    tuned: Tuned | None = None  # the adapter of the expert; None for an untuned model
    who: str = "expert"  # or, without an adapter, "amateur"
    # greedy, contrastive or sampled; None is `evaluator.decoder`, and only then is the result
    # logged as a point of the accuracy curve.
    decoder: str | None = None
    sampling: Sampling | None = None  # of the decoder "sampled"

    @property
    def adapter(self) -> Path | None:
        return self.tuned.adapter if self.tuned else None


@dataclass(frozen=True)
class Evaluation:
    result: Result
    seconds: float  # of generating and grading, even where they were reused
    reused: bool  # the answers were in the store
    graded: Artifact  # the artifact with the file of graded answers
    forced: Artifact | None  # the same for forced answers


def evaluate_models(
    context: RunContext, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> EvaluateSummary:
    """Evaluates the expert and, if there is one, the tuned expert on all benchmarks and prompts."""
    evaluator = context.inputs.settings.evaluator
    done: list[Evaluation] = []
    prompts: dict[str, dict[str, Results]] = {}
    made: dict[str, dict[str, dict[str, Evaluation]]] = {}  # by benchmark, model and prompt
    variants: dict[str, Tuned | None] = {"expert": None} | ({"tuned": tuned} if tuned else {})
    for form in context.inputs.prompts:
        results: dict[str, Results] = {}
        for who, adapter in variants.items():
            evaluations = _evaluate_all(context, adapter, form)
            done += evaluations.values()
            results[who] = {name: one.result for name, one in evaluations.items()}
            for name, evaluation in evaluations.items():
                made.setdefault(name, {}).setdefault(who, {})[form] = evaluation
                tracker.artifact(evaluation.graded, benchmark=name, who=who, prompt=form)
                place = folder / answers_file(who, name, form if prompts else None)
                link(place, evaluation.graded.folder / _ANSWERS_FILE)
                if evaluation.forced is not None:
                    link(folder / forced_file(who, name), evaluation.forced.folder / _ANSWERS_FILE)
        prompts[form] = results
    extra: dict[str, Any] = {}  # a part that was not measured has no key in the file
    generated = [one.name for one in context.inputs.benchmarks if one.format in GENERATED]
    if tuned is not None:
        extra["gains"] = {name: _gains(models) for name, models in made.items()}
    if tuned is not None and (snapshots := tuned.snapshots()):
        extra["curve"], extra["curve_seconds"] = [], 0.0
        for snapshot in snapshots:
            evaluations = _evaluate_all(context, snapshot, context.inputs.headline)
            accuracies = {name: one.result for name, one in evaluations.items()}
            extra["curve"].append(CurvePoint(step=snapshot.step or 0, results=accuracies))
            extra["curve_seconds"] += sum(one.seconds for one in evaluations.values())
    if evaluator.gap is not None and context.inputs.benchmarks:
        extra["gap"], extra["gap_seconds"] = _gap(context, evaluator.gap)
    if evaluator.samples > 1 and context.inputs.benchmarks:
        extra["samples"] = _samples(context, variants, made, folder)
    return EvaluateSummary(
        decoder=evaluator.decoder,
        **next(iter(prompts.values())),
        prompts={form: PromptResults(**results) for form, results in prompts.items()},
        seconds=sum(evaluation.seconds for evaluation in done),
        reused=all(evaluation.reused for evaluation in done),
        generated=generated,
        **extra,
    )


def _evaluate_all(context: RunContext, tuned: Tuned | None, form: str) -> dict[str, Evaluation]:
    benchmarks, variant = context.inputs.benchmarks, Variant(form, tuned)
    return {one.name: evaluate_benchmark(context, one, variant) for one in benchmarks}


def _gains(models: dict[str, dict[str, Evaluation]]) -> Gains:
    """The gains on a benchmark, from the evaluations by model and prompt."""
    graded = {
        who: {form: _lines(one.graded) for form, one in by_prompt.items()}
        for who, by_prompt in models.items()
    }
    correct = {
        who: {
            form: np.array([[line["correct"] for line in lines]], dtype=float)
            for form, lines in by_prompt.items()
        }
        for who, by_prompt in graded.items()
    }
    headline, lines = next(iter(graded["expert"].items()))
    found = gains(correct["expert"], correct["tuned"], [line["id"] for line in lines])
    forced = [models[who][headline].forced for who in ("expert", "tuned")]
    if forced[0] is None or forced[1] is None:
        return found
    before, after = (
        (graded[who][headline], _lines(one))
        for who, one in (("expert", forced[0]), ("tuned", forced[1]))
    )
    return found.model_copy(update={"decomposition": decompose(before, after)})


def _lines(made: Artifact) -> list[dict[str, Any]]:
    """The graded or forced answers, in the order of the questions."""
    return [*read_json_lines(made.folder / _ANSWERS_FILE)]


def _gap(context: RunContext, decoder: str) -> tuple[Gap, float]:
    """Expert and amateur on the first benchmark, and the seconds that took."""
    benchmark = context.inputs.benchmarks[0]
    measured = {
        who: evaluate_benchmark(
            context, benchmark, Variant(context.inputs.headline, who=who, decoder=decoder)
        )
        for who in ("expert", "amateur")
    }
    results = {who: {benchmark.name: one.result} for who, one in measured.items()}
    return Gap(decoder=decoder, **results), sum(one.seconds for one in measured.values())


def _samples(
    context: RunContext,
    variants: dict[str, Tuned | None],
    made: dict[str, dict[str, dict[str, Evaluation]]],
    folder: Path,
) -> Samples:
    """Several sampled answers of each model to each question, with the headline prompt.

    Args:
        made: the greedy evaluations by benchmark, model and prompt.
    """
    run, evaluator = context.inputs, context.inputs.settings.evaluator
    sampling = Sampling(evaluator.samples, evaluator.temperature, run.settings.seed)
    results: dict[str, dict[str, SampledResult]] = {who: {} for who in variants}
    covered, seconds = {}, 0.0
    for benchmark in run.benchmarks:
        name, answered = benchmark.name, {}
        for who, adapter in variants.items():
            variant = Variant(run.headline, adapter, decoder="sampled", sampling=sampling)
            found = evaluate_benchmark(context, benchmark, variant)
            seconds += found.seconds
            place = folder / answers_file(f"{who}_samples", name, None)
            link(place, found.graded.folder / _ANSWERS_FILE)
            answered[who] = by_question(_lines(found.graded), sampling.samples)
            result = results[who][name] = sampled_result(answered[who], evaluator.pass_at_counts)
            shares = {key: one.share for key, one in result.by_name.items()}
            context.log(f"eval/{name}", run.settings.distiller.steps if adapter else 0, shares)
        if "tuned" in variants:
            headline = (next(iter(made[name][who].values())) for who in ("expert", "tuned"))
            before, after = (_lines(greedy.graded) for greedy in headline)
            covered[name] = coverage(before, after, answered["expert"])
    drawn = {"samples": sampling.samples, "temperature": sampling.temperature, "seconds": seconds}
    extra = {"coverage": covered} if covered else {}
    return Samples.model_validate({**drawn, **results, **extra})


def evaluate_benchmark(
    context: RunContext, benchmark: BenchmarkSettings, variant: Variant
) -> Evaluation:
    """Evaluates one model on one benchmark. The grades of several answers have votes."""
    run, tuned, sampling = context.inputs, variant.tuned, variant.sampling
    questions = run.benchmark_questions[benchmark.name]
    answers = _answers(context, benchmark, variant)
    recipe = Recipe(
        "grades",
        grade.VERSION,
        {
            "answers": answers.address,
            "questions": fingerprint(questions),  # their references
            **{name: version(name) for name in GRADING_PACKAGES},
        },
        {"kind": benchmark.answer, "version": benchmark.version},
    )

    def build(folder: Path) -> dict[str, Any]:
        samples = sampling.samples if sampling else 1
        asked, outputs = repeated(questions, samples), read_by_index(answers.folder)
        graded = grade.grade_all(asked, outputs, benchmark.answer)
        if samples > 1:
            graded = votes.with_votes(graded, samples)
        _write_lines(folder, graded)
        return aggregate(graded).to_dict()

    grades = context.make(recipe, build)
    facts, forced = grades.facts, None
    is_snapshot = tuned is not None and tuned.step is not None
    forces = run.settings.evaluator.force_answer and variant.form == run.headline
    if forces and variant.decoder is None and not is_snapshot:
        forced = _forced(context, benchmark, variant, answers, grades)
        facts = facts | {"forced_accuracy": forced.facts["accuracy"]}
    result = Result.model_validate(facts)
    if variant.decoder is None:
        trained = (tuned.step or run.settings.distiller.steps) if tuned else 0
        part = "" if variant.form == run.headline else f"/{variant.form}"
        context.log(f"eval/{benchmark.name}{part}", trained, result.numbers)
    return Evaluation(
        result,
        seconds=answers.seconds + grades.seconds + (forced.seconds if forced else 0.0),
        reused=answers.reused,
        graded=grades,
        forced=forced,
    )


def _write_lines(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in records)
    write_atomically(folder / _ANSWERS_FILE, "".join(lines))


def _forced(
    context: RunContext,
    benchmark: BenchmarkSettings,
    variant: Variant,
    answers: Artifact,
    grades: Artifact,
) -> Artifact:
    """The forced answers of the expert, and their grades."""
    evaluator = context.inputs.settings.evaluator
    settings = {"forced_text": evaluator.forced_text, "batch_size": evaluator.batch_size}
    inputs = {"answers": answers.address, "grades": grades.address}
    environment = context.models.generation_environment("evaluator")
    recipe = Recipe("forced", forcing.VERSION, inputs, {**settings, **environment})

    def build(folder: Path) -> dict[str, Any]:
        questions = context.inputs.benchmark_questions[benchmark.name]
        outputs, graded = read_by_index(answers.folder), _lines(grades)
        chosen = [
            (question, output["token_ids"])
            for question, output, line in zip(questions, outputs, graded, strict=True)
            if not has_format(line)
        ]
        asked, token_ids = [one for one, _ in chosen], [ids for _, ids in chosen]
        if chosen:
            with context.models.generating("evaluator", variant.adapter) as (model, generate):
                forcing.force(
                    asked,
                    token_ids,
                    model,
                    folder,
                    name=f"{benchmark.name} (forced)",
                    prompt=context.inputs.prompts[variant.form][benchmark.name],
                    generate=generate,
                    **settings,
                )
        forced = forcing.grade_forced(asked, folder, benchmark.answer)
        distributed.run_on_rank0(lambda: _write_lines(folder, forced))
        return {"forced": len(forced), "accuracy": fmean(forced_correct(graded, forced))}

    return context.make(recipe, build, together=True)


def _answers(context: RunContext, benchmark: BenchmarkSettings, variant: Variant) -> Artifact:
    run, models, evaluator = context.inputs, context.models, context.inputs.settings.evaluator
    questions, tuned = run.benchmark_questions[benchmark.name], variant.tuned
    decoder = variant.decoder or evaluator.decoder
    prompt = run.prompts[variant.form][benchmark.name]
    limits = {"max_new_tokens": evaluator.max_new_tokens, "batch_size": evaluator.batch_size}
    settings: dict[str, Any] = {**limits, "decoder": decoder}
    sampling = variant.sampling or (Sampling() if decoder == "sampled" else None)
    if variant.sampling is not None:
        settings |= asdict(variant.sampling)
    inputs: dict[str, Any] = {
        "questions": prompts_fingerprint(questions),
        "model": (run.amateur if variant.who == "amateur" else run.expert).fingerprint,
        "adapter": tuned.digest if tuned else None,
        "benchmark": [benchmark.name, benchmark.version],
    }
    if decoder == "contrastive":
        inputs |= {"amateur": run.amateur.fingerprint, "shared": asdict(run.shared)}
        settings["alpha"] = run.settings.alpha
    environment = run.machine  # no engine runs the amateur
    if variant.who == "expert":
        environment = models.generation_environment("evaluator")
    identity = {"prompt": prompt.identity, **settings, **environment}
    recipe = Recipe("answers", answer.VERSION, inputs, identity)
    shown = ["tuned" if tuned else variant.who]
    if tuned is not None and tuned.step is not None:
        shown.append(f"step {tuned.step}")
    if len(run.prompts) > 1:
        shown.append(variant.form)
    if decoder != "greedy":
        shown.append(decoder)

    def build(folder: Path) -> dict[str, Any]:
        contrast = None
        if decoder == "contrastive":
            contrast = answer.Contrast(models.amateur(), run.shared, run.settings.alpha)
        with models.generating("evaluator", variant.adapter, variant.who) as (model, generate):
            return answer.answer(
                questions,
                model,
                folder,
                name=f"{benchmark.name} ({', '.join(shown)})",
                prompt=prompt,
                sampling=sampling,
                contrast=contrast,
                generate=generate,
                **limits,
            )

    return context.make(recipe, build, together=True)

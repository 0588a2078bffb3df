"""The stage `evaluate`: from models and benchmarks to graded answers.

Answers and grades are separate artifacts, so that a corrected reference or grader regenerates no
answer.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np

from lr_exp import distributed
from lr_exp.config.settings import BenchmarkSettings
from lr_exp.data.lazy import repeated
from lr_exp.data.questions import Question, fingerprint, prompts_fingerprint
from lr_exp.data.sources import GENERATED
from lr_exp.evaluator import answer, forcing, grade, votes
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.answer import GREEDY, Sampling
from lr_exp.evaluator.prompts import question_text, worked_answer
from lr_exp.models.prompts import render_solution
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.inputs import GRADING_PACKAGES, versions_of
from lr_exp.pipeline.outcome import link
from lr_exp.report.analyse.decomposition import decompose, forced_correct, has_format
from lr_exp.report.analyse.paired import Z95
from lr_exp.report.analyse.prompts import gains
from lr_exp.report.analyse.samples import by_question, coverage, sampled_result
from lr_exp.report.read.json_file import read_json_lines
from lr_exp.report.read.summary import (
    CurvePoint,
    EvaluateSummary,
    Gains,
    Gap,
    Nats,
    PromptResults,
    Result,
    Results,
    SampledResult,
    Samples,
)
from lr_exp.sampler import score
from lr_exp.store import Artifact, Recipe, json_lines, write_atomically
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
    sampling: Sampling = field(default_factory=Sampling)  # of the decoder "sampled"

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


Evaluations = dict[str, Evaluation]  # by benchmark
Made = dict[tuple[str, str], Evaluations]  # by prompt, the headline first, and model


def evaluate_models(
    context: RunContext, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> EvaluateSummary:
    """Evaluates the expert and, if there is one, the tuned expert on all benchmarks and prompts."""
    run, evaluator = context.inputs, context.inputs.settings.evaluator
    models: dict[str, Tuned | None] = {"expert": None} | ({"tuned": tuned} if tuned else {})
    made: Made = {}
    for form, (who, adapter) in product(run.prompts, models.items()):
        made[form, who] = _evaluate_all(context, adapter, form)
        for name, one in made[form, who].items():
            tracker.artifact(one.graded, benchmark=name, who=who, prompt=form)
            place = answers_file(who, name, None if form == run.headline else form)
            link(folder / place, one.graded.folder / _ANSWERS_FILE)
            if one.forced is not None:
                link(folder / forced_file(who, name), one.forced.folder / _ANSWERS_FILE)
    extra: dict[str, Any] = {}  # a part that was not measured has no key in the file
    if tuned is not None:
        extra["gains"] = {one.name: _gains(made, one.name) for one in run.benchmarks}
    if tuned is not None and (snapshots := tuned.snapshots()):
        extra["curve"], extra["curve_seconds"] = [], 0.0
        for snapshot in snapshots:
            evaluations = _evaluate_all(context, snapshot, run.headline)
            point = CurvePoint(step=snapshot.step or 0, results=_results(evaluations))
            extra["curve"].append(point)
            extra["curve_seconds"] += sum(one.seconds for one in evaluations.values())
    if evaluator.gap is not None and run.benchmarks:
        extra["gap"], extra["gap_seconds"] = _gap(context, evaluator.gap)
    if evaluator.samples > 1 and run.benchmarks:
        extra["samples"] = _samples(context, models, made, folder)
    done = [one for own in made.values() for one in own.values()]
    results = {form: {who: _results(made[form, who]) for who in models} for form in run.prompts}
    return EvaluateSummary(
        decoder=evaluator.decoder,
        **results[run.headline],
        prompts={form: PromptResults(**own) for form, own in results.items()},
        seconds=sum(one.seconds for one in done),
        reused=all(one.reused for one in done),
        generated=[one.name for one in run.benchmarks if one.format in GENERATED],
        **extra,
    )


def _evaluate_all(context: RunContext, tuned: Tuned | None, form: str) -> Evaluations:
    benchmarks, variant = context.inputs.benchmarks, Variant(form, tuned)
    return {one.name: evaluate_benchmark(context, one, variant) for one in benchmarks}


def _results(evaluations: Evaluations) -> Results:
    return {name: one.result for name, one in evaluations.items()}


def _gains(made: Made, benchmark: str) -> Gains:
    headline, _ = next(iter(made))
    graded: dict[str, dict[str, list[dict[str, Any]]]] = {"expert": {}, "tuned": {}}
    for (form, who), own in made.items():
        graded[who][form] = _lines(own[benchmark].graded)
    expert, tuned = (
        {form: np.array([[one["correct"] for one in own]], float) for form, own in by_form.items()}
        for by_form in graded.values()
    )
    found = gains(expert, tuned, [line["id"] for line in graded["expert"][headline]])
    forced = {who: made[headline, who][benchmark].forced for who in graded}
    parts = [(graded[who][headline], _lines(one)) for who, one in forced.items() if one is not None]
    if len(parts) < len(graded):
        return found
    return found.model_copy(update={"decomposition": decompose(*parts)})


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
    alone = {who: {benchmark.name: one.result} for who, one in measured.items()}
    gap = Gap(decoder=decoder, expert=alone["expert"], amateur=alone["amateur"])
    seconds = sum(one.seconds for one in measured.values())
    # Log-likelihoods per token of different tokenizers cannot be compared.
    scored = None if context.inputs.cross else _scored_solutions(context, benchmark)
    if scored is None:
        return gap, seconds
    nats = Nats.model_validate(scored.facts)
    return gap.model_copy(update={"nats": nats}), seconds + scored.seconds


def _scored_solutions(context: RunContext, benchmark: BenchmarkSettings) -> Artifact | None:
    """Both models' log-likelihoods of the benchmark's solutions; None with fewer than two."""
    run = context.inputs
    questions = [one for one in run.benchmark_questions[benchmark.name] if one.solution]
    prompt = run.prompts[run.headline][benchmark.name]
    models = {who.role: who.fingerprint for who in (run.expert, run.amateur)}
    inputs = {"questions": fingerprint(questions), "shared": asdict(run.shared), **models}

    def build(_: Path) -> dict[str, Any]:
        pair = context.models.pair()

        def score_one(question: Question) -> list[float]:
            text, solution = question_text(question), worked_answer(question)
            prompt_ids, ids, _ = render_solution(pair.expert.tokenizer, text, solution, prompt)
            row = {"question_id": question.id, "question": text, "prompt_ids": prompt_ids}
            return score.mean_log_likelihoods(row | {"token_ids": ids}, pair, prompt)

        nats = np.array([score_one(question) for question in questions])
        shifts = nats[:, 0] - nats[:, 1]
        mean, half = shifts.mean(), Z95 * shifts.std(ddof=1) / len(shifts) ** 0.5
        names = ("expert", "amateur", "difference")
        values = dict(zip(names, (*nats.mean(axis=0).tolist(), float(mean)), strict=True))
        return {"solutions": len(nats), **values, "ci95": [float(mean - half), float(mean + half)]}

    recipe = Recipe("likelihood", score.VERSION, inputs, {"prompt": prompt.identity, **run.machine})
    return context.make(recipe, build, together=True) if len(questions) > 1 else None


def _samples(
    context: RunContext, models: dict[str, Tuned | None], made: Made, folder: Path
) -> Samples:
    """Sampled answers to each question with the headline prompt; `made` has those not sampled."""
    run, evaluator = context.inputs, context.inputs.settings.evaluator
    sampling = Sampling(evaluator.samples, evaluator.temperature, run.settings.seed)
    results: dict[str, dict[str, SampledResult]] = {who: {} for who in models}
    covered, seconds = {}, 0.0
    for benchmark in run.benchmarks:
        name, answered = benchmark.name, {}
        for who, adapter in models.items():
            variant = Variant(run.headline, adapter, decoder="sampled", sampling=sampling)
            found = evaluate_benchmark(context, benchmark, variant)
            seconds += found.seconds
            place = folder / answers_file(f"{who}_samples", name, None)
            link(place, found.graded.folder / _ANSWERS_FILE)
            answered[who] = by_question(_lines(found.graded), sampling.samples)
            result = results[who][name] = sampled_result(answered[who], evaluator.pass_at_counts)
            shares = {key: one.share for key, one in result.by_name.items()}
            context.log(f"eval/{name}", adapter.trained_steps if adapter else 0, shares)
        if "tuned" in models:
            greedy = (made[run.headline, who][name].graded for who in ("expert", "tuned"))
            before, after = map(_lines, greedy)
            covered[name] = coverage(before, after, answered["expert"])
    return Samples(
        samples=sampling.samples,
        temperature=sampling.temperature,
        seconds=seconds,
        **results,
        **({"coverage": covered} if covered else {}),
    )


def evaluate_benchmark(
    context: RunContext, benchmark: BenchmarkSettings, variant: Variant
) -> Evaluation:
    """Evaluates one model on one benchmark."""
    run, tuned = context.inputs, variant.tuned
    if benchmark.name in run.task_benchmarks:
        answers = grades = _graded_tasks(context, benchmark, variant)
    else:
        answers = make_answers(context, benchmark, variant)
        grades = _grades(context, benchmark, variant, answers)
    facts, forced = grades.facts, None
    is_snapshot = tuned is not None and tuned.step is not None
    forces = run.settings.evaluator.force_answer and variant.form == run.headline
    if forces and variant.decoder is None and not is_snapshot:
        forced = _forced(context, benchmark, variant, answers, grades)
        facts = facts | {"forced_accuracy": forced.facts["accuracy"]}
    result = Result.model_validate(facts)
    if variant.decoder is None:
        trained = (tuned.step or tuned.trained_steps) if tuned else 0
        part = "" if variant.form == run.headline else f"/{variant.form}"
        context.log(f"eval/{benchmark.name}{part}", trained, result.numbers)
    parts = {one.address: one.seconds for one in (answers, grades, forced) if one is not None}
    return Evaluation(
        result,
        seconds=sum(parts.values()),
        reused=answers.reused,
        graded=grades,
        forced=forced,
    )


def _graded_tasks(context: RunContext, benchmark: BenchmarkSettings, variant: Variant) -> Artifact:
    """The answers to tasks of lm-evaluation-harness, which grades them."""
    from lr_exp.evaluator import harness

    run, tuned, name = context.inputs, variant.tuned, benchmark.name
    prompt = cast(harness.TaskPrompt, run.prompts[variant.form][name])
    model = run.amateur if variant.who == "amateur" else run.expert
    inputs = {"model": model.fingerprint, "adapter": tuned.digest if tuned else None}
    size = run.settings.evaluator.batch_size or 1
    title = f"{name} ({'tuned' if tuned else variant.who})"
    settings = {"benchmark": name, "prompt": prompt.identity, "batch_size": size, **run.machine}

    def build(folder: Path) -> dict[str, Any]:
        with context.models.generating("evaluator", variant.adapter, variant.who) as (loaded, _):

            def work() -> dict[str, Any]:
                tasks = run.task_benchmarks[name]
                graded = tasks.answer(loaded, prompt.form, folder, title, size)
                write_atomically(folder / _ANSWERS_FILE, json_lines(graded))
                known, facts = ("accuracy", "correct", "total", "stderr", "ci95"), aggregate(graded)
                return facts.model_dump(include={*known}) | {"metric": prompt.metric}

            return distributed.run_on_rank0(work)

    return context.make(Recipe("lm_eval", harness.VERSION, inputs, settings), build, together=True)


def _grades(
    context: RunContext, benchmark: BenchmarkSettings, variant: Variant, answers: Artifact
) -> Artifact:
    """The grades of answers; those of several answers have votes."""
    samples = variant.sampling.samples
    questions = context.inputs.benchmark_questions[benchmark.name]
    recipe = Recipe(
        "grades",
        grade.VERSION,
        {
            "answers": answers.address,
            "questions": fingerprint(questions),  # their references
            **versions_of(GRADING_PACKAGES),
        },
        {"kind": benchmark.answer, "version": benchmark.version},
    )

    def build(folder: Path) -> dict[str, Any]:
        asked, outputs = repeated(questions, samples), read_by_index(answers.folder)
        graded = grade.grade_all(asked, outputs, benchmark.answer)
        if samples > 1:
            graded = votes.with_votes(graded, samples)
        write_atomically(folder / _ANSWERS_FILE, json_lines(graded))
        return aggregate(graded).to_dict()

    return context.make(recipe, build)


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
        complete = partial(forcing.complete_part, context.inputs.expert_tokenizer)
        chosen = [
            (question, output["token_ids"] if output["finished"] else complete(output["token_ids"]))
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
        path, lines = folder / _ANSWERS_FILE, json_lines(forced)
        distributed.run_on_rank0(lambda: write_atomically(path, lines))
        return {"forced": len(forced), "accuracy": fmean(forced_correct(graded, forced))}

    return context.make(recipe, build, together=True)


def make_answers(context: RunContext, benchmark: BenchmarkSettings, variant: Variant) -> Artifact:
    run, models, evaluator = context.inputs, context.models, context.inputs.settings.evaluator
    questions, tuned = run.benchmark_questions[benchmark.name], variant.tuned
    decoder = variant.decoder or evaluator.decoder
    prompt = run.prompts[variant.form][benchmark.name]
    limits = {"max_new_tokens": evaluator.max_new_tokens, "batch_size": evaluator.batch_size}
    settings: dict[str, Any] = {**limits, "decoder": decoder}
    sampling = variant.sampling if decoder == "sampled" else GREEDY
    if decoder == "sampled":
        settings |= asdict(sampling)
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

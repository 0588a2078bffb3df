"""The stage `evaluate`: from models and benchmarks to graded answers.

Answers and grades are separate artifacts, so that a corrected reference or grader regenerates no
answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.config.settings import BenchmarkSettings
from lr_exp.data.questions import Question, fingerprint, prompts_fingerprint
from lr_exp.evaluator import answer, grade
from lr_exp.evaluator.aggregate import Aggregate, aggregate
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.inputs import GRADING_PACKAGES
from lr_exp.pipeline.outcome import link
from lr_exp.report.summary import CurvePoint, EvaluateSummary, Gap, Result, Results
from lr_exp.store import Artifact, Recipe, write_atomically
from lr_exp.store.run_folder import ANSWERS
from lr_exp.tracking import Tracker

_ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's result for one model."""

    result: Aggregate
    seconds: float  # of generating and grading, even where they were reused
    reused: bool  # the answers were in the store
    cut_off: int  # answers that reached a length limit
    answers: Path  # the file of graded answers
    graded: Artifact  # the artifact that holds it


def evaluate_models(
    context: RunContext, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> EvaluateSummary:
    """Evaluates the expert and, if there is one, the tuned expert on all benchmarks."""
    evaluator, benchmarks = context.inputs.settings.evaluator, context.inputs.benchmarks
    variants: dict[str, Tuned | None] = {"expert": None} | ({"tuned": tuned} if tuned else {})
    done: list[Evaluation] = []
    results: dict[str, Results] = {who: {} for who in variants}
    for who, adapter in variants.items():
        for benchmark in benchmarks:
            evaluation = evaluate_benchmark(context, benchmark, adapter)
            done.append(evaluation)
            results[who][benchmark.name] = _result(evaluation)
            tracker.artifact(evaluation.graded, benchmark=benchmark.name, who=who)
            place = folder / ANSWERS / who
            place.mkdir(parents=True, exist_ok=True)
            link(place / f"{benchmark.name}.jsonl", evaluation.answers)
    extra: dict[str, Any] = {}  # a part that was not measured has no key in the file
    if tuned is not None and tuned.snapshots():
        extra["curve"], extra["curve_seconds"] = _curve(context, tuned)
    if evaluator.gap is not None and benchmarks:
        extra["gap"], extra["gap_seconds"] = _gap(context, evaluator.gap)
    return EvaluateSummary(
        decoder=evaluator.decoder,
        **results,
        seconds=sum(evaluation.seconds for evaluation in done),
        reused=all(evaluation.reused for evaluation in done),
        **extra,
    )


def _curve(context: RunContext, tuned: Tuned) -> tuple[list[CurvePoint], float]:
    """The accuracy of each snapshot, and the seconds that evaluating them took."""
    points, seconds = [], 0.0
    for snapshot in tuned.snapshots():
        results = {}
        for benchmark in context.inputs.benchmarks:
            evaluation = evaluate_benchmark(context, benchmark, snapshot)
            results[benchmark.name] = _result(evaluation)
            seconds += evaluation.seconds
        points.append(CurvePoint(step=snapshot.step or 0, results=results))
    return points, seconds


def _gap(context: RunContext, decoder: str) -> tuple[Gap, float]:
    """Expert and amateur on the first benchmark, and the seconds that took."""
    benchmark = context.inputs.benchmarks[0]
    measured = {
        who: evaluate_benchmark(context, benchmark, who=who, decoder=decoder)
        for who in ("expert", "amateur")
    }
    results = {who: {benchmark.name: _result(one)} for who, one in measured.items()}
    return Gap(decoder=decoder, **results), sum(one.seconds for one in measured.values())


def _result(evaluation: Evaluation) -> Result:
    return Result(**evaluation.result, cut_off=evaluation.cut_off)


def evaluate_benchmark(
    context: RunContext,
    benchmark: BenchmarkSettings,
    tuned: Tuned | None = None,
    *,
    who: str = "expert",
    decoder: str | None = None,
) -> Evaluation:
    """Evaluates one model on one benchmark.

    Args:
        benchmark: one of `benchmarks`.
        tuned: the adapter of the expert; None for an untuned model.
        who: "expert" or, without an adapter, "amateur".
        decoder: greedy, contrastive or sampled; None is `evaluator.decoder`, and only then is
            the result logged as a point of the accuracy curve.
    """
    questions = context.inputs.benchmark_questions[benchmark.name]
    on_curve = who == "expert" and decoder is None  # the gap is not a point of the curve
    decoder = decoder or context.inputs.settings.evaluator.decoder
    answers = _answers(context, benchmark, questions, tuned, who, decoder)
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
        graded = grade.grade_all(questions, answer.read_outputs(answers.folder), benchmark.answer)
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in graded)
        write_atomically(folder / _ANSWERS_FILE, "".join(lines))
        return dict(aggregate([line["correct"] for line in graded]))

    grades = context.artifacts.make(recipe, build, measured=False)
    result = Aggregate(**grades.facts)
    if on_curve:
        _log_evaluation(context, benchmark.name, tuned, result)
    return Evaluation(
        result=result,
        seconds=answers.seconds + grades.seconds,
        reused=answers.reused,
        cut_off=answers.facts["questions"] - answers.facts["finished"],
        answers=grades.folder / _ANSWERS_FILE,
        graded=grades,
    )


def _log_evaluation(context: RunContext, name: str, tuned: Tuned | None, result: Aggregate) -> None:
    """Logs a point of the accuracy curve; the untuned expert is at optimizer step 0."""
    trained = context.inputs.settings.distiller.steps if tuned else 0
    step = trained if tuned is None or tuned.step is None else tuned.step
    context.log(
        f"eval/{name}",
        step,
        {
            "accuracy": result["accuracy"],
            "stderr": result["stderr"],
            "correct": result["correct"],
            "total": result["total"],
        },
    )


def _answers(
    context: RunContext,
    benchmark: BenchmarkSettings,
    questions: Sequence[Question],
    tuned: Tuned | None,
    who: str,
    decoder: str,
) -> Artifact:
    run = context.inputs
    evaluator = run.settings.evaluator
    source = run.amateur if who == "amateur" else run.expert
    shots = run.shots[benchmark.name]
    settings: dict[str, Any] = {
        "system_prompt": evaluator.system_prompt,
        "max_new_tokens": evaluator.max_new_tokens,
        "batch_size": evaluator.batch_size,
    }
    inputs: dict[str, Any] = {
        "questions": prompts_fingerprint(questions),
        "shots": fingerprint(shots),
        "expert": source.fingerprint,
        "adapter": tuned.digest if tuned else None,
        "benchmark": [benchmark.name, benchmark.version],
    }
    # Greedy answers keep the addresses of versions without other decoders.
    if decoder == "contrastive":
        inputs |= {"amateur": run.amateur.fingerprint, "shared": asdict(run.shared)}
        settings |= {"decoder": decoder, "alpha": run.settings.alpha}
    elif decoder == "sampled":
        settings |= {"decoder": decoder, "temperature": 1.0, "seed": 0}  # one draw for all runs
    environment = run.machine  # no engine runs the amateur
    if who == "expert":
        environment = context.models.generation_environment("evaluator")
    recipe = Recipe("answers", answer.VERSION, inputs, {**settings, **environment})
    name = who if tuned is None else "tuned"
    if tuned is not None and tuned.step is not None:
        name = f"tuned, step {tuned.step}"
    suffix = "" if decoder == "greedy" else f", {decoder}"

    def build(folder: Path) -> dict[str, Any]:
        pair = {}
        if decoder == "contrastive":
            pair = {"amateur": context.models.amateur(), "shared": run.shared}
        adapter = tuned.adapter if tuned else None
        with context.models.generating("evaluator", adapter, who) as (model, generate):
            return answer.answer(
                questions,
                model,
                folder,
                answer.AnswerSettings(shots=shots, **settings),
                generate=generate,
                name=f"{benchmark.name} ({name}{suffix})",
                **pair,
            )

    return context.artifacts.make(recipe, build, together=True)

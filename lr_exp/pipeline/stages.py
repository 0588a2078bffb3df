"""Runs the stages of an experiment and summarizes each for `summary.json`."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.evaluating import Evaluation
from lr_exp.pipeline.experiment import Experiment
from lr_exp.pipeline.inputs import Inputs
from lr_exp.report.read.summary import (
    CurvePoint,
    DistillSummary,
    EvaluateSummary,
    Gap,
    Result,
    Results,
    SampleSummary,
)
from lr_exp.store import Artifact, write_atomically
from lr_exp.store.run_folder import ANSWERS, TRAJECTORIES
from lr_exp.tracking import Tracker

_GENERATING_STAGES = ("rollout", "sampled")
_MODEL_STAGES = (*_GENERATING_STAGES, "score")


def sample(experiment: Experiment, folder: Path) -> tuple[Artifact, SampleSummary]:
    made: dict[str, Artifact] = {}
    if experiment.inputs.settings.imports_records:
        supervision = experiment.sampler.import_records()
    else:
        trajectories = experiment.sampler.trajectories()
        made = {artifact.stage: artifact for artifact in trajectories.artifacts}
        steps = None
        if experiment.inputs.method.needs_amateur:
            made["score"] = steps = experiment.sampler.score(trajectories.artifact)
        supervision = experiment.sampler.select(trajectories.artifact, steps)
        if distributed.is_rank0():
            shown = experiment.sampler.read(trajectories, steps, supervision)
            write_atomically(folder / TRAJECTORIES, json.dumps(shown, ensure_ascii=True))
    exported = experiment.sampler.export(supervision)
    renamed = ("digest", "peak_memory_bytes")
    facts = {key: value for key, value in supervision.facts.items() if key not in renamed}
    if made:
        facts = {"questions": len(experiment.inputs.questions), **facts}
    generating = [name for name in _GENERATING_STAGES if name in made]
    by_models = [made[name] for name in _MODEL_STAGES if name in made]
    sampled = {
        **facts,
        "generated_tokens": sum(made[name].facts["tokens"] for name in generating)
        if made
        else None,
        "seconds": sum(artifact.seconds for artifact in (*made.values(), supervision)),
        "seconds_by_stage": {
            name: artifact.seconds
            for name, artifact in {**made, "supervision": supervision}.items()
        },
        "peak_memory_bytes": max(
            (artifact.facts.get("peak_memory_bytes", 0) for artifact in made.values()), default=None
        ),
        "reused": bool(made) and all(one.reused for one in by_models or made.values()),
        "artifact": str(supervision.folder),
        "supervision": supervision.facts["digest"],
        "export": str(exported) if exported else None,
    }
    if "verified" in made:
        sampled["verified"] = made["verified"].facts
    return supervision, SampleSummary.model_validate(sampled)


def distill(
    experiment: Experiment, supervision: Artifact, folder: Path
) -> tuple[Tuned, DistillSummary]:
    tuned = experiment.distiller.distill(supervision)
    _link(folder / "adapter", tuned.adapter)
    summary = {
        **tuned.artifact.facts,
        "seconds": tuned.artifact.seconds,
        "reused": tuned.artifact.reused,
        "artifact": str(tuned.artifact.folder),
    }
    if experiment.inputs.settings.distiller.merge:
        merged = experiment.distiller.merge(tuned)
        _link(folder / "merged", merged.folder)
        summary["merged"] = str(merged.folder)
    return tuned, DistillSummary.model_validate(summary)


def evaluate(
    experiment: Experiment, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> EvaluateSummary:
    evaluator, benchmarks = experiment.inputs.settings.evaluator, experiment.inputs.benchmarks
    variants: dict[str, Tuned | None] = {"expert": None} | ({"tuned": tuned} if tuned else {})
    done: list[Evaluation] = []
    results: dict[str, Results] = {who: {} for who in variants}
    for who, adapter in variants.items():
        for benchmark in benchmarks:
            evaluation = experiment.evaluator.evaluate(benchmark, adapter)
            done.append(evaluation)
            results[who][benchmark.name] = _result(evaluation)
            tracker.artifact(evaluation.graded, benchmark=benchmark.name, who=who)
            place = folder / ANSWERS / who
            place.mkdir(parents=True, exist_ok=True)
            _link(place / f"{benchmark.name}.jsonl", evaluation.answers)
    curve = curve_seconds = gap = gap_seconds = None
    if tuned is not None and tuned.snapshots():
        curve, curve_seconds = _curve(experiment, tuned)
    if evaluator.gap is not None and benchmarks:
        gap, gap_seconds = _gap(experiment, evaluator.gap)
    return EvaluateSummary(
        decoder=evaluator.decoder,
        **results,
        seconds=sum(evaluation.seconds for evaluation in done),
        reused=all(evaluation.reused for evaluation in done),
        **without_none(curve=curve, curve_seconds=curve_seconds, gap=gap, gap_seconds=gap_seconds),
    )


def _curve(experiment: Experiment, tuned: Tuned) -> tuple[list[CurvePoint], float]:
    """The accuracy of each snapshot, and the seconds that evaluating them took."""
    points, seconds = [], 0.0
    for snapshot in tuned.snapshots():
        results = {}
        for benchmark in experiment.inputs.benchmarks:
            evaluation = experiment.evaluator.evaluate(benchmark, snapshot)
            results[benchmark.name] = _result(evaluation)
            seconds += evaluation.seconds
        points.append(CurvePoint(step=snapshot.step or 0, results=results))
    return points, seconds


def _gap(experiment: Experiment, decoder: str) -> tuple[Gap, float]:
    """Expert and amateur on the first benchmark, and the seconds that took."""
    benchmark = experiment.inputs.benchmarks[0]
    measured = {
        who: experiment.evaluator.evaluate(benchmark, who=who, decoder=decoder)
        for who in ("expert", "amateur")
    }
    results = {who: {benchmark.name: _result(one)} for who, one in measured.items()}
    return Gap(decoder=decoder, **results), sum(one.seconds for one in measured.values())


def _result(evaluation: Evaluation) -> Result:
    return Result(**evaluation.result, cut_off=evaluation.cut_off)


def nothing_kept(inputs: Inputs, sample: SampleSummary) -> str:
    method, beta = inputs.method, inputs.settings.beta
    if sample.verified:
        drawn = sample.verified.drawn
        return (
            f"None of the {drawn} sampled answers is right, so nothing was trained. Raise "
            "method.samples or method.max_new_tokens, or choose easier questions."
        )
    if not method.reads("beta"):
        return "The method kept no step, so nothing was trained. Use more questions."
    highest = (
        "no step was scored"
        if sample.kl_max is None
        else (f"the highest KL is {sample.kl_max:.4g} nats")
    )
    return (
        f"No step has a KL above beta={beta} ({highest}), so nothing was trained. Lower beta, or "
        "choose an amateur that differs more from the expert."
    )


def _link(place: Path, target: Path) -> None:
    """Links to an artifact, or copies it where the file system has no links."""
    if place.is_symlink():
        place.unlink()  # from an earlier run in this folder
    try:
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))
    except OSError:
        if target.is_dir():
            shutil.copytree(target, place, dirs_exist_ok=True)
        else:
            shutil.copy(target, place)


def without_none(**parts: Any) -> dict[str, Any]:
    """Those that are not None: the others get no key in the file."""
    return {key: part for key, part in parts.items() if part is not None}

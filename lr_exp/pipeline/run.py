"""One run from settings to `summary.json`: the order of stages, and the record.

Knows the run's folder, the experiment and the sinks; knows nothing of how a stage works.
"""

import json
import logging
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lr_exp import distributed, progress
from lr_exp.config.settings import Settings
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.evaluating import Evaluation
from lr_exp.pipeline.experiment import Experiment
from lr_exp.pipeline.identity import cell_of, config_of
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.outcome import choices, clear, write_page
from lr_exp.pipeline.rank_checks import check_files, check_machines
from lr_exp.pipeline.versions import versions
from lr_exp.report.summary import (
    CurvePoint,
    DistillSummary,
    EvaluateSummary,
    Gap,
    Provenance,
    RecordedSettings,
    Result,
    Results,
    SampleSummary,
    Summary,
)
from lr_exp.sampler.diagnostics import diagnose_pair
from lr_exp.store import Artifact, Store, write_atomically
from lr_exp.store.inventory import record_reference
from lr_exp.store.run_folder import ANSWERS, SUMMARY, TRAJECTORIES
from lr_exp.tracking import Tracker, show

log = logging.getLogger(__name__)

_GENERATING = ("rollout", "sampled")  # stages in which the expert writes
_MODEL_STAGES = (*_GENERATING, "score")  # stages that take a model


def run(settings: Settings, folder: Path, conf_dir: Path) -> Summary:
    """Runs the stages asked for and leaves `summary.json`, written last, in `folder`.

    Each rank of a run calls this, and all return the same; the first one alone leaves anything.

    Raises:
        UserError: something in the settings or the inputs cannot work.
    """
    if distributed.is_rank0():
        return _run(settings, folder, conf_dir)
    progress.choose(progress.NONE)
    settings = replace(settings, wandb=replace(settings.wandb, mode="disabled"))
    with TemporaryDirectory() as own:  # its record of the run goes with it
        return _run(settings, Path(own), conf_dir)


def _run(settings: Settings, folder: Path, conf_dir: Path) -> Summary:
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    _start_chance(settings.seed)
    store = Store(settings.store, on_use=partial(record_reference, folder))
    inputs = Inputs(settings, conf_dir, store)
    distributed.join(inputs.device)
    installed = versions()
    check_machines(inputs, store, installed)
    if distributed.is_distributed() and settings.reads_stream:
        _ = inputs.questions  # a collective call, which must not run inside `run_on_all_ranks`
    distributed.run_on_all_ranks(inputs.check)
    check_files(inputs)
    wandb = replace(settings.wandb, group=settings.wandb.group or settings.sweep)
    shown_under = choices(settings)
    cell = cell_of(settings, inputs, shown_under)
    store.maker = cell.id
    config = config_of(settings, inputs, shown_under, installed)
    with Tracker(folder, wandb, config, cell) as tracker:
        experiment = Experiment(inputs, store, tracker.log)
        head = Summary(
            **shown_under,
            stages=list(settings.stages),
            seeds=_seeds(settings),
            provenance=Provenance(**inputs.provenance()),
            settings=RecordedSettings(**settings.to_dict()),
            versions=installed,
        )
        supervision = tuned = None
        sample = distill = evaluation = warnings = stopped = None
        if "sample" in settings.stages or "distill" in settings.stages:
            supervision, sample = _sample(experiment, folder)
            show.sample(tracker, sample, supervision, experiment.inputs.expert)
            if distributed.is_rank0():
                show.trajectories(tracker, folder / TRAJECTORIES)
            warnings = _warn(diagnose_pair(sample.to_dict()))
            if sample.kept == 0 and "distill" in settings.stages:
                stopped = _nothing_kept(inputs, sample)
                log.warning(stopped)
        if "distill" in settings.stages and supervision and supervision.facts["kept"]:
            tuned, distill = _distill(experiment, supervision, folder)
            tracker.artifact(tuned.artifact)
        if "evaluate" in settings.stages:
            evaluation = _evaluate(experiment, tuned, tracker, folder)
            show.evaluate(tracker, evaluation)
            if evaluation.gap is not None:
                profile = sample.to_dict() if sample else {}
                found = diagnose_pair(profile, evaluation.gap.to_dict())
                warnings = _warn(found, warnings or [])
        stages = _present(
            sample=sample,
            warnings=warnings,
            stopped=stopped,
            distill=distill,
            evaluate=evaluation,
            engines=experiment.models.engine_identities or None,
            peak_memory_bytes=experiment.artifacts.peak_memory_bytes,
            ranks=distributed.world_size() if distributed.is_distributed() else None,
        )
        summary = head.model_copy(update=stages)
        show.headlines(tracker, summary)
    write_atomically(folder / SUMMARY, summary.to_json())
    if distributed.is_rank0():
        write_page(folder)
    return summary


def _warn(told: list[str], before: Sequence[str] = ()) -> list[str]:
    """Says what was not said before; returns what holds."""
    for warning in told:
        if warning not in before:
            log.warning(warning)
    return told


def _present(**parts: Any) -> dict[str, Any]:
    """The parts of a summary that exist: the others have no key in the file."""
    return {key: part for key, part in parts.items() if part is not None}


def _start_chance(seed: int) -> None:
    """Starts every generator that a library could draw from unasked; ours have their own."""
    random.seed(seed)
    np.random.seed(seed)  # the one that libraries share
    torch.manual_seed(seed)


def _seeds(settings: Settings) -> dict[str, int]:
    """What every source of chance was started with."""
    return dict.fromkeys(("python", "numpy", "torch", "questions", "data_order"), settings.seed)


def _sample(experiment: Experiment, folder: Path) -> tuple[Artifact, SampleSummary]:
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
    own = ("digest", "peak_memory_bytes")
    facts = {key: value for key, value in supervision.facts.items() if key not in own}
    if made:
        facts = {"questions": len(experiment.inputs.questions), **facts}
    models_part = [made[name] for name in _MODEL_STAGES if name in made]
    sampled = {
        **facts,
        "generated_tokens": sum(
            artifact.facts["tokens"] for name, artifact in made.items() if name in _GENERATING
        )
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
        "reused": bool(made) and all(one.reused for one in models_part or made.values()),
        "artifact": str(supervision.folder),
        "supervision": supervision.facts["digest"],
        "export": str(exported) if exported else None,
    }
    if "verified" in made:
        sampled["verified"] = made["verified"].facts
    return supervision, SampleSummary.model_validate(sampled)


def _distill(
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


def _evaluate(
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
        **_present(curve=curve, curve_seconds=curve_seconds, gap=gap, gap_seconds=gap_seconds),
    )


def _curve(experiment: Experiment, tuned: Tuned) -> tuple[list[CurvePoint], float]:
    """Accuracy along the training, and the seconds of measuring it."""
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
    """Expert and amateur on the first benchmark, and the seconds of measuring them."""
    benchmark = experiment.inputs.benchmarks[0]
    measured = {
        who: experiment.evaluator.evaluate(benchmark, who=who, decoder=decoder)
        for who in ("expert", "amateur")
    }
    results = {who: {benchmark.name: _result(one)} for who, one in measured.items()}
    return Gap(decoder=decoder, **results), sum(one.seconds for one in measured.values())


def _result(evaluation: Evaluation) -> Result:
    return Result(**evaluation.result, cut_off=evaluation.cut_off)


def _nothing_kept(inputs: Inputs, sample: SampleSummary) -> str:
    method, beta = inputs.method, inputs.settings.beta
    if sample.verified:
        drawn = sample.verified.drawn
        return (
            f"None of the {drawn} answers drawn from the expert is right. Nothing was trained; "
            "raise method.samples or method.max_new_tokens, or choose easier questions."
        )
    if not method.reads("beta"):
        return "The method kept no step. Nothing was trained; give it more questions or steps."
    highest = sample.kl_max
    seen = (
        f"the highest KL seen is {highest:.4g} nats" if highest is not None else "no step was seen"
    )
    return (
        f"No step has a divergence above beta={beta}: {seen}. Nothing was trained; lower "
        "beta, or choose an amateur that differs more from the expert."
    )


def _link(place: Path, target: Path) -> None:
    """A relative link into the store, or a copy where the file system has no links."""
    if place.is_symlink():
        place.unlink()  # of an earlier run in this folder
    try:
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))
    except OSError:
        if target.is_dir():
            shutil.copytree(target, place, dirs_exist_ok=True)
        else:
            shutil.copy(target, place)

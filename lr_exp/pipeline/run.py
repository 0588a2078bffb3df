"""One run from settings to `summary.json`: the order of stages, and the record.

Knows the run's folder, the experiment and the sinks; knows nothing of how a stage works.
"""

import json
import logging
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from lr_exp.pipeline.inputs import versions
from lr_exp.pipeline.outcome import choices, clear, write_page
from lr_exp.pipeline.rank_checks import check_files, check_machines
from lr_exp.sampler.diagnostics import diagnose_pair
from lr_exp.store import Artifact, Store, write_atomically
from lr_exp.store.inventory import record_reference
from lr_exp.store.run_folder import ANSWERS, SUMMARY, TRAJECTORIES
from lr_exp.tracking import Tracker, show

log = logging.getLogger(__name__)

_GENERATING = ("rollout", "sampled")  # stages in which the expert writes
_MODEL_STAGES = (*_GENERATING, "score")  # stages that take a model


def run(settings: Settings, folder: Path, conf_dirs: Sequence[Path]) -> dict[str, Any]:
    """Runs the stages asked for and leaves `summary.json`, written last, in `folder`.

    Each rank of a run calls this, and all return the same; the first one alone leaves anything.

    Raises:
        UserError: something in the settings or the inputs cannot work.
    """
    if distributed.is_rank0():
        return _run(settings, folder, conf_dirs)
    progress.choose(progress.NONE)
    settings = replace(settings, wandb=replace(settings.wandb, mode="disabled"))
    with TemporaryDirectory() as own:  # its record of the run goes with it
        return _run(settings, Path(own), conf_dirs)


def _run(settings: Settings, folder: Path, conf_dirs: Sequence[Path]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    _start_chance(settings.seed)
    store = Store(settings.store, on_use=partial(record_reference, folder))
    experiment = Experiment(settings, store, conf_dirs)
    distributed.join(experiment.inputs.device)
    installed = versions()
    check_machines(experiment.inputs, store, installed)
    if distributed.is_distributed() and settings.reads_stream:
        _ = experiment.inputs.questions  # all ranks make them together: not within `alike`
    distributed.run_on_all_ranks(experiment.inputs.check)
    check_files(experiment.inputs)
    wandb = replace(settings.wandb, group=settings.wandb.group or settings.sweep)
    shown_under = choices(settings)
    cell = cell_of(settings, experiment.inputs, shown_under)
    store.maker = cell.id
    config = config_of(settings, experiment.inputs, shown_under, installed)
    with Tracker(folder, wandb, config, cell) as tracker:
        experiment.bench.on_log = tracker.log
        summary = _head(settings, experiment)
        summary["versions"] = installed
        supervision = tuned = None
        if "sample" in settings.stages or "distill" in settings.stages:
            supervision, summary["sample"] = _sample(experiment, folder)
            show.sample(tracker, summary["sample"], supervision, experiment.inputs.expert)
            if distributed.is_rank0():
                show.trajectories(tracker, folder / TRAJECTORIES)
            summary["warnings"] = _warn(diagnose_pair(summary["sample"]))
            if supervision.facts["kept"] == 0 and "distill" in settings.stages:
                summary["stopped"] = _nothing_kept(settings, summary["sample"])
                log.warning(summary["stopped"])
        if "distill" in settings.stages and supervision and supervision.facts["kept"]:
            tuned, summary["distill"] = _distill(experiment, supervision, folder)
            tracker.artifact(tuned.artifact)
        if "evaluate" in settings.stages:
            summary["evaluate"] = _evaluate(experiment, tuned, tracker, folder)
            show.evaluate(tracker, summary["evaluate"])
            if "gap" in summary["evaluate"]:
                told = diagnose_pair(summary.get("sample", {}), summary["evaluate"]["gap"])
                summary["warnings"] = _warn(told, summary.get("warnings", []))
        if experiment.bench.identities:
            summary["engines"] = experiment.bench.identities
        summary["peak_memory_bytes"] = experiment.bench.peak_memory_bytes
        show.headlines(tracker, summary)
        if distributed.is_distributed():
            summary["ranks"] = distributed.world_size()
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if distributed.is_rank0():
        write_page(folder)
    return summary


def _warn(told: list[str], before: Sequence[str] = ()) -> list[str]:
    """Says what was not said before; returns what holds."""
    for warning in told:
        if warning not in before:
            log.warning(warning)
    return told


def _head(settings: Settings, experiment: Experiment) -> dict[str, Any]:
    """What ran."""
    return {
        **choices(settings),
        "stages": list(settings.stages),
        "seeds": _seeds(settings),
        "provenance": experiment.inputs.provenance(),
        "settings": asdict(settings),
    }


def _start_chance(seed: int) -> None:
    """Starts every generator that a library could draw from unasked; ours have their own."""
    random.seed(seed)
    np.random.seed(seed)  # the one that libraries share
    torch.manual_seed(seed)


def _seeds(settings: Settings) -> dict[str, int]:
    """What every source of chance was started with."""
    return dict.fromkeys(("python", "numpy", "torch", "questions", "data_order"), settings.seed)


def _sample(experiment: Experiment, folder: Path) -> tuple[Artifact, dict[str, Any]]:
    made: dict[str, Artifact] = {}
    if experiment.settings.imports_records:
        supervision = experiment.sampler.import_records()
    else:
        trajectories = experiment.sampler.trajectories()
        made = {artifact.stage: artifact for artifact in trajectories}
        steps = None
        if experiment.settings.method.needs_amateur:
            made["score"] = steps = experiment.sampler.score(trajectories[-1])
        supervision = experiment.sampler.select(trajectories[-1], steps)
        if distributed.is_rank0():
            shown = experiment.sampler.read(trajectories[-1], steps, supervision)
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
    return supervision, sampled


def _distill(
    experiment: Experiment, supervision: Artifact, folder: Path
) -> tuple[Tuned, dict[str, Any]]:
    tuned = experiment.distiller.distill(supervision)
    _link(folder / "adapter", tuned.adapter)
    summary = {
        **tuned.artifact.facts,
        "seconds": tuned.artifact.seconds,
        "reused": tuned.artifact.reused,
        "artifact": str(tuned.artifact.folder),
    }
    if experiment.settings.distiller.merge:
        merged = experiment.distiller.merge(tuned)
        _link(folder / "merged", merged.folder)
        summary["merged"] = str(merged.folder)
    return tuned, summary


def _evaluate(
    experiment: Experiment, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> dict[str, Any]:
    evaluator, benchmarks = experiment.settings.evaluator, experiment.inputs.benchmarks
    variants: dict[str, Tuned | None] = {"expert": None} | ({"tuned": tuned} if tuned else {})
    done: list[Evaluation] = []
    summary: dict[str, Any] = {"decoder": evaluator.decoder}
    for who, adapter in variants.items():
        summary[who] = {}
        for benchmark in benchmarks:
            evaluation = experiment.evaluator.evaluate(benchmark, adapter)
            done.append(evaluation)
            summary[who][benchmark.name] = _shown(evaluation)
            tracker.artifact(evaluation.graded, benchmark=benchmark.name, who=who)
            place = folder / ANSWERS / who
            place.mkdir(parents=True, exist_ok=True)
            _link(place / f"{benchmark.name}.jsonl", evaluation.answers)
    summary["seconds"] = sum(evaluation.seconds for evaluation in done)
    summary["reused"] = all(evaluation.reused for evaluation in done)
    if tuned is not None and tuned.snapshots():
        summary["curve"], summary["curve_seconds"] = _curve(experiment, tuned)
    if evaluator.gap is not None and benchmarks:
        summary["gap"], summary["gap_seconds"] = _gap(experiment, evaluator.gap)
    return summary


def _curve(experiment: Experiment, tuned: Tuned) -> tuple[list[dict[str, Any]], float]:
    """Accuracy along the training, and the seconds of measuring it."""
    points, seconds = [], 0.0
    for snapshot in tuned.snapshots():
        results = {}
        for benchmark in experiment.inputs.benchmarks:
            evaluation = experiment.evaluator.evaluate(benchmark, snapshot)
            results[benchmark.name] = _shown(evaluation)
            seconds += evaluation.seconds
        points.append({"step": snapshot.step, "results": results})
    return points, seconds


def _gap(experiment: Experiment, decoder: str) -> tuple[dict[str, Any], float]:
    """Expert and amateur on the first benchmark, and the seconds of measuring them."""
    benchmark = experiment.inputs.benchmarks[0]
    measured = {
        who: experiment.evaluator.evaluate(benchmark, who=who, decoder=decoder)
        for who in ("expert", "amateur")
    }
    gap = {who: {benchmark.name: _shown(one)} for who, one in measured.items()}
    return {"decoder": decoder, **gap}, sum(one.seconds for one in measured.values())


def _shown(evaluation: Evaluation) -> dict[str, Any]:
    return {**evaluation.result, "cut_off": evaluation.cut_off}


def _nothing_kept(settings: Settings, sample: dict[str, Any]) -> str:
    method = settings.method
    if method.trajectories == "expert_verified":
        drawn = sample["verified"]["drawn"]
        return (
            f"None of the {drawn} answers drawn from the expert is right. Nothing was trained; "
            "raise method.samples or method.max_new_tokens, or choose easier questions."
        )
    if not method.reads_beta:
        return "The method kept no step. Nothing was trained; give it more questions or steps."
    highest = sample["kl_max"]
    seen = (
        f"the highest KL seen is {highest:.4g} nats" if highest is not None else "no step was seen"
    )
    return (
        f"No step has a divergence above beta={settings.beta}: {seen}. Nothing was trained; lower "
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

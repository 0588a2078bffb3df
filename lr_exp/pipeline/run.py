"""One run, from settings to `summary.json`."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lr_exp import distributed, progress
from lr_exp.config.method import Method
from lr_exp.config.settings import Settings
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.distilling import settings_for_epochs, tune_expert
from lr_exp.pipeline.evaluating import evaluate_models
from lr_exp.pipeline.identity import identity_of
from lr_exp.pipeline.inputs import Inputs, versions
from lr_exp.pipeline.outcome import choices, clear, write_page
from lr_exp.pipeline.rank_checks import check_files, check_machines
from lr_exp.pipeline.sampling import make_supervision, why_nothing_is_kept
from lr_exp.report.read.summary import Gap, Provenance, RecordedSettings, SampleSummary, Summary
from lr_exp.sampler.diagnostics import diagnose_pair, diagnose_training
from lr_exp.store import Artifact, Store, write_atomically
from lr_exp.store.inventory import record_reference, record_run
from lr_exp.store.run_folder import SUMMARY
from lr_exp.tracking import Tracker
from lr_exp.tracking.log_results import log_evaluation, log_headlines, log_sampling

log = logging.getLogger(__name__)

_SEEDED = ("python", "numpy", "torch", "questions", "data_order")  # sources of randomness


def run(settings: Settings, folder: Path, conf_dirs: Sequence[Path]) -> Summary:
    """Runs the requested stages and writes the results to `folder`, `summary.json` last.

    All ranks call it and return the same; only rank 0 writes results.

    Raises UserError: a setting or an input is invalid.
    """
    if distributed.is_rank0():
        return _run(settings, folder, conf_dirs)
    progress.choose(progress.NONE)
    settings = replace(settings, wandb=replace(settings.wandb, mode="disabled"))
    with TemporaryDirectory() as scratch:
        return _run(settings, Path(scratch), conf_dirs)


def _run(settings: Settings, folder: Path, conf_dirs: Sequence[Path]) -> Summary:
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    # Libraries use global generators; our own code has its own.
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    store = Store(settings.store, on_use=partial(record_reference, folder))
    if distributed.is_rank0():
        record_run(store.root, folder)
    inputs = Inputs(settings, conf_dirs, store)
    settings = inputs.settings
    distributed.join(inputs.device)
    installed = versions()
    check_machines(inputs, installed)
    distributed.run_on_all_ranks(inputs.check)
    check_files(inputs)
    reported = choices(settings)
    identity = identity_of(settings, inputs, reported)
    store.maker = identity.id
    provenance = inputs.provenance()
    shown = {"cell": reported, "provenance": provenance, "versions": installed}
    with Tracker(folder, settings.wandb, settings.to_dict() | shown, identity) as tracker:
        context = RunContext(inputs, store, tracker.log)
        recorded = settings.to_dict()
        recorded["method"] |= inputs.method.parameters
        head = Summary(
            **reported,
            stages=list(settings.stages),
            seeds=dict.fromkeys(_SEEDED, settings.seed),
            provenance=Provenance(**provenance),
            settings=RecordedSettings(**recorded),
            versions=installed,
        )
        parts: dict[str, Any] = {}  # one that is missing has no key in the file
        sample, tuned, repeats = None, None, []
        if "sample" in settings.stages or "distill" in settings.stages:
            supervision, sample = make_supervision(context, folder)
            log_sampling(tracker, sample, supervision)
            warnings = _warn(_pair_warnings(inputs.method, sample))
            if "distill" in settings.stages and sample.kept:
                repeats = _warn(diagnose_training(*_planned(context, supervision)))
                tuned, parts["distill"] = tune_expert(context, supervision, folder)
                tracker.artifact(tuned.artifact)
            elif "distill" in settings.stages:
                parts["stopped"] = why_nothing_is_kept(inputs, sample)
                log.warning(parts["stopped"])
            parts |= {"sample": sample, "warnings": [*warnings, *repeats]}
        if "evaluate" in settings.stages:
            evaluate = parts["evaluate"] = evaluate_models(context, tuned, tracker, folder)
            log_evaluation(tracker, evaluate, folder)
            if evaluate.gap is not None:
                found = _pair_warnings(inputs.method, sample, evaluate.gap)
                parts["warnings"] = [*_warn(found, parts.get("warnings", [])), *repeats]
        if context.models.engine_identities:
            parts["engines"] = context.models.engine_identities
        if distributed.is_distributed():
            parts["ranks"] = distributed.world_size()
        parts["peak_memory_bytes"] = context.peak_memory_bytes
        summary = head.model_copy(update=parts)
        log_headlines(tracker, summary)
    write_atomically(folder / SUMMARY, summary.to_json())
    if distributed.is_rank0():
        write_page(folder)
    return summary


def _planned(context: RunContext, supervision: Artifact) -> tuple[int, int]:
    """The number of kept steps, and how many a training on them will take."""
    kept, trained = supervision.facts["kept"], settings_for_epochs(context, supervision)
    if trained.batch_answers is None:
        return kept, trained.steps * trained.batch_size
    drawn = trained.steps * trained.batch_answers
    return kept, round(kept * drawn / supervision.facts["answers"])


def _pair_warnings(
    method: Method, sample: SampleSummary | None, gap: Gap | None = None
) -> list[str]:
    """The warnings about the pair that apply to the method; more is known with the gap."""
    if method.needs("context"):  # the expert itself takes the amateur's place
        return []
    profile, target = sample.to_dict() if sample else {}, method.target
    if target.choice.name == "sharpened" or target.arguments.get("b") == 0:
        profile["choice"] = None  # labels in the expert's own order move it nowhere
    found = diagnose_pair(profile, gap.to_dict() if gap else None)
    if sample and sample.kept and sample.choice == sample.moving == 0 and method.reads("alpha"):
        found.append(
            "Every label is the expert's own first choice alone: no other token is plausible at "
            "any kept step. Lower alpha."
        )
    return found


def _warn(warnings: list[str], logged: Sequence[str] = ()) -> list[str]:
    """Logs the warnings that were not logged before."""
    for warning in warnings:
        if warning not in logged:
            log.warning(warning)
    return warnings

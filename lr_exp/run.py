"""One run from settings to `summary.json`: the order of stages, the record, the table at the end.

Knows the run's folder, the experiment and the sinks; knows nothing of how a stage works.
"""

import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lr_exp.experiment import Experiment, Tuned, versions
from lr_exp.memory import peak_memory_bytes, reset_peak_memory
from lr_exp.models import load_tokenizer
from lr_exp.report.terminal import summary_table
from lr_exp.sampler.records import labelled_steps
from lr_exp.settings import Settings
from lr_exp.store import Artifact, Store, write_atomically
from lr_exp.supervision import Supervision
from lr_exp.tracking import Tracker

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
_SHOWN_STEPS = 200  # rows of the sample table sent to W&B


def run(settings: Settings, folder: Path, conf_dir: Path) -> dict[str, Any]:
    """Runs the stages asked for and leaves `summary.json`, written last, in `folder`.

    Raises:
        UserError: something in the settings or the inputs cannot work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    reset_peak_memory()
    store = Store(settings.store)
    experiment = Experiment(settings, store, conf_dir)
    experiment.check_inputs()
    with Tracker(folder, settings.wandb, asdict(settings)) as tracker:
        experiment.on_log = tracker.log
        summary = _head(settings, experiment)
        summary["versions"] = versions()
        supervision = tuned = None
        if "sample" in settings.stages or "distill" in settings.stages:
            supervision, summary["sample"] = _sample(experiment, tracker)
            if supervision.facts["kept"] == 0:
                summary["stopped"] = _nothing_kept(settings, supervision)
                log.warning(summary["stopped"])
        if "distill" in settings.stages and supervision and supervision.facts["kept"]:
            tuned, summary["distill"] = _distill(experiment, supervision, folder)
        if "evaluate" in settings.stages:
            summary["evaluate"] = _evaluate(experiment, tuned, tracker, folder)
        summary["peak_memory_bytes"] = peak_memory_bytes(experiment.device)
        tracker.summarize(_headlines(summary))
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    print(summary_table(summary), flush=True)
    print(f"Results: {min(str(folder), os.path.relpath(folder), key=len)}", flush=True)
    return summary


def _clear(folder: Path) -> None:
    """Removes what an earlier run in this folder would show as this one's: summary and links."""
    (folder / SUMMARY).unlink(missing_ok=True)
    links = [folder / "adapter", folder / "merged", *(folder / "answers").glob("*/*.jsonl")]
    for link in links:
        if link.is_symlink():
            link.unlink()


def _head(settings: Settings, experiment: Experiment) -> dict[str, Any]:
    """What ran. A choice that no stage read is null: its value would claim what is not so."""
    sampled = not experiment.imports_records
    method = settings.method
    return {
        "method": method.name if sampled else None,
        "expert": settings.expert.name,
        "amateur": settings.amateur.name if sampled else None,
        "data": settings.data.name,
        "alpha": settings.alpha if sampled and method.target == "contrast" else None,
        "beta": settings.beta if sampled and method.steps == "kl_above_beta" else None,
        "seed": settings.seed,
        "stages": list(settings.stages),
        "provenance": experiment.provenance(),
        "settings": asdict(settings),
    }


def _sample(experiment: Experiment, tracker: Tracker) -> tuple[Artifact, dict[str, Any]]:
    if experiment.imports_records:
        supervision, made = experiment.import_records(), []
    else:
        trajectories = experiment.roll_out()
        steps = experiment.score(trajectories)
        supervision, made = experiment.select(trajectories, steps), [trajectories, steps]
    exported = experiment.export(supervision)
    facts = {key: value for key, value in supervision.facts.items() if key != "digest"}
    sampled = {
        **facts,
        "generated_tokens": made[0].facts["tokens"] if made else None,
        "seconds": sum(artifact.seconds for artifact in (*made, supervision)),
        "seconds_by_stage": {
            name: artifact.seconds
            for name, artifact in zip(("rollout", "score"), made, strict=False)
        },
        "reused": bool(made) and all(artifact.reused for artifact in made),  # the models' part
        "artifact": str(supervision.folder),
        "supervision": supervision.facts["digest"],
        "export": str(exported) if exported else None,
    }
    tracker.log("sample", 0, {k: v for k, v in facts.items() if isinstance(v, int | float)})
    if "histogram" in facts:
        counts, width = facts["histogram"]["counts"], facts["histogram"]["bin_nats"]
        tracker.histogram("sample/kl", counts, [i * width for i in range(len(counts) + 1)])
    _show_samples(experiment, supervision, tracker)
    return supervision, sampled


def _show_samples(experiment: Experiment, supervision: Artifact, tracker: Tracker) -> None:
    """The first kept steps as a W&B table: question, prefix, label, divergence."""
    if not tracker.has_service:
        return
    tokenizer = load_tokenizer(experiment.expert)
    columns = ("question", "step", "prefix", "label", "kl (nats)")
    rows = labelled_steps(Supervision.load(supervision.folder), tokenizer, _SHOWN_STEPS)
    tracker.table("sample/kept_steps", columns, rows)


def _distill(
    experiment: Experiment, supervision: Artifact, folder: Path
) -> tuple[Tuned, dict[str, Any]]:
    tuned = experiment.distill(supervision)
    _link(folder / "adapter", tuned.adapter)
    summary = {
        **tuned.artifact.facts,
        "seconds": tuned.artifact.seconds,
        "reused": tuned.artifact.reused,
        "artifact": str(tuned.artifact.folder),
    }
    if experiment.settings.distiller.merge:
        merged = experiment.merge(tuned)
        _link(folder / "merged", merged.folder)
        summary["merged"] = str(merged.folder)
    return tuned, summary


def _evaluate(
    experiment: Experiment, tuned: Tuned | None, tracker: Tracker, folder: Path
) -> dict[str, Any]:
    summary: dict[str, Any] = {"expert": {}, "seconds": 0.0, "reused": True}
    variants: dict[str, Tuned | None] = {"expert": None}
    if tuned is not None:
        summary["tuned"] = {}
        variants["tuned"] = tuned
    for who, adapter in variants.items():
        for benchmark in experiment.benchmarks:
            evaluation = experiment.evaluate(benchmark, adapter)
            summary[who][benchmark.name] = {**evaluation.result, "cut_off": evaluation.cut_off}
            summary["seconds"] += evaluation.seconds
            summary["reused"] &= evaluation.reused
            place = folder / "answers" / who
            place.mkdir(parents=True, exist_ok=True)
            _link(place / f"{benchmark.name}.jsonl", evaluation.answers)
    if tuned is not None:
        columns = ("benchmark", "before", "stderr before", "after", "stderr after", "questions")
        rows = [
            (
                name,
                before["accuracy"],
                before["stderr"],
                summary["tuned"][name]["accuracy"],
                summary["tuned"][name]["stderr"],
                before["total"],
            )
            for name, before in summary["expert"].items()
        ]
        tracker.table("eval/before_after", columns, rows)
    return summary


def _nothing_kept(settings: Settings, supervision: Artifact) -> str:
    highest = supervision.facts["kl_max"]
    seen = (
        f"the highest KL seen is {highest:.4g} nats" if highest is not None else "no step was seen"
    )
    return (
        f"No step has a divergence above beta={settings.beta}: {seen}. Nothing was trained; lower "
        "beta, or choose an amateur that differs more from the expert."
    )


def _headlines(summary: dict[str, Any]) -> dict[str, Any]:
    """Flat numbers for W&B's run table."""
    flat: dict[str, Any] = {
        f"sample/{key}": value
        for key, value in summary.get("sample", {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for who in ("expert", "tuned"):
        for name, result in summary.get("evaluate", {}).get(who, {}).items():
            flat[f"eval/{name}/{who}"] = result["accuracy"]
    return flat


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

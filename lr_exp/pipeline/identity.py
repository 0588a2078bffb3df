"""The identity of a run in a tracker: its id and its name."""

import contextlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.config.settings import STAGES, Settings, identity_settings
from lr_exp.data.questions import fingerprint
from lr_exp.distiller import adapter_files
from lr_exp.evaluator import answer, grade
from lr_exp.pipeline.inputs import GRADING_PACKAGES, Inputs
from lr_exp.sampler import records, references, rollout, score, select
from lr_exp.store import digest, file_digest
from lr_exp.tracking import RunIdentity

_ID_LENGTH = 24  # hexadecimal digits, as in the store's addresses


def identity_of(settings: Settings, inputs: Inputs, choices: Mapping[str, Any]) -> RunIdentity:
    """The id, name and job type of a run.

    The id is a hash of everything that determines the results: settings that determine them,
    fingerprints of models, questions and benchmarks, versions of the stages' code, device and
    precision. So a repeated command is the same run, also in another folder. The sweep is part of
    it, since a run belongs to one group, and so is a setting that the method does not read, since
    each cell of a sweep is a run.

    choices: see `outcome.choices`.
    """
    stages = [stage for stage in STAGES if stage in settings.stages]  # in the order of execution
    determining = identity_settings(settings)
    determining["method"] |= determining["method"].pop("parameters")
    parts = [
        {**determining, "stages": stages},
        _fingerprints(settings, inputs, choices),
        _code(settings, inputs),
        inputs.machine,
    ]
    name = settings.wandb.name or _name(choices)
    return RunIdentity(digest(parts)[:_ID_LENGTH], name, "+".join(stages))


def _fingerprints(settings: Settings, inputs: Inputs, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Fingerprints of the inputs of the requested stages, also where artifacts are reused."""
    found: dict[str, Any] = {"expert": inputs.expert.fingerprint}
    if choices["amateur"] is not None:
        found["amateur"] = inputs.amateur.fingerprint
    if _learns(settings):
        found["prompt"] = inputs.prompt.identity
        if not settings.imports_records:
            found["questions"] = fingerprint(inputs.questions)
        else:
            with contextlib.suppress(OSError):  # reported when the file is read
                found["records"] = file_digest(Path(settings.data.path or "").expanduser())
    if "evaluate" in settings.stages:
        benchmarks = inputs.benchmark_questions.items()
        found["benchmarks"] = {name: fingerprint(questions) for name, questions in benchmarks}
        found["prompts"] = {
            form: {name: prompt.identity for name, prompt in by_benchmark.items()}
            for form, by_benchmark in inputs.prompts.items()
        }
    return found


def _learns(settings: Settings) -> bool:
    return "sample" in settings.stages or "distill" in settings.stages


def _code(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Versions of the requested stages' code."""
    found: dict[str, Any] = {}
    learns, grades = _learns(settings), "evaluate" in settings.stages
    if learns:
        made = (records,) if settings.imports_records else (rollout, references, score, select)
        found |= {module.__name__.rpartition(".")[2]: module.VERSION for module in made}
    if learns and not settings.imports_records:
        found["method"] = inputs.method.identity("trajectories", "select", "target")
    if "distill" in settings.stages:
        found |= {"distill": adapter_files.VERSION, "peft": version("peft")}
        found["loss"] = inputs.method.identity("loss")
    if grades or (learns and inputs.method.needs("references")):
        found |= {name: version(name) for name in GRADING_PACKAGES}
    if grades:
        found |= {"answer": answer.VERSION, "grade": grade.VERSION}
        found["benchmarks"] = {one.name: [one.version, one.answer] for one in inputs.benchmarks}
    return found


def _name(choices: Mapping[str, Any]) -> str:
    """A name such as `lightreasoner micro/micro_near alpha=0.2 beta=0.4 seed=0`."""
    models = "/".join(str(choices[role]) for role in ("expert", "amateur") if choices[role])
    numbers = [f"{name}={choices[name]}" for name in ("alpha", "beta") if choices[name] is not None]
    parts = [choices["method"], models, *numbers, f"seed={choices['seed']}"]
    return " ".join(part for part in parts if part)

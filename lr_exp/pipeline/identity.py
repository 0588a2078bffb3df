"""The identity of a run in a tracker: its id and its name."""

from collections.abc import Mapping
from typing import Any

from lr_exp.config.method import KINDS
from lr_exp.config.settings import STAGES, Settings, identity_settings
from lr_exp.distiller import adapter_files
from lr_exp.evaluator import answer, forcing, grade
from lr_exp.pipeline.inputs import GRADING_PACKAGES, Inputs, versions_of
from lr_exp.sampler import records, references, rollout, score, select
from lr_exp.store import digest
from lr_exp.tracking import RunIdentity

_ID_LENGTH = 24  # hexadecimal digits, as in the store's addresses
_STAGES = (rollout, references, score, select, records, adapter_files, answer, forcing, grade)


def identity_of(settings: Settings, inputs: Inputs, choices: Mapping[str, Any]) -> RunIdentity:
    """The id, name and job type of a run.

    The id is a hash of everything that determines the results, so a repeated command is the same
    run, also in another folder. The sweep is part of it, since a run belongs to one group, and so
    is a setting that the method does not read, since each cell of a sweep is a run.
    """
    stages = [stage for stage in STAGES if stage in settings.stages]  # in the order of execution
    determining = identity_settings(settings)
    determining["method"] |= determining["method"].pop("parameters")
    parts = [
        {**determining, "stages": stages},
        inputs.fingerprints(),
        inputs.method.identity(*KINDS),
        [[one.name, one.version, one.answer] for one in inputs.benchmarks],
        {module.__name__: module.VERSION for module in _STAGES},
        versions_of(("peft", *GRADING_PACKAGES)),
        inputs.machine,
    ]
    name = settings.wandb.name or _name(choices)
    return RunIdentity(digest(parts)[:_ID_LENGTH], name, "+".join(stages))


def _name(choices: Mapping[str, Any]) -> str:
    """A name such as `lightreasoner micro/micro_near alpha=0.2 beta=0.4 seed=0`."""
    models = "/".join(str(choices[role]) for role in ("expert", "amateur") if choices[role])
    numbers = [f"{name}={choices[name]}" for name in ("alpha", "beta") if choices[name] is not None]
    parts = [choices["method"], models, *numbers, f"seed={choices['seed']}"]
    return " ".join(part for part in parts if part)

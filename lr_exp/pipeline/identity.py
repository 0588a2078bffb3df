"""Which run of a tracker a cell is: its id, its name, what it does and what is told of it.

Knows settings and inputs; knows nothing of W&B.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lr_exp.config.settings import STAGES, Settings
from lr_exp.data.questions import fingerprint
from lr_exp.store import digest, file_digest
from lr_exp.tracking.recorder import Cell

if TYPE_CHECKING:  # torch comes with them
    from lr_exp.pipeline.inputs import Inputs

_ID_LENGTH = 24  # hexadecimal digits, as of the store's addresses

# Settings that say where something is, and not what it is. Device and number format are in what
# the machine computes differently; of models and data the fingerprints are in the id.
_PLACES = ("config_dirs", "wandb", "store", "hub_root", "device", "dtype", "attention")
_PLACES_IN = {
    "expert": ("path", "fallback_path", "package", "package_path", "revision"),
    "amateur": ("path", "fallback_path", "package", "package_path", "revision"),
    "data": ("path", "revision", "streaming"),  # of the same questions, however they were read
    "sampler": ("export",),
    "server": ("url", "concurrency", "timeout", "attempts"),
    "distiller": ("checkpoint_every", "merge", "parallel"),  # they change no result
}


def cell_of(settings: Settings, inputs: "Inputs", choices: Mapping[str, Any]) -> Cell:
    """The cell of these settings and inputs.

    Its id is the address of all that determines the results: the settings without places, the
    fingerprints of models, questions and benchmarks, the versions of the stages' code, and what the
    machine computes differently. So a command that is given again, after a stop or at another
    place, is the same run, and a cell that differs in anything is another. The sweep counts, since
    a run belongs to one group; so does a number that its method does not read, since each cell of a
    sweep is a run.

    Args:
        settings: of the run.
        inputs: of the run, which read them already.
        choices: what results are shown under.
    """
    stages = [stage for stage in STAGES if stage in settings.stages]  # the order in which they run
    whole = [
        {**_without_places(settings), "stages": stages},
        _fingerprints(settings, inputs, choices),
        _code(settings, inputs),
        inputs.machine,
    ]
    name = settings.wandb.name or _name(choices)
    return Cell(digest(whole)[:_ID_LENGTH], name, "+".join(stages))


def config_of(
    settings: Settings, inputs: "Inputs", choices: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What is shown with the run: the composed settings, nested as they are, and what they met.

    `cell` holds the choices that results are shown under; one that no stage read is null there.
    """
    return {
        **asdict(settings),
        "cell": dict(choices),
        "provenance": inputs.provenance(),
        "versions": dict(versions),
    }


def _without_places(settings: Settings) -> dict[str, Any]:
    told = {name: value for name, value in asdict(settings).items() if name not in _PLACES}
    for group, places in _PLACES_IN.items():
        told[group] = {name: value for name, value in told[group].items() if name not in places}
    return told


def _fingerprints(
    settings: Settings, inputs: "Inputs", choices: Mapping[str, Any]
) -> dict[str, Any]:
    """What the asked stages read, also where they only find in the store what was made of it."""
    found: dict[str, Any] = {"expert": inputs.expert.fingerprint}
    if choices["amateur"] is not None:
        found["amateur"] = inputs.amateur.fingerprint
    if _learns(settings) and settings.imports_records:
        with contextlib.suppress(OSError):  # reading them says what is wrong
            found["records"] = file_digest(Path(settings.data.path or "").expanduser())
    elif _learns(settings):
        found["questions"] = fingerprint(inputs.questions)
    if "evaluate" in settings.stages:
        for what, by_name in (("benchmarks", inputs.benchmark_questions), ("shots", inputs.shots)):
            found[what] = {name: fingerprint(questions) for name, questions in by_name.items()}
    return found


def _learns(settings: Settings) -> bool:
    return "sample" in settings.stages or "distill" in settings.stages


def _code(settings: Settings, inputs: "Inputs") -> dict[str, Any]:
    """Versions of what computes, as the recipes of the asked stages name them."""
    # Here, since torch comes with them.
    from lr_exp.evaluator import answer, grade
    from lr_exp.pipeline.inputs import GRADING_PACKAGES
    from lr_exp.sampler import records, references, rollout, score, select

    found: dict[str, Any] = {}
    learns, grades = _learns(settings), "evaluate" in settings.stages
    if learns:
        made = (records,) if settings.imports_records else (rollout, references, score, select)
        found |= {module.__name__.rpartition(".")[2]: module.VERSION for module in made}
    if "distill" in settings.stages:
        from lr_exp.distiller import distill

        found |= {"distill": distill.VERSION, "peft": version("peft")}
    if grades or (learns and settings.method.trajectories == "expert_verified"):
        found |= {name: version(name) for name in GRADING_PACKAGES}
    if grades:
        found |= {"answer": answer.VERSION, "grade": grade.VERSION}
        found["benchmarks"] = {one.name: [one.version, one.answer] for one in inputs.benchmarks}
    return found


def _name(choices: Mapping[str, Any]) -> str:
    """`lightreasoner micro/micro_near alpha=0.2 beta=0.4 seed=0`, of choices that were made."""
    models = "/".join(str(choices[role]) for role in ("expert", "amateur") if choices[role])
    numbers = [f"{name}={choices[name]}" for name in ("alpha", "beta") if choices[name] is not None]
    parts = [choices["method"], models, *numbers, f"seed={choices['seed']}"]
    return " ".join(part for part in parts if part)

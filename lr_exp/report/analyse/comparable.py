"""Checks that runs can be compared: differences raise a UserError, or give a note."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lr_exp.errors import UserError
from lr_exp.report.read.run import Run, flat
from lr_exp.report.read.summary import Results

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_IGNORED = {
    # In the label of a row.
    *("alpha", "beta", "seed", "distiller.learning_rate", "evaluator.decoder", "sampler.prompt"),
    # They do not change the results that a row has.
    *("benchmarks", "distiller.merge", "distiller.snapshot_every", "evaluator.gap"),
    *("evaluator.pass_at", "evaluator.samples", "evaluator.temperature", "sampler.export"),
    *("config_dirs", "hub_root", "overrides", "stages", "store", "sweep"),
    *("server.attempts", "server.concurrency", "server.timeout", "server.url"),
    # In the provenance, where `auto` is resolved; another device gives a note.
    *("device", "dtype"),
    # The tasks' files are in the provenance.
    *("evaluator.lm_eval_tasks", "evaluator.run_code"),
    "prompt_date",  # in the models' fingerprints, where a template prints it
}
# They change at most rounding, and give a note.
_RESOURCES = {
    *("distiller.checkpoint_seconds", "distiller.log_every", "distiller.parallel"),
    *("distiller.tokens_per_pass", "sampler.tokens_per_pass"),
    *("evaluator.batch_size", "sampler.batch_size"),
}
_MODEL_PLACE = {"path", "revision", "package", "package_path", "fallback_path", "adapter"}
SEPARATE = "Report the runs' folders separately"
RERUN = f"{SEPARATE}, or rerun one of the runs."
_REMEDY = (
    "They cannot share a row: remove the folder of a trial run, or report a folder that contains "
    "only one of them (hydra.sweep.dir=FOLDER separates trial runs)."
)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key, in their original order."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def check_sweep(runs: Sequence[Run]) -> list[str]:
    """Returns warnings about different machines and versions.

    Raises UserError if a benchmark has other questions in some runs, or histograms other bins.
    """
    if found := differences(runs, lambda run: run.provenance.benchmarks or {}):
        raise UserError(
            f"benchmark {_listed(found, ' has different questions:')}; the revision of the "
            f"data or evaluator.max_examples differs. {RERUN}"
        )
    if found := differences(runs, _bins):
        raise UserError(
            f"the histograms of divergences have {found['bins']}: they cannot be added. {RERUN}"
        )
    return [
        f"Warning: {key} differs within this table: {values}. Results may differ for that reason."
        for key, values in differences(runs, machine).items()
    ]


def check_row(label: str, runs: Sequence[Run]) -> list[str]:
    """Returns notes on harmless differences; raises UserError if more than the seed differs."""
    if found := differences(runs, _identity):
        raise UserError(
            f"row {label!r} mixes runs that differ in more than the seed: "
            f"{_listed(found)}. {_REMEDY}"
        )
    return [
        f"{label}: {key} is {values}; results can differ by rounding."
        for key, values in differences(runs, lambda run: flat(run.settings)).items()
        if key in _RESOURCES
    ]


def check_expert(runs: Sequence[Run]) -> None:
    """Raises UserError unless all runs of an expert have the same model and evaluation settings."""
    parts = ("expert.", "evaluator.", "model of the expert", "dtype")

    def evaluation(run: Run) -> dict[str, Any]:
        return {key: value for key, value in _identity(run).items() if key.startswith(parts)}

    if found := differences(runs, evaluation):
        raise UserError(
            f"expert {runs[0].expert!r} is not the same model, or not evaluated in the same way, "
            f"in all runs: {_listed(found)}. {SEPARATE}."
        )


def one_per_seed(label: str, runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """One run per seed; of several with the same results, the one with the most benchmarks.

    Raises UserError if two runs of one seed have different results.
    """

    def outcome(run: Run) -> dict[str, str]:
        ended = {"training": "stopped" if run.stopped else "finished"}
        return ended | counts(run.results(run.final_model))

    kept = []
    for seed, own in sorted(grouped(runs, lambda run: run.seed).items()):
        fullest = max(own, key=lambda run: len(run.results(run.final_model)))
        if found := differences([fullest, *own], outcome):
            raise UserError(
                f"{label}: seed {seed} was run twice with different results: "
                f"{_listed(found, '')}. Remove one of the folders, or report them separately."
            )
        notes += [
            f"{label}: seed {seed} was run twice ({fullest.name}, {other.name}); "
            f"{fullest.name} is used."
            for other in own
            if other is not fullest
        ]
        kept.append(fullest)
    return kept


def check_agree(
    what: str, runs: Sequence[Run], values: Callable[[Run], Mapping[str, str]]
) -> list[str]:
    """Returns warnings where another machine measured other counts than the first run.

    Raises UserError if counts differ on the same device with the same versions.
    """
    first, notes = runs[0], []
    for run in runs:
        if found := differences([first, run], values):
            reason = _listed(found, "")
            if machine(first) == machine(run):
                raise UserError(
                    f"{what}: the same evaluation has different results: {reason}. {RERUN}"
                )
            notes.append(
                f"Warning: {what} was measured on different machines or versions with different "
                f"results: {reason}. The result of {first.name} is shown."
            )
    return notes


def differences(runs: Iterable[Run], values: Callable[[Run], Mapping[str, Any]]) -> dict[str, str]:
    """`A in RUN and B in RUN` for each key with different values in two runs.

    A run may lack a key.
    """
    first: dict[str, tuple[Any, Run]] = {}
    found: dict[str, str] = {}
    for run in runs:
        for key, value in values(run).items():
            known, other = first.setdefault(key, (value, run))
            if known is not value and known != value:  # NaN differs from itself
                text = f"{_short(known)} in {other.name} and {_short(value)} in {run.name}"
                found.setdefault(key, text)
    return found


def machine(run: Run) -> dict[str, str]:
    """Package versions and device, which can change results with the same settings."""
    versions = {f"{name} version": value for name, value in (run.summary.versions or {}).items()}
    device = {"device_name": run.provenance.device_name, "dtype": run.provenance.dtype}
    return versions | {key: value for key, value in device.items() if value is not None}


def _identity(run: Run) -> dict[str, Any]:
    """Everything that determines results except seed, alpha and beta."""
    models = {"expert": run.provenance.expert, "amateur": run.provenance.amateur}
    fingerprints = {role: model.fingerprint for role, model in models.items() if model}
    measured = {
        **{f"model of the {role}": fingerprint for role, fingerprint in fingerprints.items()},
        "provenance.data": run.provenance.data,
        "prompt of the sampler": run.provenance.prompt,
        **{
            f"evaluator.prompts, {form}": found
            for form, found in (run.provenance.prompts or {}).items()
        },
        "dtype": run.provenance.dtype,
        "evaluated benchmarks": sorted(run.results(run.final_model)) or None,
    }
    ignored = _IGNORED | _RESOURCES
    for role, fingerprint in fingerprints.items():
        if fingerprint:  # same files, whatever their path
            ignored |= {f"{role}.{key}" for key in _MODEL_PLACE}
    if run.provenance.data is not None:
        ignored |= {"data.path"}
    groups = ("wandb.",) if run.amateur else ("wandb.", "amateur.")
    settings = {
        key: value
        for key, value in flat(run.settings).items()
        if key not in ignored and not key.startswith(groups)
    }
    return settings | {key: value for key, value in measured.items() if value is not None}


def counts(results: Results) -> dict[str, str]:
    """`3/4` by benchmark."""
    return {name: f"{one.correct}/{one.total}" for name, one in results.items()}


def _bins(run: Run) -> dict[str, str]:
    histogram = run.sample.histogram
    if not histogram:
        return {}
    return {"bins": f"{len(histogram.counts)} bins of {histogram.bin_nats} nats"}


def _listed(differences: Mapping[str, str], verb: str = " is") -> str:
    """The differences of a run as a phrase, `key is A in RUN and B in RUN; ...`."""
    return "; ".join(f"{key}{verb} {values}" for key, values in differences.items())


def _short(value: Any) -> str:
    """A value as text, fingerprints shortened."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text

"""Checks that runs can be compared: differences raise a UserError, or give a note."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lr_exp.errors import UserError
from lr_exp.report.runs import Run

# Settings that do not change results, or that are part of a row's label.
_IGNORED = {
    "alpha",
    "benchmarks",  # the evaluated ones are compared
    "beta",
    "data.streaming",  # provenance has the questions
    "device",  # in provenance; gives a note
    "distiller.merge",
    "distiller.snapshot_every",
    "dtype",  # in provenance, where `auto` is resolved
    "evaluator.decoder",
    "evaluator.gap",
    "hub_root",
    "config_dirs",
    "sampler.export",
    "seed",
    "server.attempts",
    "server.concurrency",
    "server.timeout",
    "server.url",
    "stages",
    "store",
    "sweep",
}
# They change at most rounding, and give a note.
_RESOURCES = {
    "distiller.checkpoint_every",
    "distiller.log_every",
    "distiller.parallel",
    "distiller.tokens_per_pass",
    "evaluator.batch_size",
    "sampler.batch_size",
    "sampler.tokens_per_pass",
}
_MODEL_PLACE = {"path", "revision", "package", "package_path", "fallback_path"}
_REMEDY = (
    "They cannot share a row: remove the folder of a trial run, or report a folder that contains "
    "only one of them (hydra.sweep.dir=FOLDER separates trial runs)."
)


def check_benchmarks(runs: Sequence[Run]) -> None:
    """Raises UserError unless every benchmark has the same questions in all runs."""
    first: dict[str, tuple[str, Run]] = {}
    for run in runs:
        for benchmark, fingerprint in (run.provenance.benchmarks or {}).items():
            known, other = first.setdefault(benchmark, (fingerprint, run))
            if known != fingerprint:
                raise UserError(
                    f"benchmark {benchmark} has different questions in {run.name} "
                    f"({_short(fingerprint)}) and {other.name} ({_short(known)}): the revision of "
                    "the data or evaluator.max_examples differs. Report their folders separately, "
                    "or run one of them again."
                )


def check_histograms(runs: Sequence[Run]) -> None:
    """Raises UserError unless all histograms of divergences have the same bins."""
    first: tuple[tuple[float, int], Run] | None = None
    for run in runs:
        histogram = run.sample.histogram
        if not histogram:
            continue
        bins = histogram.bin_nats, len(histogram.counts)
        first = first or (bins, run)
        if first[0] != bins:
            raise UserError(
                f"the divergences of {run.name} have {bins[1]} bins of {bins[0]} nats, those of "
                f"{first[1].name} have {first[0][1]} of {first[0][0]}: they cannot be added. "
                "Report their folders separately, or run one of them again."
            )


def check_row(label: str, runs: Sequence[Run]) -> list[str]:
    """Returns notes on harmless differences; raises UserError if more than the seed differs."""
    for differences in _differences((run, _identity(run)) for run in runs):
        raise UserError(
            f"row {label!r} mixes runs that differ in more than the seed: "
            f"{_describe(differences)}. {_REMEDY}"
        )
    notes: dict[str, str] = {}
    for differences in _differences((run, _resources(run)) for run in runs):
        notes |= {
            d.key: f"{label}: {d.key} differs between runs ({d.value} in {d.run.name}, "
            f"{d.other_value} in {d.other.name}); results can differ by rounding."
            for d in differences
        }
    return list(notes.values())


def check_expert(runs: Sequence[Run]) -> None:
    """Raises UserError unless all runs of an expert have the same model and evaluation settings."""
    parts = ("expert.", "evaluator.", "model of the expert", "dtype")
    read = (
        (run, {key: value for key, value in _identity(run).items() if key.startswith(parts)})
        for run in runs
    )
    for differences in _differences(read):
        raise UserError(
            f"expert {runs[0].expert!r} is not the same model, or not evaluated in the same way, "
            f"in all runs: {_describe(differences)}. Report their folders separately."
        )


def machine(run: Run) -> dict[str, str]:
    """Package versions and device, which can change results with the same settings."""
    versions = {f"{name} version": value for name, value in (run.summary.versions or {}).items()}
    device = {"device_name": run.provenance.device_name, "dtype": run.provenance.dtype}
    return versions | {key: value for key, value in device.items() if value is not None}


def machine_notes(runs: Sequence[Run]) -> list[str]:
    """A warning for each package version, device or dtype that differs between runs."""
    values: dict[str, dict[str, str]] = {}
    for run in runs:
        for key, value in machine(run).items():
            values.setdefault(key, {}).setdefault(value, run.name)
    return [
        f"Warning: {key} differs within this table: "
        + ", ".join(f"{value} (as in {name})" for value, name in seen.items())
        + ". Results may differ for that reason."
        for key, seen in values.items()
        if len(seen) > 1
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    items: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            items |= flat(value, f"{prefix}{key}.")
        else:
            items[prefix + key] = value
    return items


def _identity(run: Run) -> dict[str, Any]:
    """Everything that determines results except seed, alpha and beta."""
    ignored = {"wandb", *([] if run.amateur else ["amateur"])}
    settings: dict[str, Any] = {k: v for k, v in run.settings.items() if k not in ignored}
    for role in ("expert", "amateur"):
        if _fingerprint(run, role) and role in settings:  # same files, whatever their path
            settings[role] = {k: v for k, v in settings[role].items() if k not in _MODEL_PLACE}
    if run.provenance.data is not None and "data" in settings:
        settings["data"] = {k: v for k, v in settings["data"].items() if k != "path"}
    identity = {
        key: value
        for key, value in flat(settings).items()
        if key not in _IGNORED and key not in _RESOURCES
    }
    return identity | {
        "model of the expert": _fingerprint(run, "expert"),
        "model of the amateur": _fingerprint(run, "amateur"),
        "provenance.data": run.provenance.data,
        "dtype": run.provenance.dtype,
        "evaluated benchmarks": sorted(run.results(run.outcome)) or None,
    }


def _resources(run: Run) -> dict[str, Any]:
    return {k: v for k, v in flat(run.settings).items() if k in _RESOURCES}


def _fingerprint(run: Run, role: str) -> str | None:
    model = run.provenance.expert if role == "expert" else run.provenance.amateur
    return model.fingerprint if model else None


_OPTIONAL = {
    "model of the expert",
    "model of the amateur",
    "provenance.data",
    "dtype",
    "evaluated benchmarks",
}


@dataclass(frozen=True)
class _Difference:
    """A key with different values in two runs."""

    key: str
    value: Any
    run: Run
    other_value: Any
    other: Run


def _differences(read: Iterable[tuple[Run, dict[str, Any]]]) -> Iterator[list[_Difference]]:
    """The differences of each run that differs from the runs before it.

    Each key is compared with the first run that has it: older versions lack some keys.
    """
    first: dict[str, tuple[Any, Run]] = {}
    for run, values in read:
        differences = []
        for key, value in values.items():
            if key in _OPTIONAL and value is None:
                continue
            known, other = first.setdefault(key, (value, run))
            if known != value:
                differences.append(_Difference(key, known, other, value, run))
        if differences:
            yield differences


def _describe(differences: Iterable[_Difference]) -> str:
    return "; ".join(
        f"{d.key} is {_short(d.value)} in {d.run.name} and {_short(d.other_value)} in "
        f"{d.other.name}"
        for d in differences
    )


def _short(value: Any) -> str:
    """A value as text, fingerprints shortened."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text

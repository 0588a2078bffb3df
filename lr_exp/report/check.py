"""What must agree before numbers stand in one table, and what is only told.

Knows runs and their settings; computes no number. Whatever does not belong together raises a
UserError that names the key, the values and the folders.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lr_exp.errors import UserError
from lr_exp.report.runs import Run

# Settings that do not change what a run computes, or that stand in a row's label.
_IGNORED = {
    "alpha",
    "benchmarks",  # what was evaluated is compared itself
    "beta",
    "data.streaming",  # provenance says which questions came of it
    "device",  # told by provenance, with a note
    "distiller.merge",
    "distiller.snapshot_every",
    "dtype",  # provenance says which one it came to
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
# They change rounding at most: told, not refused.
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
_APART = (
    "They do not belong in one row: remove the folder of the one that was a trial, or report a "
    "folder that holds one of them (hydra.sweep.dir=FOLDER keeps a trial's runs apart)."
)


def check_benchmarks(runs: Sequence[Run]) -> None:
    """Every benchmark has the same questions in all runs of a table."""
    first: dict[str, tuple[str, Run]] = {}
    for run in runs:
        for benchmark, fingerprint in (run.provenance.benchmarks or {}).items():
            known, other = first.setdefault(benchmark, (fingerprint, run))
            if known != fingerprint:
                raise UserError(
                    f"benchmark {benchmark} has other questions in {run.name} "
                    f"({_short(fingerprint)}) than in {other.name} ({_short(known)}): another "
                    "revision of the data or another evaluator.max_examples. Report their folders "
                    "apart, or run one of them again."
                )


def check_histograms(runs: Sequence[Run]) -> None:
    """Divergences that are added up were counted in the same bins."""
    first: tuple[tuple[float, int], Run] | None = None
    for run in runs:
        histogram = run.sample.histogram
        if not histogram:
            continue
        bins = histogram.bin_nats, len(histogram.counts)
        first = first or (bins, run)
        if first[0] != bins:
            raise UserError(
                f"the divergences of {run.name} are counted in {bins[1]} bins of {bins[0]} nats, "
                f"those of {first[1].name} in {first[0][1]} of {first[0][0]}: they cannot be added "
                "up. Report their folders apart, or run one of them again."
            )


def check_row(label: str, runs: Sequence[Run]) -> list[str]:
    """All runs of a row differ in the seed alone. Returns notes on what differs harmlessly."""
    for told in _differences((run, _identity(run)) for run in runs):
        raise UserError(
            f"row {label!r} mixes runs that differ in more than the seed: {_tell(told)}. {_APART}"
        )
    notes: dict[str, str] = {}
    for told in _differences((run, _resources(run)) for run in runs):
        notes |= {
            one.key: f"{label}: {one.key} differs between runs ({one.value} in {one.run.name}, "
            f"{one.other_value} in {one.other.name}); results can differ by rounding."
            for one in told
        }
    return list(notes.values())


def check_expert(runs: Sequence[Run]) -> None:
    """All runs of one expert have the same model, and asked it in the same way."""
    parts = ("expert.", "evaluator.", "model of the expert", "dtype")
    read = (
        (run, {key: value for key, value in _identity(run).items() if key.startswith(parts)})
        for run in runs
    )
    for told in _differences(read):
        raise UserError(
            f"expert {runs[0].expert!r} is not the same, or not evaluated in the same way, in all "
            f"runs: {_tell(told)}. Report their folders apart."
        )


def machine(run: Run) -> dict[str, str]:
    """What can make the same settings give other numbers: packages and device."""
    versions = {f"{name} version": value for name, value in (run.summary.versions or {}).items()}
    device = {"device_name": run.provenance.device_name, "dtype": run.provenance.dtype}
    return versions | {key: value for key, value in device.items() if value is not None}


def machine_notes(runs: Sequence[Run]) -> list[str]:
    """A warning for each package version, device or dtype that is not the same in all runs."""
    values: dict[str, dict[str, str]] = {}
    for run in runs:
        for key, value in machine(run).items():
            values.setdefault(key, {}).setdefault(value, run.name)
    return [
        f"Warning: {key} differs within this table: "
        + ", ".join(f"{value} (as in {name})" for value, name in seen.items())
        + ". Results may differ for this reason alone."
        for key, seen in values.items()
        if len(seen) > 1
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _identity(run: Run) -> dict[str, Any]:
    """All that decides a run's results but seed, alpha and beta, which the row's label tells."""
    ignored = {"wandb", *([] if run.amateur else ["amateur"])}
    settings: dict[str, Any] = {k: v for k, v in run.settings.items() if k not in ignored}
    for role in ("expert", "amateur"):
        if _fingerprint(run, role) and role in settings:  # it decides, wherever the files lie
            settings[role] = {k: v for k, v in settings[role].items() if k not in _MODEL_PLACE}
    if run.provenance.data is not None and "data" in settings:
        settings["data"] = {k: v for k, v in settings["data"].items() if k != "path"}
    told = {
        key: value
        for key, value in flat(settings).items()
        if key not in _IGNORED and key not in _RESOURCES
    }
    return told | {
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
    """A key with one value in the first run that tells it, and another in a later run."""

    key: str
    value: Any
    run: Run
    other_value: Any
    other: Run


def _differences(read: Iterable[tuple[Run, dict[str, Any]]]) -> Iterator[list[_Difference]]:
    """Of each run that differs from those before it, in what.

    A key that an older version lacks tells nothing, nor does a fact that a run was not asked for:
    each is compared with the first run that has it.
    """
    first: dict[str, tuple[Any, Run]] = {}
    for run, values in read:
        told = []
        for key, value in values.items():
            if key in _OPTIONAL and value is None:
                continue
            known, other = first.setdefault(key, (value, run))
            if known != value:
                told.append(_Difference(key, known, other, value, run))
        if told:
            yield told


def _tell(told: Iterable[_Difference]) -> str:
    return "; ".join(
        f"{one.key} is {_short(one.value)} in {one.run.name} and {_short(one.other_value)} in "
        f"{one.other.name}"
        for one in told
    )


def _short(value: Any) -> str:
    """A fingerprint needs no more than its beginning to be told from another."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text

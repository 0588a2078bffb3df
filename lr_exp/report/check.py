"""What must agree before numbers stand in one table, and what is only told.

Knows runs and their settings; computes no number. Whatever does not belong together raises a
UserError that names the key, the values and the folders.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lr_exp.errors import UserError
from lr_exp.report.runs import Run

# Settings that do not change what a run computes, or that stand in a row's label.
_IGNORED = {
    "alpha",
    "benchmarks",  # what was evaluated is compared itself
    "beta",
    "device",  # told by provenance, with a note
    "distiller.merge",
    "distiller.snapshot_every",
    "dtype",  # provenance says which one it came to
    "evaluator.decoder",
    "evaluator.gap",
    "hub_root",
    "sampler.export",
    "seed",
    "stages",
    "store",
    "sweep",
}
# They change rounding at most: told, not refused.
_RESOURCES = {
    "distiller.checkpoint_every",
    "distiller.log_every",
    "distiller.tokens_per_pass",
    "evaluator.batch_size",
    "sampler.batch_size",
    "sampler.tokens_per_pass",
}
_MODEL_PLACE = {"path", "revision", "package", "package_path", "fallback_path"}
_APART = "They do not belong in one row; report their folders apart."


def check_benchmarks(runs: Sequence[Run]) -> None:
    """Every benchmark has the same questions in all runs of a table."""
    first: dict[str, tuple[str, Run]] = {}
    for run in runs:
        for benchmark, fingerprint in (run.provenance("benchmarks") or {}).items():
            known, other = first.setdefault(benchmark, (fingerprint, run))
            if known != fingerprint:
                raise UserError(
                    f"benchmark {benchmark} has other questions in {run.name} "
                    f"({_short(fingerprint)}) than in {other.name} ({_short(known)}): another "
                    "revision of the data or another evaluator.max_examples. Report their folders "
                    "apart, or run one of them again."
                )


def check_row(label: str, runs: Sequence[Run]) -> list[str]:
    """All runs of a row differ in the seed alone. Returns notes on what differs harmlessly."""
    notes: dict[str, str] = {}
    first = runs[0]
    for run in runs[1:]:
        told = _difference(_identity(first), _identity(run))
        if told:
            raise UserError(
                f"row {label!r} mixes runs that differ in more than the seed: "
                f"{_tell(told, first, run)}. {_APART}"
            )
        harmless = _difference(_resources(first), _resources(run))
        notes |= {
            key: f"{label}: {key} differs between runs ({a} in {first.name}, {b} in {run.name}); "
            "results can differ by rounding."
            for key, a, b in harmless
        }
    return list(notes.values())


def check_expert(runs: Sequence[Run]) -> None:
    """All runs of one expert have the same model, and asked it in the same way."""
    first = runs[0]
    parts = ("expert.", "evaluator.", "model of the expert", "dtype")
    for run in runs[1:]:
        told = [
            entry
            for entry in _difference(_identity(first), _identity(run))
            if entry[0].startswith(parts)
        ]
        if told:
            raise UserError(
                f"expert {run.expert!r} is not the same, or not evaluated in the same way, in all "
                f"runs: {_tell(told, first, run)}. Report their folders apart."
            )


def machine(run: Run) -> dict[str, str]:
    """What can make the same settings give other numbers: packages and device."""
    told = {f"{name} version": str(value) for name, value in run.part("versions").items()}
    for key in ("device_name", "dtype"):
        if run.provenance(key) is not None:
            told[key] = str(run.provenance(key))
    return told


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


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
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
    settings = {k: v for k, v in run.summary["settings"].items() if k not in ignored}
    for role in ("expert", "amateur"):
        if _fingerprint(run, role) and role in settings:  # it decides, wherever the files lie
            settings[role] = {k: v for k, v in settings[role].items() if k not in _MODEL_PLACE}
    if run.provenance("data") is not None and "data" in settings:
        settings["data"] = {k: v for k, v in settings["data"].items() if k != "path"}
    told = {
        key: value
        for key, value in flat(settings).items()
        if key not in _IGNORED and key not in _RESOURCES
    }
    return told | {
        "model of the expert": _fingerprint(run, "expert"),
        "model of the amateur": _fingerprint(run, "amateur"),
        "provenance.data": run.provenance("data"),
        "dtype": run.provenance("dtype"),
        "evaluated benchmarks": sorted(run.results("tuned")) or None,
    }


def _resources(run: Run) -> dict[str, Any]:
    return {k: v for k, v in flat(run.summary["settings"]).items() if k in _RESOURCES}


def _fingerprint(run: Run, role: str) -> str | None:
    return (run.provenance(role) or {}).get("fingerprint")


_OPTIONAL = {
    "model of the expert",
    "model of the amateur",
    "provenance.data",
    "dtype",
    "evaluated benchmarks",
}


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys that both have with other values. A key that an older version lacks tells nothing."""
    return [
        (key, value, theirs[key])
        for key, value in ours.items()
        if key in theirs
        and theirs[key] != value
        and not (key in _OPTIONAL and None in (value, theirs[key]))
    ]


def _tell(told: Iterable[tuple[str, Any, Any]], first: Run, other: Run) -> str:
    return "; ".join(
        f"{key} is {_short(a)} in {first.name} and {_short(b)} in {other.name}"
        for key, a, b in told
    )


def _short(value: Any) -> str:
    """A fingerprint needs no more than its beginning to be told from another."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text

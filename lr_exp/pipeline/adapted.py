"""Merges an existing adapter into the expert, so that a run starts from the tuned model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lr_exp.config.settings import ExpertSettings
from lr_exp.errors import UserError, first_line
from lr_exp.models import loading
from lr_exp.models.locating import ModelSource, locate
from lr_exp.report.read.json_file import reason_of
from lr_exp.store import Recipe, Store, digest, file_digest

VERSION = 1  # of the merged models: raise it when merging changes
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def with_adapter(
    source: ModelSource, adapter: str, store: Store, machine: dict[str, str]
) -> tuple[ModelSource, dict[str, str]]:
    """The expert with an adapter in PEFT's format merged in, as a model folder in the store.

    Also returns facts of the merged model: the base, its commit and the adapter's digest.

    Raises UserError: the folder has no LoRA adapter in safetensors, or one of another base.
    """
    folder = Path(adapter).expanduser()
    config = _read_config(folder)
    base, revision = (config.pop(key, None) for key in ("base_model_name_or_path", "revision"))
    is_same = _name(base or "") == _name(source.location)
    if not is_same or (revision and source.revision and revision != source.revision):
        raise UserError(
            f"expert.adapter={folder} was trained for {_place(base, revision)}, not for "
            f"{_place(source.location, source.revision)}. If they are the same model, correct "
            f"base_model_name_or_path and revision in its {_CONFIG}."
        )
    tuned = digest([config, file_digest(folder / _WEIGHTS)])
    inputs = {"expert": source.fingerprint, "adapter": tuned, "prompt_date": source.prompt_date}

    def build(target: Path) -> dict[str, Any]:
        from lr_exp.distiller.distill import merge  # imports peft

        expert = loading.load(source, device="cpu", dtype=machine["dtype"])
        _check_weights(expert.model, source, folder)
        try:
            merge(expert, folder, target)
        except UserError:
            raise
        except Exception as error:  # peft's errors differ by the kind of adapter
            raise UserError(
                f"expert.adapter={folder} cannot be merged into {source.name} "
                f"({first_line(error)}): give a LoRA adapter of this model."
            ) from error
        return {}

    found = store.make_here(Recipe("adapted", VERSION, inputs, machine), build)
    merged = locate(ExpertSettings(name=source.name, path=str(found.folder)), source.role)
    facts = {"base": _place(source.location, source.revision), "adapter": tuned}
    return replace(merged, trust_remote_code=source.trust_remote_code), facts


def _place(location: str | None, revision: str | None) -> str:
    return (location or "an unknown base") + (f" at {revision}" if revision else "")


def _name(location: str) -> str:
    """The model's name in a hub id or a path, also of the hub's cache (models--OWNER--NAME)."""
    cached = [part for part in Path(location).parts if part.startswith("models--")]
    return cached[0].rpartition("--")[2] if cached else Path(location).name


def _read_config(folder: Path) -> dict[str, Any]:
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"expert.adapter={folder} is not the folder of an adapter: it has no {name}."
            )
    try:
        config = json.loads((folder / _CONFIG).read_text("utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expert.adapter={folder}: its {_CONFIG} cannot be used: {reason_of(error)}."
        ) from error
    if kind != "LORA":
        raise UserError(f"expert.adapter={folder} is of the kind {kind}; only LORA can be merged.")
    return config


def _check_weights(model: Any, source: ModelSource, folder: Path) -> None:
    """Raises UserError: the names or shapes of the adapter's weights do not fit the model."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, load_peft_weights

    try:
        given = _shapes(load_peft_weights(str(folder), device="cpu"))
    except SafetensorError as error:
        raise UserError(
            f"expert.adapter={folder}: {_WEIGHTS} is damaged ({first_line(error)}): copy it again."
        ) from error
    config = LoraConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = None  # peft would warn of another spelling
    try:
        peft_model: Any = get_peft_model(model, config)
    except ValueError as error:  # peft finds none of the adapter's layers
        raise UserError(
            f"expert.adapter={folder} does not fit {source.location}: {first_line(error)}"
        ) from error
    wanted = _shapes(get_peft_model_state_dict(peft_model))
    peft_model.unload()
    for name in sorted({*given, *wanted}):
        has, needs = (one.get(name, "absent") for one in (given, wanted))
        if has != needs:
            raise UserError(
                f"expert.adapter={folder} does not fit {source.location}: {name} is {has}, "
                f"expected {needs}."
            )


def _shapes(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}

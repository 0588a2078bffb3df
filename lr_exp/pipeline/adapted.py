"""Merges an existing adapter into the expert, so that a run starts from the tuned model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lr_exp.config.settings import ExpertSettings
from lr_exp.errors import UserError, first_line
from lr_exp.models import loading
from lr_exp.models.locating import ModelSource, locate
from lr_exp.store import Recipe, Store, digest, file_digest

VERSION = 1  # of the merged models: raise it when merging changes
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def with_adapter(source: ModelSource, adapter: str, store: str, machine: dict[str, str]) -> Any:
    """The expert with an adapter in PEFT's format merged in, as a model folder in the store.

    Raises UserError: the folder has no LoRA adapter in safetensors, or one of another base.
    """
    folder = Path(adapter).expanduser()
    config = _read_config(folder)
    base = str(config.pop("base_model_name_or_path", None) or "")
    config.pop("revision", None)
    tuned = digest([config, file_digest(folder / _WEIGHTS)])
    inputs = {"expert": source.fingerprint, "adapter": tuned, "prompt_date": source.prompt_date}

    def build(target: Path) -> dict[str, Any]:
        from lr_exp.distiller.distill import merge  # imports peft

        expert = loading.load(source, device="cpu", dtype=machine["dtype"])
        _check_base(expert.model, source, folder, base)
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

    found = Store(store).make(Recipe("started", VERSION, inputs, machine), build)
    merged = locate(ExpertSettings(name=source.name, path=str(found.folder)), source.role)
    return replace(merged, trust_remote_code=source.trust_remote_code)


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
            f"expert.adapter={folder}: its {_CONFIG} cannot be used ({first_line(error)})."
        ) from error
    if kind != "LORA":
        raise UserError(f"expert.adapter={folder} is of the kind {kind}; only LORA can be merged.")
    return config


def _check_base(model: Any, source: ModelSource, folder: Path, base: str) -> None:
    """Raises UserError: the adapter's weights or the name of its base do not fit the model."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, load_peft_weights

    given = _shapes(load_peft_weights(str(folder), device="cpu"))
    config = LoraConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = None  # peft would warn of another spelling
    try:
        peft_model: Any = get_peft_model(model, config)
        wanted = _shapes(get_peft_model_state_dict(peft_model))
        peft_model.unload()
        names = sorted({*given, *wanted})
        differing = [name for name in names if given.get(name) != wanted.get(name)]
        reason = ""
        if differing:
            has, needs = (one.get(differing[0], "absent") for one in (given, wanted))
            reason = f"{differing[0]} is {has}, expected {needs}"
    except ValueError as error:  # peft finds none of the adapter's layers
        reason = first_line(error)
    if reason or Path(base).name != Path(source.location).name:
        shown = reason or "its weights would fit, so correct the name if it is the same model"
        raise UserError(
            f"expert.adapter={folder} was trained for {base or 'an unknown base'} "
            f"(base_model_name_or_path in {_CONFIG}), not for {source.location}: {shown}."
        )


def _shapes(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}

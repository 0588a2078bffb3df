"""Which layers of a model get LoRA weights."""

import re
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from lr_exp.errors import UserError

_DEFAULT = ["q_proj", "v_proj"]  # the published code's
# Of architectures that neither have those nor are in peft's own table, in order of preference.
_OTHERS = (["qkv_proj"], ["query_key_value"], ["q_b_proj", "kv_b_proj"], ["in_proj"])


def choose_targets(model: Any, wanted: list[str] | None) -> list[str]:
    """Names of the linear layers to tune; by default `q_proj` and `v_proj` or what stands for them.

    The model may be on the meta device. Raises UserError: it lacks a wanted name or any default.
    """
    present = set(map(_last, _text_layers(model)))
    shown = f"{type(model).__name__} has no module named {{}}; it has {', '.join(sorted(present))}."
    if wanted is not None:
        for name in wanted:
            if name not in present:
                raise UserError(f"distiller.target_modules: {shown.format(name)}")
        return wanted
    if present.issuperset(_DEFAULT):
        return _DEFAULT
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFTS

    model_type = model.config.get_text_config().model_type
    for names in (PEFTS.get(model_type, []), *_OTHERS):
        if names and present.issuperset(names):
            return list(names)
    raise UserError(f"distiller.target_modules: {shown.format('q_proj')} Choose some of these.")


def lora_layers(model: Any, wanted: list[str] | None) -> dict[str, Any]:
    """The fields of peft's `LoraConfig` that say which layers are tuned (see `choose_targets`).

    A multimodal model's vision and audio layers are excluded although they may have such names.
    """
    targets = choose_targets(model, wanted)
    decoder, head = map(re.escape, _text_parts(model))
    layers = _linear_layers(model).items()
    tuned = {name: layer for name, layer in layers if _last(name) in targets}
    outside = tuned.keys() - _text_layers(model)
    return {
        "target_modules": targets,
        "exclude_modules": rf"(?!{decoder}\.|{head}$).*" if outside else None,
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in tuned.values()),
    }


def _text_layers(model: Any) -> set[str]:
    """Full names of the linear layers of the decoder, and of the output layer."""
    decoder, head = _text_parts(model)
    return {
        name for name in _linear_layers(model) if name == head or name.startswith(f"{decoder}.")
    }


def _linear_layers(model: Any) -> dict[str, Any]:
    layers = dict(model.named_modules()).items()
    return {name: one for name, one in layers if isinstance(one, (torch.nn.Linear, Conv1D))}


def _text_parts(model: Any) -> tuple[str, str]:
    """Full names of the decoder and of the output layer."""
    names = {module: name for name, module in model.named_modules()}
    return names[model.get_decoder()], names[model.get_output_embeddings()]


def _last(name: str) -> str:
    return name.rpartition(".")[2]

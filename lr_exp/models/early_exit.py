"""Early-exit amateurs: the expert without some of its layers, sharing all other weights.

Expert and amateur have the same layers up to the first dropped one, so a pass over both models
computes those layers once.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError
from lr_exp.models.loading import LanguageModel
from lr_exp.models.locating import ModelSource, config_number
from lr_exp.models.packing import Pack, read_logits
from lr_exp.models.probing import PROBE, same_but_for_rounding


def early_exit(expert: LanguageModel, drop_layers: tuple[int, ...], name: str) -> LanguageModel:
    """A model without the given layers of the expert that shares the expert's weights.

    Raises UserError: the expert has no layer of that number, no layer would remain, or the
    architecture's layers depend on each other in another way than through their output.
    """
    total = expert.model.config.get_text_config().num_hidden_layers
    _check_layers(tuple(sorted(drop_layers)), total)
    model = _with_layers(expert.model, [n for n in range(total) if n not in drop_layers])
    _, _, whole = _layers(expert.model)
    if not _skips(expert.model, [whole[layer] for layer in drop_layers], model):
        raise _unsuitable(expert.model)
    first = min(drop_layers)
    return replace(expert, name=name, model=model, shared_with=expert.model, shared_layers=first)


def _with_layers(model: Any, kept: Sequence[int]) -> Any:
    """A shallow copy of the model with some of its decoder layers; everything else is shared."""
    path, list_name, whole = _layers(model)
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, name, [value[index] for index in kept])  # such as layer_types
    text.num_hidden_layers = len(kept)
    twin = part = _shallow_copy(model)
    for name in path.split("."):
        part.config = config
        child = _shallow_copy(part._modules[name])
        part._modules[name] = child
        part = child
    part.config = text
    layers = [_with_layer_index(whole[old], new) for new, old in enumerate(kept)]
    part._modules[list_name] = torch.nn.ModuleList(layers)
    return twin


def _layers(model: Any) -> tuple[str, str, torch.nn.ModuleList]:
    """The decoder's full name, the name of its list of layers, and this list."""
    total, decoder = model.config.get_text_config().num_hidden_layers, model.get_decoder()
    paths = [path for path, module in model.named_modules() if module is decoder and path]
    for name, child in decoder._modules.items() if paths else ():
        if isinstance(child, torch.nn.ModuleList) and len(child) == total:
            return paths[0], name, child
    raise _unsuitable(model)


def _unsuitable(model: Any) -> UserError:
    return UserError(
        f"amateur=early_exit: the layers of {type(model).__name__} are not a plain list of which "
        "some can be left out; choose another amateur."
    )


@torch.no_grad()
def _skips(model: Any, dropped: Sequence[Any], without: Any) -> bool:
    """Whether `without` computes what the model does if the dropped layers return their input."""

    def skip(_layer: Any, inputs: Any, output: Any) -> Any:
        return inputs[0] if torch.is_tensor(output) else (inputs[0], *output[1:])

    ids = torch.tensor([PROBE], device=next(model.parameters()).device)
    handles = [layer.register_forward_hook(skip) for layer in dropped]
    try:
        expected = model(input_ids=ids, use_cache=False).logits[0]
        found = without(input_ids=ids, use_cache=False).logits[0]
    except (IndexError, RuntimeError, TypeError, KeyError):
        return False
    finally:
        for handle in handles:
            handle.remove()
    return same_but_for_rounding(expected, found, model.dtype)


def check_drop_layers(source: ModelSource) -> None:
    """Raises UserError if `drop_layers` names layers that the config does not have."""
    total = config_number(source, "num_hidden_layers")
    if source.drop_layers and total is not None:
        _check_layers(source.drop_layers, total)


def _check_layers(drop_layers: tuple[int, ...], total: int) -> None:
    if drop_layers[-1] >= total or len(drop_layers) >= total:
        raise UserError(
            f"amateur.drop_layers={list(drop_layers)}: the expert has layers 0 to {total - 1}, "
            "and at least one must remain. Remove layers from the list."
        )


def _shallow_copy(module: torch.nn.Module) -> Any:
    """A module that shares parameters and children but whose attributes can be replaced."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    twin._modules = dict(module._modules)
    return twin


def _with_layer_index(module: torch.nn.Module, index: int) -> Any:
    """A copy of a decoder layer with another `layer_idx`, by which attention finds its cache."""
    twin = _shallow_copy(module)
    for name, child in module._modules.items():
        if child is not None and any(hasattr(part, "layer_idx") for part in child.modules()):
            twin._modules[name] = _with_layer_index(child, index)
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = index
    return twin


def shared_layer_logits(
    expert: LanguageModel, amateur: LanguageModel, expert_pack: Pack, amateur_pack: Pack
) -> tuple[Tensor, Tensor] | None:
    """Both models' logits `(reads, rows)` with the shared layers computed once.

    Returns None if the models share no layers or the packs differ.
    """
    count = amateur.shared_layers if amateur.shared_with is expert.model else 0
    same_input = torch.equal(expert_pack.input_ids, amateur_pack.input_ids) and torch.equal(
        expert_pack.position_ids, amateur_pack.position_ids
    )
    if not count or not same_input:
        return None
    (*_, whole), (*_, layers) = _layers(expert.model), _layers(amateur.model)
    outputs: list[Any] = []  # of the last shared layer
    handle = whole[count - 1].register_forward_hook(lambda *args: outputs.append(args[-1]))
    try:
        expert_logits = read_logits(expert.model, expert_pack)
    finally:
        handle.remove()
    shared = layers[:count]
    for layer in shared:  # which are the amateur's own copies
        vars(layer)["forward"] = lambda *_, **__: outputs[0]
    try:
        return expert_logits, read_logits(amateur.model, amateur_pack)
    finally:
        for layer in shared:
            del vars(layer)["forward"]

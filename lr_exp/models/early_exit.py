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


def early_exit(expert: LanguageModel, drop_layers: tuple[int, ...], name: str) -> LanguageModel:
    """A model without the given layers of the expert that shares the expert's weights.

    Raises:
        UserError: the expert has no layer of that number, or no layer would remain.
    """
    total = expert.model.config.num_hidden_layers
    _check_layers(tuple(sorted(drop_layers)), total)
    kept = [layer for layer in range(total) if layer not in drop_layers]
    _, decoder = _decoder(expert.model)
    layers = [_with_layer_index(decoder.layers[old], new) for new, old in enumerate(kept)]
    return replace(
        expert,
        name=name,
        model=with_layers(expert.model, layers, kept),
        shared_with=expert.model,
        shared_layers=min(drop_layers),
    )


def with_layers(model: Any, layers: Sequence[Any], sources: Sequence[int]) -> Any:
    """A shallow copy of the model with other decoder layers; everything else is shared.

    Args:
        sources: for each new layer the index of the layer of `model` whose attention type it has.
    """
    twin = _shallow_copy(model)
    twin.config = copy.deepcopy(model.config)
    twin.config.num_hidden_layers = len(layers)
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = [twin.config.layer_types[index] for index in sources]
    name, decoder = _decoder(model)
    twin._modules[name] = decoder = _shallow_copy(decoder)
    decoder.config = twin.config
    decoder.layers = torch.nn.ModuleList(layers)
    return twin


def _decoder(model: Any) -> tuple[str, Any]:
    """Attribute name and module of the part of a causal model that holds the layers."""
    decoder = model.get_decoder()
    names = [name for name, child in model._modules.items() if child is decoder]
    if not names or not hasattr(decoder, "layers"):
        raise UserError(
            f"amateur=early_exit: {type(model).__name__} does not keep its layers where "
            "decoder-only models do; choose another amateur."
        )
    return names[0], decoder


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


def _with_layer_index(layer: torch.nn.Module, index: int) -> Any:
    """A copy of a decoder layer with another `layer_idx`, by which attention finds its cache."""
    twin = _shallow_copy(layer)
    for name, child in layer._modules.items():
        if child is not None and hasattr(child, "layer_idx"):
            twin._modules[name] = _shallow_copy(child)
            twin._modules[name].layer_idx = index
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
    layers = list(amateur.model.get_decoder().layers)
    captured: list[Tensor] = []
    handle = (
        expert.model.get_decoder()
        .layers[count]
        .register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    )
    try:
        expert_logits = read_logits(expert.model, expert_pack)
    finally:
        handle.remove()
    shared = _PrecomputedLayers(layers[count - 1], captured[0])
    sources = range(count - 1, len(layers))
    rest = with_layers(amateur.model, [shared, *layers[count:]], sources)
    return expert_logits, read_logits(rest, amateur_pack)


class _PrecomputedLayers(torch.nn.Module):
    """Stands in for the shared first layers and returns their hidden states."""

    def __init__(self, last_layer: Any, states: Tensor) -> None:
        super().__init__()
        # Set in __dict__ so that `last_layer` does not become a submodule.
        self.__dict__.update(_last_layer=last_layer, _states=states)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._states

    def __getattr__(self, name: str) -> Any:
        # Some decoders read a layer's attention type.
        return getattr(self.__dict__["_last_layer"], name)

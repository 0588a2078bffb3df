"""Early-exit amateurs: the expert without some of its layers, sharing all other weights.

Expert and amateur have the same layers up to the first dropped one, so a pass over both models
computes those layers once.
"""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lr_exp.errors import UserError
from lr_exp.models.loading import LanguageModel
from lr_exp.models.locating import ModelSource, read_config
from lr_exp.models.packing import Pack, read_logits


def early_exit(expert: LanguageModel, drop_layers: tuple[int, ...], name: str) -> LanguageModel:
    """The expert without some layers, as a model of its own that shares the expert's weights.

    Raises:
        UserError: a layer number that the expert does not have, or none left.
    """
    total = expert.model.config.num_hidden_layers
    _check_layers(tuple(sorted(drop_layers)), total)
    kept = [layer for layer in range(total) if layer not in drop_layers]
    _, decoder = _decoder(expert.model)
    layers = [_renumbered(decoder.layers[place], index) for index, place in enumerate(kept)]
    return LanguageModel(
        name=name,
        model=with_layers(expert.model, layers, kept),
        tokenizer=expert.tokenizer,
        stop_ids=expert.stop_ids,
        vocabulary_size=expert.vocabulary_size,
        context=expert.context,
        shared_with=expert.model,
        shared_layers=min(drop_layers),
    )


def with_layers(model: Any, layers: Sequence[Any], places: Sequence[int]) -> Any:
    """The model with other decoder layers, as a model of its own that shares all else.

    Args:
        places: whose place in `model` each layer takes: what kind of attention it has.
    """
    import torch

    twin = _shallow(model)
    twin.config = copy.deepcopy(model.config)
    twin.config.num_hidden_layers = len(layers)
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = [twin.config.layer_types[place] for place in places]
    name, whole = _decoder(model)
    decoder = _shallow(whole)
    decoder.config = twin.config
    decoder.layers = torch.nn.ModuleList(layers)
    twin._modules[name] = decoder
    return twin


def _decoder(model: Any) -> tuple[str, Any]:
    """The part of a causal model that holds the layers, and its name there."""
    decoder = model.get_decoder()
    names = [name for name, child in model._modules.items() if child is decoder]
    if not names or not hasattr(decoder, "layers"):
        raise UserError(
            f"amateur=early_exit: the layers of {type(model).__name__} are not where "
            "decoder-only models keep them; choose an amateur of its own."
        )
    return names[0], decoder


def check_drop_layers(source: ModelSource) -> None:
    """Raises UserError where `drop_layers` names layers that the config does not have."""
    if source.drop_layers and source.gguf_file is None:
        total = read_config(source).get("num_hidden_layers")
        if isinstance(total, int):
            _check_layers(source.drop_layers, total)


def _check_layers(drop_layers: tuple[int, ...], total: int) -> None:
    if drop_layers[-1] >= total or len(drop_layers) >= total:
        raise UserError(
            f"amateur.drop_layers={list(drop_layers)}: the expert has layers 0 to {total - 1}, "
            "and one must remain."
        )


def _shallow(module: "torch.nn.Module") -> Any:
    """A module that shares parameters and children, whose own attributes can be replaced."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    twin._modules = dict(module._modules)
    return twin


def _renumbered(layer: "torch.nn.Module", index: int) -> Any:
    """A decoder layer in another place: attention finds its cache by `layer_idx`."""
    twin = _shallow(layer)
    for name, child in layer._modules.items():
        if child is not None and hasattr(child, "layer_idx"):
            twin._modules[name] = _shallow(child)
            twin._modules[name].layer_idx = index
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = index
    return twin


def read_pair_logits(
    expert: LanguageModel, amateur: LanguageModel, own: Pack, foreign: Pack
) -> tuple[Tensor, Tensor] | None:
    """Both models' logits `(reads, rows)` at the wanted places; None where nothing is shared.

    Args:
        own, foreign: what the expert and what the amateur reads; of different ids no layer's
            output is the same.
    """
    count = amateur.shared_layers if amateur.shared_with is expert.model else 0
    alike = torch.equal(own.input_ids, foreign.input_ids) and torch.equal(
        own.position_ids, foreign.position_ids
    )
    if not count or not alike:
        return None
    layers = list(amateur.model.get_decoder().layers)
    seen: list[Tensor] = []
    handle = (
        expert.model.get_decoder()
        .layers[count]
        .register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    )
    try:
        expert_logits = read_logits(expert.model, own)
    finally:
        handle.remove()
    given = _Given(layers[count - 1], seen[0])
    places = range(count - 1, len(layers))
    rest = with_layers(amateur.model, [given, *layers[count:]], places)
    return expert_logits, read_logits(rest, foreign)


class _Given(torch.nn.Module):
    """Stands where the first layers stood, and answers with what they gave."""

    def __init__(self, instead_of: Any, states: Tensor) -> None:
        super().__init__()
        # Some decoders look up what kind of attention a layer has.
        self.__dict__["_told"] = SimpleNamespace(instead_of=instead_of, states=states)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._told.states

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_told"].instead_of, name)

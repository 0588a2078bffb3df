"""Two models that begin with the same layers read a pack together: those layers run once.

Knows early-exit amateurs (`models.early_exit`) and packs. What comes out is what two passes would
give: up to the first layer that the amateur leaves out, its hidden states are the expert's.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lr_exp.models import LanguageModel, with_layers
from lr_exp.packing import Pack, read_logits


def read_both(
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

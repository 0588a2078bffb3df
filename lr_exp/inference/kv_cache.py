"""A key-value cache whose rows are written in place. Knows transformers' cache interface only.

The library's own dynamic cache concatenates at every token, which copies all that was kept so far:
at 250 rows of a tiny model that is most of decoding's time.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """A full-attention layer's keys and values inside buffers with room for `capacity` tokens."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends `(rows, heads, new, width)` and returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None:
            room = max(self._capacity, end)
            self._buffers = (_roomy(key_states, room), _roomy(value_states, room))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps only these rows."""
        if self._buffers is None:
            return
        end = self.get_seq_length()
        keys, values = (buffer[indices] for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]


def preallocated_cache(config: Any, capacity: int) -> DynamicCache:
    """A cache for at most `capacity` tokens a row; layers of other kinds stay the library's own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        PreallocatedLayer(capacity) if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
    return cache


def _roomy(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return torch.empty(rows, heads, capacity, width, dtype=states.dtype, device=states.device)

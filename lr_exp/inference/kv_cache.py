"""A key-value cache with preallocated buffers that are written in place.

transformers' `DynamicCache` concatenates at every token, which copies the whole cache: with 250
rows of a tiny model that takes most of the decoding time.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of a full-attention layer in buffers of `capacity` tokens."""

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
            capacity = max(self._capacity, end)
            self._buffers = _empty(key_states, capacity), _empty(value_states, capacity)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self._buffers is None:
            return
        end = self.get_seq_length()
        keys, values = (buffer[beam_idx] for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]


def preallocated_cache(config: Any, capacity: int) -> DynamicCache:
    """A cache of `capacity` tokens per row; only full-attention layers are preallocated."""
    cache = DynamicCache(config=config)
    cache.layers = [
        PreallocatedLayer(capacity) if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
    return cache


def _empty(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return states.new_empty(rows, heads, capacity, width)

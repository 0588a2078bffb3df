"""A key-value cache with buffers that are written in place, and whose rows can be replaced.

transformers' `DynamicCache` concatenates at every token, which copies the whole cache: with 250
rows of a tiny model that takes most of the decoding time.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Tokens by which a full buffer grows, at most. A copy costs as much memory again until it is done.
_MAX_GROWTH = 512


class BufferedLayer(DynamicLayer):
    """Keys and values of a full-attention layer, at the start of buffers that may be longer."""

    def __init__(self, growth: int) -> None:
        super().__init__()
        self._growth = growth
        self._buffers: list[Tensor] = []  # keys and values `(rows, heads, capacity, width)`

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends `(rows, heads, new, width)` and returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._buffers or self._buffers[0].shape[-2] < end:
            old = self._buffers
            self._buffers = [
                one.new_empty(*one.shape[:2], end + self._growth, one.shape[-1])
                for one in (key_states, value_states)
            ]
            for buffer, before in zip(self._buffers, old, strict=False):
                buffer[:, :, :start] = before[:, :, :start]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._set_length(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps the rows of these indices, int64 `(kept,)`."""
        length = self.get_seq_length()
        self._buffers = [buffer[beam_idx] for buffer in self._buffers]
        self._set_length(length)

    def drop(self, columns: int) -> None:
        """Removes the first tokens of every row."""
        length = self.get_seq_length() - columns
        self._buffers = [buffer[:, :, columns:] for buffer in self._buffers]
        self._set_length(length)

    def join(self, other: "BufferedLayer") -> None:
        """Adds the rows of another layer; shorter rows get zeros before their first token."""
        own, new = self.get_seq_length(), other.get_seq_length()
        length, rows = max(own, new), len(self._buffers[0])
        for index, old in enumerate(self._buffers):
            added = other._buffers[index][:, :, :new]
            shape = rows + len(added), old.shape[1], length + self._growth, old.shape[3]
            joined = self._buffers[index] = old.new_empty(shape)
            # Zeros, because masked values are multiplied by 0, which leaves NaN and infinity.
            joined[:, :, :length] = 0
            joined[:rows, :, length - own : length] = old[:, :, :own]
            joined[rows:, :, length - new : length] = added
        self._set_length(length)

    def _set_length(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)
        return self.keys, self.values


def buffered_cache(config: Any, new_tokens: int) -> tuple[DynamicCache, bool]:
    """A cache for a prompt and new tokens; and whether all layers are buffered (full attention)."""
    cache, growth = DynamicCache(config=config), min(new_tokens, _MAX_GROWTH)
    cache.layers = [
        BufferedLayer(growth) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache, all(isinstance(layer, BufferedLayer) for layer in cache.layers)

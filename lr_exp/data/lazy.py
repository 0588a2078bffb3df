"""Sequences whose items are created on access."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """Base class; a subclass defines `__len__` and `_at`."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))

    def _at(self, index: int) -> T:
        """The item at a valid index from 0."""
        raise NotImplementedError


class Blocks(Lazy[T]):
    """A sequence created in blocks, of which the two most recently used ones are cached.

    Reading in order, or nearly in order, creates each block once.
    """

    def __init__(self, count: int, size: int, make: Callable[[int], Sequence[T]]) -> None:
        """A sequence of `count` items.

        Args:
            count: number of items.
            size: items in each block but the last.
            make: returns the block of a number, from 0; always the same one.
        """
        self._count, self._size = count, size
        self._block = lru_cache(maxsize=2)(make)

    def __len__(self) -> int:
        return self._count

    def _at(self, index: int) -> T:
        number, offset = divmod(index, self._size)
        return self._block(number)[offset]


class Repeated(Lazy[T]):
    """Each item of a sequence `times` times in a row, without copies."""

    def __init__(self, items: Sequence[T], times: int) -> None:
        self._items, self._times = items, times

    def __len__(self) -> int:
        return len(self._items) * self._times

    def _at(self, index: int) -> T:
        return self._items[index // self._times]

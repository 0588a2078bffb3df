"""Sequences that are not there as a whole: their parts are made when they are asked for.

Knows indices and how to forget; what an item is, and where it comes from, is its maker's business.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are made when they are asked for."""

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
        """The item at an index from 0, which there is."""
        raise NotImplementedError


class Blocks(Lazy[T]):
    """A sequence that is made block by block; the last few blocks that were read stay.

    Gone through in order, or out of order among neighbours, each block is made once.
    """

    def __init__(
        self, count: int, size: int, make: Callable[[int], Sequence[T]], *, held: int = 2
    ) -> None:
        """A sequence of `count` items.

        Args:
            size: of every block but the last one.
            make: gives the block of a number; the same one whenever it is asked.
            held: blocks in memory at most.
        """
        self._count, self._size = count, size
        self._block = lru_cache(maxsize=held)(make)

    def __len__(self) -> int:
        return self._count

    def _at(self, index: int) -> T:
        number, place = divmod(index, self._size)
        return self._block(number)[place]


class Repeated(Lazy[T]):
    """Every item of a sequence so many times in a row, none of them copied."""

    def __init__(self, items: Sequence[T], times: int) -> None:
        self._items, self._times = items, times

    def __len__(self) -> int:
        return len(self._items) * self._times

    def _at(self, index: int) -> T:
        return self._items[index // self._times]

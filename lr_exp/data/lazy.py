"""Sequences whose items are created on access."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence of `count` items, which `make` returns for an index from 0."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        numbers = range(self._count)[index]
        return self._make(numbers) if isinstance(numbers, int) else [*map(self._make, numbers)]


def in_blocks(count: int, size: int, make: Callable[[int], Sequence[T]]) -> Lazy[T]:
    """A sequence created in blocks of `size` items, of which the last two used ones are cached.

    Reading in order, or nearly in order, creates each block once. `make` returns the block of a
    number, from 0; always the same one.
    """
    block = lru_cache(maxsize=2)(make)
    return Lazy(count, lambda index: block(index // size)[index % size])


def repeated(items: Sequence[T], times: int) -> Lazy[T]:
    """Each item of a sequence `times` times in a row, without copies."""
    return Lazy(len(items) * times, lambda index: items[index // times])

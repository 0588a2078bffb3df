"""Sequences whose items are created on access."""

from collections.abc import Callable, Sequence
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


def repeated(items: Sequence[T], times: int) -> Lazy[T]:
    """Each item of a sequence `times` times in a row, without copies."""
    return Lazy(len(items) * times, lambda index: items[index // times])

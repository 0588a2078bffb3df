"""Measures peak memory, and halves batches that do not fit."""

import gc
import logging
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from lr_exp.errors import UserError
from lr_exp.models.packing import groups_within

log = logging.getLogger(__name__)

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
# torch has an exception class for accelerators only; on a CPU the message must be matched.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

T = TypeVar("T")
R = TypeVar("R")


def reset_peak_memory() -> None:
    """Resets the peak and frees memory left by an earlier run of this process."""
    free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only; elsewhere the peak is the process's
        _CLEAR.write_text("5", "ascii")  # resets VmHWM


def peak_memory_bytes(device: str) -> int:
    """Peak memory allocated on a GPU, or the process's peak resident set."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = _STATUS.read_text("ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def free_memory() -> None:
    """Frees memory of a failed attempt. Call it after the `except` block, not inside: the
    traceback keeps the failed frames' tensors alive.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _MESSAGES)


class AdaptiveBatchSize:
    """A batch size that is halved when memory runs out and never grows again."""

    def __init__(self, size: int, what: str, advice: str) -> None:
        """For messages: the stage and unit, "rollout: questions", and what a user can change."""
        self._size, self._what, self._advice = size, what, advice
        self._warned = False

    def run(
        self,
        items: Sequence[T],
        work: Callable[[Sequence[T]], list[R]],
        size: Callable[[T], int],
    ) -> list[R]:
        """Joins the results of `work` on parts of the items that fit in memory.

        Args:
            items: to split; a single one cannot be split.
            work: takes consecutive items.
            size: what an item counts towards the batch size.

        Raises UserError: a single item does not fit.
        """
        results: list[R] = []
        place = 0
        while place < len(items):
            sizes = [size(item) for item in items[place:]]
            count = len(next(groups_within(sizes, self._size)))
            part = items[place : place + count]
            done = self._attempt(partial(work, part), sum(sizes[:count]), count == 1)
            if done is not None:
                results += done
                place += count
        return results

    def run_with_limit(self, count: int, work: Callable[[int], list[R]]) -> list[R]:
        """The results of `work`, which takes the batch size: `count` at most.

        Raises UserError: 1 does not fit.
        """
        results: list[R] | None = None
        while results is None:
            limit = min(count, self._size)
            results = self._attempt(partial(work, limit), limit, limit == 1)
        return results

    def _attempt(self, work: Callable[[], R], size: int, is_smallest: bool) -> R | None:
        """Runs `work`; None if it needs more memory than there is, and the size is halved."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if is_smallest:
                raise UserError(
                    f"{self._what}: even the smallest batch does not fit in memory; {self._advice}."
                ) from error
        free_memory()
        self._size = max(1, size // 2)
        if not self._warned:
            message = "%s: a batch of %d does not fit in memory; trying smaller ones."
            log.warning(message, self._what, size)
            self._warned = True
        return None

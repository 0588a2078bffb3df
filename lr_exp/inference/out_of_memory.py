"""Handles out-of-memory errors by halving the batch."""

import gc
import logging

import torch

from lr_exp.errors import UserError

log = logging.getLogger(__name__)

# torch has an exception class for accelerators only; on a CPU the message must be matched.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that the CPU or an accelerator ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _MESSAGES)


def free_memory() -> None:
    """Frees memory of a failed attempt. Call it after the `except` block, not inside: the
    traceback keeps the failed frames' tensors alive.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class AdaptiveBatchSize:
    """A batch size that is halved when memory runs out and never grows again."""

    def __init__(self, size: int, what: str, advice: str) -> None:
        """Args:
        size: initial batch size.
        what: the stage and unit for messages, such as "rollout: questions".
        advice: what to change if a batch of one does not fit.
        """
        self.size = size
        self._what = what
        self._advice = advice
        self._warned = False

    def halve(self, tried: int, error: BaseException) -> None:
        """Sets the size to half of the batch that failed; warns the first time.

        Raises:
            UserError: the failed batch was a single item.
        """
        if tried <= 1:
            raise UserError(
                f"{self._what}: even the smallest batch does not fit in memory; {self._advice}."
            ) from error
        self.size = max(1, tried // 2)
        if not self._warned:
            log.warning(
                "%s: a batch of %d does not fit in memory; trying smaller ones.",
                self._what,
                tried,
            )
            self._warned = True

"""What happens when memory runs out: half as much is tried, and that is said once.

Knows torch's errors; knows nothing of what is being tried.
"""

import gc
import logging

import torch

from lr_exp.errors import UserError

log = logging.getLogger(__name__)

# torch has a class of its own for accelerators only; on a CPU the allocator's text is all there is.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def free_memory() -> None:
    """Gives back what a failed try has left. To be called after its `except` block, not inside:
    the error's traceback holds the tensors of the frames that it passed.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class AdaptiveBatch:
    """How much is tried at once. Once halved it stays so: what follows is of the same kind."""

    def __init__(self, size: int, what: str, advice: str) -> None:
        """Args:
        size: the most that is tried at once.
        what: what is tried and in which unit, for the warning: "rollout: questions".
        advice: what to change where even one does not fit.
        """
        self.size = size
        self._what = what
        self._advice = advice
        self._told = False

    def halve(self, tried: int, error: BaseException) -> None:
        """Tries half of what has just failed from now on.

        Raises:
            UserError: one alone did not fit.
        """
        if tried <= 1:
            raise UserError(
                f"{self._what}: even the smallest part does not fit in memory; {self._advice}."
            ) from error
        self.size = max(1, tried // 2)
        if not self._told:
            log.warning(
                "%s: %d at once do not fit in memory; half as many are tried, and so on.",
                self._what,
                tried,
            )
            self._told = True

"""Statistics of a selection: how far the two models diverge, and which positions were kept."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_exp.sampler.step_table import Columns

_EDGES = np.linspace(0, 5, 51)  # nats
_LOW_KL, _HIGH_KL = 0.1, 0.4  # nats; the paper reports the shares below and above
_BIN_TOKENS, _MAX_BINS = 8, 32  # of the profile by position


class Counts:
    """Counts of one selection, and running sums over its scored positions, a shard at a time."""

    def __init__(self, *, scored: bool) -> None:
        self._scored = scored  # whether there is a step table
        self.answers = self.steps = self.kept = 0
        self._steps_at = np.zeros(_MAX_BINS, dtype=np.int64)  # by position in the answer
        self._kept_at = np.zeros(_MAX_BINS, dtype=np.int64)
        self._sums: defaultdict[str, float] = defaultdict(float)  # of nats, and of positions
        self._kl_max = -math.inf  # nats
        self._histogram = np.zeros(len(_EDGES) - 1, dtype=np.int64)

    def add(self, answers: int, columns: Columns, keep: NDArray[np.bool_]) -> None:
        """Adds a shard: its number of answers, its positions, and which of them are kept."""
        step = columns["step"]
        self.answers += answers
        self.steps += len(step)
        self.kept += int(keep.sum())
        self._steps_at += _by_position(step)
        self._kept_at += _by_position(step[keep])
        if not self._scored:
            return
        kl, same = columns["kl"], columns["expert_top1"] == columns["amateur_top1"]
        for name, values in {
            "same": same,
            "low": kl < _LOW_KL,
            "high": kl > _HIGH_KL,
            "kl": kl,
            "kl_same": kl[same],
            "kl_other": kl[~same],
            "expert_entropy": columns["expert_entropy"],
            "amateur_entropy": columns["amateur_entropy"],
        }.items():
            self._sums[name] += float(values.sum(dtype=np.float64))
        self._kl_max = max(self._kl_max, float(kl.max(initial=-math.inf)))
        self._histogram += np.histogram(np.clip(kl, 0, _EDGES[-1] - 1e-6), bins=_EDGES)[0]

    def profile(self) -> dict[str, Any]:
        """The facts of the selection, as `summary.json` has them.

        Means are over all scored positions, in nats; a mean over none is None, and so is every
        figure that needs an amateur. The histogram has bins of 0.1 nat from 0, the last one open.
        `by_position` has bins of 8 generated tokens, at most 32, the last one then open.
        """
        steps_at = np.trim_zeros(self._steps_at, "b").tolist()
        return {
            "answers": self.answers,
            "steps": self.steps,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.steps),
            "by_position": {
                "bin_tokens": _BIN_TOKENS,
                "steps": steps_at,
                "kept": self._kept_at[: len(steps_at)].tolist(),
            },
            **(self._divergences() if self._scored else {"kl_mean": None, "kl_max": None}),
        }

    def _divergences(self) -> dict[str, Any]:
        sums, steps = self._sums, self.steps
        return {
            "kl_mean": _share(sums["kl"], steps),
            "kl_max": self._kl_max if steps else None,
            "kl_mean_same_top1": _share(sums["kl_same"], sums["same"]),
            "kl_mean_other_top1": _share(sums["kl_other"], steps - sums["same"]),
            "share_same_top1": _share(sums["same"], steps),
            "share_below_0.1": _share(sums["low"], steps),
            "share_above_0.4": _share(sums["high"], steps),
            "expert_entropy_mean": _share(sums["expert_entropy"], steps),
            "amateur_entropy_mean": _share(sums["amateur_entropy"], steps),
            "histogram": {"bin_nats": 0.1, "counts": self._histogram.tolist()},
        }


def _by_position(step: NDArray[Any]) -> NDArray[np.int64]:
    bins = np.minimum(step.astype(np.int64) // _BIN_TOKENS, _MAX_BINS - 1)
    return np.bincount(bins, minlength=_MAX_BINS)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None

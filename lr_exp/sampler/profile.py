"""Statistics of a selection: how far the two models diverge, and which positions were kept."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_exp.sampler.step_table import Columns

_EDGES = np.linspace(0, 5, 51)  # nats
_LOW_KL, _HIGH_KL = 0.1, 0.4  # nats; the paper reports the shares below and above
_BIN_TOKENS, _MAX_BINS = 8, 32  # of the profile by position


class Divergences:
    """Running sums over scored positions, one shard at a time."""

    def __init__(self) -> None:
        self.steps = self.same_top1 = self.low = self.high = 0
        self.kl = self.kl_same = self.kl_other = 0.0  # nats
        self.expert_entropy = self.amateur_entropy = 0.0  # nats
        self.kl_max = -math.inf  # nats
        self.counts = np.zeros(len(_EDGES) - 1, dtype=np.int64)

    def add(self, steps: Columns) -> None:
        """Adds a shard's positions."""
        kl, same = steps["kl"], steps["expert_top1"] == steps["amateur_top1"]
        self.steps += len(kl)
        self.same_top1 += int(same.sum())
        self.low += int((kl < _LOW_KL).sum())
        self.high += int((kl > _HIGH_KL).sum())
        self.kl += _sum(kl)
        self.kl_same += _sum(kl[same])
        self.kl_other += _sum(kl[~same])
        self.expert_entropy += _sum(steps["expert_entropy"])
        self.amateur_entropy += _sum(steps["amateur_entropy"])
        self.kl_max = max(self.kl_max, float(kl.max(initial=-math.inf)))
        self.counts += np.histogram(np.clip(kl, 0, _EDGES[-1] - 1e-6), bins=_EDGES)[0]

    def facts(self) -> dict[str, Any]:
        """Means in nats and shares; see `Counts.profile`."""
        return {
            "kl_mean": _share(self.kl, self.steps),
            "kl_max": self.kl_max if self.steps else None,
            "kl_mean_same_top1": _share(self.kl_same, self.same_top1),
            "kl_mean_other_top1": _share(self.kl_other, self.steps - self.same_top1),
            "share_same_top1": _share(self.same_top1, self.steps),
            "share_below_0.1": _share(self.low, self.steps),
            "share_above_0.4": _share(self.high, self.steps),
            "expert_entropy_mean": _share(self.expert_entropy, self.steps),
            "amateur_entropy_mean": _share(self.amateur_entropy, self.steps),
            "histogram": {"bin_nats": 0.1, "counts": self.counts.tolist()},
        }


def _no_positions() -> NDArray[np.int64]:
    return np.zeros(_MAX_BINS, dtype=np.int64)


@dataclass
class Counts:
    """Counts of one selection."""

    answers: int = 0
    steps: int = 0
    kept: int = 0
    steps_at: NDArray[np.int64] = field(default_factory=_no_positions)  # by position in the answer
    kept_at: NDArray[np.int64] = field(default_factory=_no_positions)
    divergences: Divergences | None = None  # None without a step table

    def add(self, answers: int, step: NDArray[Any], keep: NDArray[np.bool_]) -> None:
        """Adds a shard: its number of answers, and of each position the place and whether kept."""
        self.answers += answers
        self.steps += len(step)
        self.kept += int(keep.sum())
        self.steps_at += _by_position(step)
        self.kept_at += _by_position(step[keep])

    def profile(self) -> dict[str, Any]:
        """The facts of the selection, as `summary.json` has them.

        Means are over all scored positions, in nats; a mean over none is None, and so is every
        figure that needs an amateur. The histogram has bins of 0.1 nat from 0, the last one open.
        `by_position` has bins of 8 generated tokens, at most 32, the last one then open.
        """
        steps_at = np.trim_zeros(self.steps_at, "b").tolist()
        unscored = {"kl_mean": None, "kl_max": None}
        return {
            "answers": self.answers,
            "steps": self.steps,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.steps),
            "by_position": {
                "bin_tokens": _BIN_TOKENS,
                "steps": steps_at,
                "kept": self.kept_at[: len(steps_at)].tolist(),
            },
            **(unscored if self.divergences is None else self.divergences.facts()),
        }


def _by_position(step: NDArray[Any]) -> NDArray[np.int64]:
    bins = np.minimum(step.astype(np.int64) // _BIN_TOKENS, _MAX_BINS - 1)
    return np.bincount(bins, minlength=_MAX_BINS)


def _sum(values: NDArray[Any]) -> float:
    return float(values.sum(dtype=np.float64))


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None

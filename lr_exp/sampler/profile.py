"""Statistics of a selection: divergences, the kept positions, and what their labels can teach."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lr_exp.sampler.step_table import Columns

_EDGES = np.linspace(0, 5, 51)  # nats
_LOW_KL, _HIGH_KL = 0.1, 0.4  # nats; the paper reports the shares below and above
_BIN_TOKENS, _MAX_BINS = 8, 32  # of the profile by position

SCORES = ("support_ids", "support_expert")  # columns of the step table that `effect_of` reads


class Effect(NamedTuple):
    """What a label can teach the expert."""

    is_choice: bool  # it has several tokens
    is_moving: bool  # its most probable token is not the expert's; a tie is not moving
    loss: float  # KL(label ‖ expert) before training, nats; NaN if not recorded


def effect_of(label: Mapping[int, float], scores: Mapping[str, Any]) -> Effect:
    """The effect of a label (weights by token id) at a position with these scores (its row)."""
    expert = dict(zip(scores["support_ids"], scores["support_expert"], strict=True))
    top = max(expert.values())
    confirming = max(label.get(token, 0.0) for token, value in expert.items() if value == top)
    terms = (w * (math.log(w) - expert.get(token, math.nan)) for token, w in label.items())
    return Effect(len(label) > 1, max(label.values()) > confirming, sum(terms))


class _Histogram:
    """Positions, and the sums of their values, by value in nats; the last bin is open."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(_EDGES) - 1, dtype=np.int64)
        self.nats = np.zeros(len(_EDGES) - 1)

    def add(self, values: NDArray[Any]) -> None:
        clipped = np.clip(values, 0, _EDGES[-1] - 1e-6)
        self.counts += np.histogram(clipped, bins=_EDGES)[0]
        self.nats += np.histogram(clipped, bins=_EDGES, weights=values.astype(np.float64))[0]

    def to_dict(self) -> dict[str, Any]:
        nats = self.nats.round(6).tolist()
        return {"bin_nats": 0.1, "counts": self.counts.tolist(), "nats": nats}


class Counts:
    """Counts of one selection, and running sums over its scored positions, a shard at a time."""

    def __init__(self, *, scored: bool, beta: float | None = None) -> None:
        """`beta`: of a rule that drops conflicts above it, which are then counted."""
        self._scored = scored  # whether there is a step table
        self._beta = beta
        self.answers = self.steps = self.kept = self._above_beta = 0
        self._steps_at = np.zeros(_MAX_BINS, dtype=np.int64)  # by position in the answer
        self._kept_at = np.zeros(_MAX_BINS, dtype=np.int64)
        self._sums: defaultdict[str, float] = defaultdict(float)  # of nats, and of positions
        self._kl_max = -math.inf  # nats
        self._kl = _Histogram()
        self._loss = _Histogram()
        self._labelled = self._choice = self._moving = 0  # kept and scored positions
        self._moving_loss = self._total_loss = 0.0  # nats

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
        entropies = {name: columns[name] for name in ("expert_entropy", "amateur_entropy")}
        shares = {"same": same, "low": kl < _LOW_KL, "high": kl > _HIGH_KL}
        divergences = {"kl": kl, "kl_same": kl[same], "kl_other": kl[~same]}
        for name, values in {**entropies, **shares, **divergences}.items():
            self._sums[name] += float(values.sum(dtype=np.float64))
        self._above_beta += int((kl > self._beta).sum()) if self._beta is not None else 0
        self._kl_max = max(self._kl_max, float(kl.max(initial=-math.inf)))
        self._kl.add(kl)

    def add_label(self, label: Mapping[int, float], scores: Mapping[str, Any]) -> None:
        effect = effect_of(label, scores)
        self._labelled += 1
        self._choice += effect.is_choice
        self._moving += effect.is_moving
        self._total_loss += effect.loss
        self._moving_loss += effect.loss if effect.is_moving else 0.0
        self._loss.add(np.array([effect.loss]))

    def profile(self) -> dict[str, Any]:
        """The facts of the selection, as `summary.json` has them.

        Means are over all scored positions, in nats; a mean over none is None, and so is every
        figure that needs an amateur. The histograms have bins of 0.1 nat from 0, the last one open,
        with the sum of their values; that of the loss before training has 0 for steps not kept.
        `by_position` has bins of 8 generated tokens, at most 32, the last one then open.
        """
        steps_at = np.trim_zeros(self._steps_at, "b").tolist()
        return {
            "answers": self.answers,
            "steps": self.steps,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.steps),
            **({} if self._beta is None else {"conflicts": self._above_beta - self.kept}),
            "by_position": {
                "bin_tokens": _BIN_TOKENS,
                "steps": steps_at,
                "kept": self._kept_at[: len(steps_at)].tolist(),
            },
            **(self._divergences() if self._scored else {"kl_mean": None, "kl_max": None}),
            **(self._effects() if self._labelled else {}),
        }

    def _effects(self) -> dict[str, Any]:
        """What the labels can teach, if positions were scored and the method has a target."""
        loss, share = self._loss.to_dict(), _share(self._moving_loss, self._total_loss)
        loss["counts"][0] += self.steps - self._labelled  # which have no loss
        is_known = not math.isnan(self._total_loss)
        return {
            "choice": self._choice,
            "choice_of_kept": _share(self._choice, self._labelled),
            "choice_of_all": _share(self._choice, self.steps),
            "moving": self._moving,
            "moving_of_kept": _share(self._moving, self._labelled),
            "moving_of_all": _share(self._moving, self.steps),
            "moving_loss_share": share if is_known else None,
            "loss_histogram": loss if is_known else None,
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
            "histogram": self._kl.to_dict(),
        }


def _by_position(step: NDArray[Any]) -> NDArray[np.int64]:
    bins = np.minimum(step.astype(np.int64) // _BIN_TOKENS, _MAX_BINS - 1)
    return np.bincount(bins, minlength=_MAX_BINS)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None

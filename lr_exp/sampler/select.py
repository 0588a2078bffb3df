"""Selection: from the step table to supervision, by arithmetic alone.

Knows alpha, beta and the method; needs no model. A sweep over them re-runs nothing else.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.settings import MethodSettings
from lr_exp.shards import read_shard, shard_paths
from lr_exp.supervision import SupervisedTrajectory, Supervision

VERSION = 1

_EDGES = np.linspace(0, 5, 51)  # nats

Label = tuple[list[int], list[float]]  # token ids and their weights


@dataclass(frozen=True)
class Selection:
    """Supervision, and the divergences of all steps it was chosen from."""

    supervision: Supervision
    kl: NDArray[np.float32]  # (steps,) nats, every scored step
    questions: int  # answered
    same_top1: NDArray[np.bool_]  # (steps,) both models' top tokens agree


def select(
    trajectories: Path, steps: Path, method: MethodSettings, *, alpha: float, beta: float
) -> Selection:
    """Keeps the method's steps (Eq. 3) and labels them (Eq. 4-6).

    Args:
        trajectories, steps: folders of the rollout's and the scoring's shards, number by number.
        method: which steps and which target.
        alpha: plausibility threshold, at or above the table's floor.
        beta: divergence threshold in nats.
    """
    kept: list[tuple[int, SupervisedTrajectory]] = []
    all_kl: list[float] = []
    questions = 0
    same_top1: list[bool] = []
    for trajectory_shard, step_shard in zip(
        shard_paths(trajectories), shard_paths(steps), strict=True
    ):
        answers = {row["index"]: row for row in read_shard(trajectory_shard)}
        rows = read_shard(step_shard)
        questions += len(answers)
        all_kl += [row["kl"] for row in rows]
        same_top1 += [row["expert_top1"] == row["amateur_top1"] for row in rows]
        by_answer: dict[int, list[dict[str, Any]]] = {}
        for row in _kept_rows(rows, method.steps, beta):
            by_answer.setdefault(row["index"], []).append(row)
        for index, chosen in by_answer.items():
            kept.append((index, _supervise(answers[index], chosen, method.target, alpha)))
    kept.sort(key=lambda pair: pair[0])  # the questions' order, not the batches'
    return Selection(
        Supervision([trajectory for _, trajectory in kept]),
        np.array(all_kl, dtype=np.float32),
        questions,
        np.array(same_top1, dtype=bool),
    )


def profile(selection: Selection) -> dict[str, Any]:
    """Headline numbers of a selection and of the divergences behind it, for tables and plots.

    `kl_mean` and its fellows are over all scored steps, in nats; a mean over no step is None. The
    histogram has bins of 0.1 nat from 0, the last one open.
    """
    kl, same = selection.kl, selection.same_top1
    counts, _ = np.histogram(np.clip(kl, 0, _EDGES[-1] - 1e-6), bins=_EDGES)
    return {
        "questions": selection.questions,
        "steps": len(kl),
        "kept": selection.supervision.kept,
        "kept_share": selection.supervision.kept / len(kl) if len(kl) else None,
        "kl_mean": _mean(kl),
        "kl_max": float(kl.max()) if len(kl) else None,
        "kl_mean_same_top1": _mean(kl[same]),
        "kl_mean_other_top1": _mean(kl[~same]),
        "share_same_top1": _mean(same),
        "share_below_0.1": _mean(kl < 0.1),
        "share_above_0.4": _mean(kl > 0.4),
        "histogram": {"bin_nats": 0.1, "counts": counts.tolist()},
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _kept_rows(rows: list[dict[str, Any]], which: str, beta: float) -> Iterable[dict[str, Any]]:
    if which == "all" or not rows:
        return rows
    keep = contrast.informative(torch.tensor([row["kl"] for row in rows]), beta)
    return [row for row, kept in zip(rows, keep.tolist(), strict=True) if kept]


def _supervise(
    answer: dict[str, Any], rows: list[dict[str, Any]], target: str, alpha: float
) -> SupervisedTrajectory:
    labels = _own_tokens(rows) if target == "token" else _soft_labels(rows, alpha)
    prompt = answer["prompt_ids"]
    return SupervisedTrajectory(
        question_id=answer["question_id"],
        question=answer["question"],
        input_ids=[*prompt, *answer["token_ids"][: rows[-1]["step"]]],
        prompt_length=len(prompt),
        steps=[row["step"] for row in rows],
        kl=[row["kl"] for row in rows],
        target_ids=[ids for ids, _ in labels],
        target_weights=[weights for _, weights in labels],
    )


def _own_tokens(rows: list[dict[str, Any]]) -> list[Label]:
    return [([row["token_id"]], [1.0]) for row in rows]


def _soft_labels(rows: list[dict[str, Any]], alpha: float) -> list[Label]:
    expert = _padded([row["support_expert"] for row in rows])
    amateur = _padded([row["support_amateur"] for row in rows])
    mask = contrast.plausible(expert, alpha)  # padding, at -inf, is never plausible
    weights = contrast.soft_label(contrast.contrast_score(expert, amateur), mask)
    labels = []
    for row, keep, row_weights in zip(rows, mask, weights, strict=True):
        chosen = keep.nonzero().squeeze(-1)
        ids = [row["support_ids"][entry] for entry in chosen.tolist()]
        labels.append((ids, row_weights[chosen].tolist()))
    return labels


def _padded(supports: list[list[float]]) -> torch.Tensor:
    """Ragged log-probabilities as `(steps, support)`, padded with -inf."""
    rows = [torch.tensor(values) for values in supports]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-math.inf)

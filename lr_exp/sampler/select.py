"""Selection: from trajectories and the step table to supervision, by arithmetic alone.

Knows alpha, beta and the method; needs no model. A sweep over them re-runs nothing else.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.sampler.choose import Measures, choose_steps, read_measures
from lr_exp.settings import MethodSettings
from lr_exp.shards import read_shard, shard_paths
from lr_exp.supervision import SCHEMA, SupervisedTrajectory, Supervision

VERSION = 3

_EDGES = np.linspace(0, 5, 51)  # nats
# The shares that the paper tells of its divergences, in nats.
_QUIET, _LOUD = 0.1, 0.4
_POSITION_BIN, _POSITION_BINS = 8, 32  # tokens, and how many bins at most
_NO_AMATEUR = math.nan  # the divergence of a step that no amateur was asked about

Label = tuple[list[int], list[float]]  # token ids and their weights


@dataclass(frozen=True)
class Selection:
    """Supervision, and the measures of all steps it was chosen from."""

    supervision: Supervision
    answers: int
    steps: int
    measures: Measures | None  # None where no amateur was asked
    steps_at: NDArray[np.int64]  # number of steps by position, see `_by_position`
    kept_at: NDArray[np.int64]  # of them kept


def select(
    trajectories: Path,
    steps: Path,
    method: MethodSettings,
    *,
    alpha: float,
    beta: float,
    seed: int = 0,
) -> Selection:
    """Keeps the method's steps (Eq. 3) and labels them (Eq. 4-6).

    Args:
        trajectories, steps: folders of the rollout's and the scoring's shards, number by number.
        method: which steps and which target.
        alpha: plausibility threshold, at or above the table's floor.
        beta: divergence threshold in nats.
        seed: of the steps that are drawn at random.
    """
    measures = read_measures(steps)
    keep = choose_steps(measures, method, beta=beta, seed=seed)
    columns = ["index", "step", "token_id", "kl"]
    if method.target == "contrast":
        columns += ["support_ids", "support_expert", "support_amateur"]
    kept = _Collected()
    answers = start = 0
    for trajectory_shard, step_shard in zip(
        shard_paths(trajectories), shard_paths(steps), strict=True
    ):
        by_index = {row["index"]: row for row in read_shard(trajectory_shard)}
        answers += len(by_index)
        table = pq.ParquetFile(step_shard).read(columns)
        chosen = table.filter(pa.array(keep[start : start + len(table)])).to_pylist()
        start += len(table)
        kept.add(
            (index, _supervise(by_index[index], rows, method.target, alpha))
            for index, rows in _by_answer(chosen)
        )
    return Selection(
        kept.in_order(),
        answers,
        len(measures),
        measures,
        _by_position(measures.step),
        _by_position(measures.step[keep]),
    )


def select_tokens(trajectories: Path, method: MethodSettings) -> Selection:
    """Keeps the method's steps with their own tokens as labels: no amateur is asked.

    For methods whose choices compare no two models (`MethodSettings.needs_amateur`).
    """
    kept = _Collected()
    answers = steps = 0
    steps_at, kept_at = _by_position(np.empty(0)), _by_position(np.empty(0))
    for shard in shard_paths(trajectories):
        chosen = []
        for answer in read_shard(shard):
            length = len(answer["token_ids"])
            answers, steps = answers + 1, steps + length
            count = min(length, method.first) if method.steps == "first" else length
            steps_at += _by_position(np.arange(length))
            kept_at += _by_position(np.arange(count))
            if count == 0:
                continue
            rows = [
                {"step": step, "token_id": answer["token_ids"][step], "kl": _NO_AMATEUR}
                for step in range(count)
            ]
            chosen.append((answer["index"], _supervise(answer, rows, "token", alpha=1.0)))
        kept.add(chosen)
    return Selection(kept.in_order(), answers, steps, None, steps_at, kept_at)


def profile(selection: Selection) -> dict[str, Any]:
    """Headline numbers of a selection and of the divergences behind it, for tables and plots.

    `kl_mean` and its fellows are over all scored steps, in nats; a mean over no step is None, and
    so is all that an amateur would be needed for. The histogram has bins of 0.1 nat from 0, the
    last one open; `by_position` has bins of 8 generated tokens, as many as there are steps for, and
    at most 32, the last one then open.
    """
    kept, steps, measures = selection.supervision.kept, selection.steps, selection.measures
    steps_at = np.trim_zeros(selection.steps_at, "b").tolist()
    facts: dict[str, Any] = {
        "answers": selection.answers,
        "steps": steps,
        "kept": kept,
        "kept_share": kept / steps if steps else None,
        "by_position": {
            "bin_tokens": _POSITION_BIN,
            "steps": steps_at,
            "kept": selection.kept_at[: len(steps_at)].tolist(),
        },
        "kl_mean": None,
        "kl_max": None,
    }
    if measures is None:
        return facts
    kl, same = measures.kl, measures.expert_top1 == measures.amateur_top1
    counts, _ = np.histogram(np.clip(kl, 0, _EDGES[-1] - 1e-6), bins=_EDGES)
    return {
        **facts,
        "kl_mean": _mean(kl),
        "kl_max": float(kl.max()) if len(kl) else None,
        "kl_mean_same_top1": _mean(kl[same]),
        "kl_mean_other_top1": _mean(kl[~same]),
        "share_same_top1": _mean(same),
        "share_below_0.1": _mean(kl < _QUIET),
        "share_above_0.4": _mean(kl > _LOUD),
        "expert_entropy_mean": _mean(measures.expert_entropy),
        "amateur_entropy_mean": _mean(measures.amateur_entropy),
        "histogram": {"bin_nats": 0.1, "counts": counts.tolist()},
    }


def _by_position(steps: NDArray[Any]) -> NDArray[np.int64]:
    """How many of these steps (tokens generated before each) fall into each bin."""
    bins = np.minimum(steps.astype(np.int64) // _POSITION_BIN, _POSITION_BINS - 1)
    return np.bincount(bins, minlength=_POSITION_BINS)


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _by_answer(rows: list[dict[str, Any]]) -> Iterable[tuple[int, list[dict[str, Any]]]]:
    by_answer: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_answer.setdefault(row["index"], []).append(row)
    return by_answer.items()


class _Collected:
    """Supervised answers, a shard at a time, as tables: as Python's objects they would fill memory.

    Shards hold answers in the batches' order; supervision has them in the questions'.
    """

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._tables = [SCHEMA.empty_table()]

    def add(self, answers: Iterable[tuple[int, SupervisedTrajectory]]) -> None:
        """Takes a shard's answers, each with its question's index."""
        pairs = list(answers)
        self._indices += [index for index, _ in pairs]
        rows = [vars(trajectory) for _, trajectory in pairs]
        self._tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))

    def in_order(self) -> Supervision:
        """All of them."""
        order = np.argsort(self._indices, kind="stable")
        return Supervision(pa.concat_tables(self._tables).take(pa.array(order)))


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

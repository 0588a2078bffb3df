"""Selection: from trajectories and the step table to supervision, by arithmetic alone.

Knows alpha, beta and the method; needs no model. A sweep over them re-runs nothing else. Shards are
gone through one by one, and what is kept leaves window by window: a few hundred answers are in
memory, whether there are a thousand or millions.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.config.settings import MethodSettings
from lr_exp.inference.generation import WINDOW
from lr_exp.sampler.choose import Measures, chosen_by_shard
from lr_exp.sampler.supervision import SCHEMA, SupervisedTrajectory, Supervision, SupervisionWriter
from lr_exp.store.shards import read_shard, shard_paths

VERSION = 4

_EDGES = np.linspace(0, 5, 51)  # nats
# The shares that the paper tells of its divergences, in nats.
_QUIET, _LOUD = 0.1, 0.4
_POSITION_BIN, _POSITION_BINS = 8, 32  # tokens, and how many bins at most
_NO_AMATEUR = math.nan  # the divergence of a step that no amateur was asked about

Label = tuple[list[int], list[float]]  # token ids and their weights


def _no_positions() -> NDArray[np.int64]:
    return np.zeros(_POSITION_BINS, dtype=np.int64)


class Divergences:
    """Sums over the measures of steps that are shown a shard at a time."""

    def __init__(self) -> None:
        self.steps = self.same = self.quiet = self.loud = 0
        self.kl = self.kl_same = self.kl_other = 0.0  # nats
        self.expert_entropy = self.amateur_entropy = 0.0  # nats
        self.highest = -math.inf  # nats
        self.counts = np.zeros(len(_EDGES) - 1, dtype=np.int64)

    def add(self, measures: Measures) -> None:
        """Takes a shard's steps."""
        kl, same = measures.kl, measures.expert_top1 == measures.amateur_top1
        self.steps += len(kl)
        self.same += int(same.sum())
        self.quiet += int((kl < _QUIET).sum())
        self.loud += int((kl > _LOUD).sum())
        self.kl += _sum(kl)
        self.kl_same += _sum(kl[same])
        self.kl_other += _sum(kl[~same])
        self.expert_entropy += _sum(measures.expert_entropy)
        self.amateur_entropy += _sum(measures.amateur_entropy)
        self.highest = max(self.highest, float(kl.max(initial=-math.inf)))
        self.counts += np.histogram(np.clip(kl, 0, _EDGES[-1] - 1e-6), bins=_EDGES)[0]

    def facts(self) -> dict[str, Any]:
        """Means and shares, as `profile` tells them."""
        return {
            "kl_mean": _share(self.kl, self.steps),
            "kl_max": self.highest if self.steps else None,
            "kl_mean_same_top1": _share(self.kl_same, self.same),
            "kl_mean_other_top1": _share(self.kl_other, self.steps - self.same),
            "share_same_top1": _share(self.same, self.steps),
            "share_below_0.1": _share(self.quiet, self.steps),
            "share_above_0.4": _share(self.loud, self.steps),
            "expert_entropy_mean": _share(self.expert_entropy, self.steps),
            "amateur_entropy_mean": _share(self.amateur_entropy, self.steps),
            "histogram": {"bin_nats": 0.1, "counts": self.counts.tolist()},
        }


@dataclass
class Counts:
    """What is counted while steps are chosen."""

    answers: int = 0
    steps: int = 0
    kept: int = 0
    steps_at: NDArray[np.int64] = field(default_factory=_no_positions)  # see `_by_position`
    kept_at: NDArray[np.int64] = field(default_factory=_no_positions)  # of them kept
    divergences: Divergences | None = None  # None where no amateur was asked

    def profile(self) -> dict[str, Any]:
        """Headline numbers of a selection and of the divergences behind it, for tables and plots.

        `kl_mean` and its fellows are over all scored steps, in nats; a mean over no step is None,
        and so is all that an amateur would be needed for. The histogram has bins of 0.1 nat from 0,
        the last one open; `by_position` has bins of 8 generated tokens, as many as there are steps
        for, and at most 32, the last one then open.
        """
        steps_at = np.trim_zeros(self.steps_at, "b").tolist()
        measured = {"kl_mean": None, "kl_max": None}
        return {
            "answers": self.answers,
            "steps": self.steps,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.steps),
            "by_position": {
                "bin_tokens": _POSITION_BIN,
                "steps": steps_at,
                "kept": self.kept_at[: len(steps_at)].tolist(),
            },
            **(measured if self.divergences is None else self.divergences.facts()),
        }


@dataclass(frozen=True)
class Selection:
    """Supervision in memory, and what was counted on the way."""

    supervision: Supervision
    counts: Counts


def select(
    trajectories: Path,
    steps: Path,
    method: MethodSettings,
    *,
    alpha: float,
    beta: float,
    seed: int = 0,
) -> Selection:
    """What `write` writes, in memory: for a few answers, to look at or to try something on."""
    counts = Counts(divergences=Divergences())
    parts = _scored(trajectories, steps, method, counts, alpha=alpha, beta=beta, seed=seed)
    return _in_memory(parts, counts)


def select_tokens(trajectories: Path, method: MethodSettings) -> Selection:
    """As `select`, for methods whose choices compare no two models."""
    counts = Counts()
    return _in_memory(_unscored(trajectories, method, counts), counts)


def write(
    trajectories: Path,
    steps: Path | None,
    method: MethodSettings,
    folder: Path,
    *,
    alpha: float,
    beta: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Keeps the method's steps (Eq. 3), labels them (Eq. 4-6) and writes them as supervision.

    Args:
        trajectories, steps: folders of the rollout's and the scoring's shards, number by number.
            Without steps, for methods whose choices compare no two models
            (`MethodSettings.needs_amateur`), labels are the kept steps' own tokens.
        method: which steps and which target.
        folder: gets the supervision's file.
        alpha: plausibility threshold, at or above the table's floor.
        beta: divergence threshold in nats.
        seed: of the steps that are drawn at random.

    Returns:
        Facts: those of `Counts.profile`, and the supervision's `digest`.
    """
    counts = Counts(divergences=Divergences() if steps is not None else None)
    if steps is None:
        parts = _unscored(trajectories, method, counts)
    else:
        parts = _scored(trajectories, steps, method, counts, alpha=alpha, beta=beta, seed=seed)
    with SupervisionWriter(folder) as writer:
        for part in parts:
            writer.add(part)
    return {**counts.profile(), "digest": writer.digest()}


def _in_memory(parts: Iterator[pa.Table], counts: Counts) -> Selection:
    supervision = Supervision(pa.concat_tables([SCHEMA.empty_table(), *parts]))
    return Selection(supervision, counts)


def _scored(
    trajectories: Path,
    steps: Path,
    method: MethodSettings,
    counts: Counts,
    *,
    alpha: float,
    beta: float,
    seed: int,
) -> Iterator[pa.Table]:
    columns = ["index", "step", "token_id", "kl"]
    if method.target == "contrast":
        columns += ["support_ids", "support_expert", "support_amateur"]
    kept = _InOrder()
    for trajectory_shard, step_shard, (measures, keep) in zip(
        shard_paths(trajectories),
        shard_paths(steps),
        chosen_by_shard(steps, method, beta=beta, seed=seed),
        strict=True,
    ):
        by_index = {row["index"]: row for row in read_shard(trajectory_shard)}
        counts.answers += len(by_index)
        counts.steps += len(measures)
        counts.kept += int(keep.sum())
        counts.steps_at += _by_position(measures.step)
        counts.kept_at += _by_position(measures.step[keep])
        if counts.divergences is not None:
            counts.divergences.add(measures)
        if keep.any():
            table = pq.ParquetFile(step_shard).read(columns)
            chosen = table.filter(pa.array(keep)).to_pylist()
            yield from kept.add(
                (index, _supervise(by_index[index], rows, method.target, alpha))
                for index, rows in _by_answer(chosen)
            )
    yield from kept.rest()


def _unscored(trajectories: Path, method: MethodSettings, counts: Counts) -> Iterator[pa.Table]:
    kept = _InOrder()
    for shard in shard_paths(trajectories):
        chosen = []
        for answer in read_shard(shard):
            length = len(answer["token_ids"])
            count = min(length, method.first) if method.steps == "first" else length
            counts.answers, counts.steps = counts.answers + 1, counts.steps + length
            counts.kept += count
            counts.steps_at += _by_position(np.arange(length))
            counts.kept_at += _by_position(np.arange(count))
            if count == 0:
                continue
            rows = [
                {"step": step, "token_id": answer["token_ids"][step], "kl": _NO_AMATEUR}
                for step in range(count)
            ]
            chosen.append((answer["index"], _supervise(answer, rows, "token", alpha=1.0)))
        yield from kept.add(chosen)
    yield from kept.rest()


def _by_position(steps: NDArray[Any]) -> NDArray[np.int64]:
    """How many of these steps (tokens generated before each) fall into each bin."""
    bins = np.minimum(steps.astype(np.int64) // _POSITION_BIN, _POSITION_BINS - 1)
    return np.bincount(bins, minlength=_POSITION_BINS)


def _sum(values: NDArray[Any]) -> float:
    return float(values.sum(dtype=np.float64))


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _by_answer(rows: list[dict[str, Any]]) -> Iterable[tuple[int, list[dict[str, Any]]]]:
    by_answer: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_answer.setdefault(row["index"], []).append(row)
    return by_answer.items()


class _InOrder:
    """Supervised answers on their way from the batches' order into the questions'.

    A batch takes its answers from one window, and one window's batches follow the other's
    (`generation.batches_by_length`): what was gathered of a window leaves when the next one begins.
    It is held as tables: as Python's objects it would fill memory.
    """

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._tables: list[pa.Table] = []
        self._left = -1  # the highest index that has left

    def add(self, answers: Iterable[tuple[int, SupervisedTrajectory]]) -> Iterator[pa.Table]:
        """Takes a shard's answers, each with its question's index; gives what is complete."""
        pairs = list(answers)
        if not pairs:
            return
        first = min(index for index, _ in pairs)
        if self._indices and first // WINDOW > max(self._indices) // WINDOW:
            yield from self.rest()
        if first <= self._left:
            raise ValueError(f"the shard of answer {first} comes after that of {self._left}")
        self._indices += [index for index, _ in pairs]
        rows = [vars(trajectory) for _, trajectory in pairs]
        self._tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))

    def rest(self) -> Iterator[pa.Table]:
        """What is still held."""
        if not self._indices:
            return
        order = np.argsort(self._indices, kind="stable")
        table = pa.concat_tables(self._tables).combine_chunks().take(pa.array(order))
        self._left = max(self._indices)
        self._indices, self._tables = [], []
        yield table


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

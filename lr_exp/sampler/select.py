"""Selection: trajectories and the step table to supervision, without a model.

Shards are read one by one and written window by window, so that memory holds a few hundred answers
whatever the number of questions.
"""

import math
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lr_exp.config.method import POSITION, BoundChoice, Method
from lr_exp.inference.generation import WINDOW
from lr_exp.sampler.profile import SCORES, Counts
from lr_exp.sampler.step_table import Columns, kept_by_shard
from lr_exp.sampler.supervision import SupervisedTrajectory, as_table, write_supervision
from lr_exp.store.shards import read_shard, read_table, shard_paths

VERSION = 7


def write(
    trajectories: Path,
    steps: Path | None,
    method: Method,
    folder: Path,
    *,
    student_prompt: Callable[[str], list[int]] | None = None,
) -> dict[str, Any]:
    """Applies the method's step rule (Eq. 3) and target (Eq. 4-6); writes the supervision.

    Args:
        trajectories, steps: folders of the rollout's and of the step table's shards, which have
            the same numbers; steps is None for methods that read no column of the table.
        method: its alpha is at or above the table's floor.
        student_prompt: renders a question's prompt for the student; None for the expert's prompt.

    Returns:
        Facts: those of `Counts.profile`, and the supervision's `digest`.
    """
    of_rule = method.select.arguments
    beta = of_rule["beta"] if "conflict" in of_rule else None
    counts = Counts(scored=steps is not None, beta=beta)

    def supervised() -> Iterator[pa.Table]:
        shards = shard_paths(trajectories)
        step_shards = [None] * len(shards) if steps is None else shard_paths(steps)
        masks = kept_by_shard(trajectories, steps, method.select)
        for shard, step_shard, (columns, keep) in zip(shards, step_shards, masks, strict=True):
            answers = {row["index"]: row for row in read_shard(shard)}
            counts.add(len(answers), columns, keep)
            if not answers:
                continue
            table = _positions(columns, step_shard, method.target)
            rows = table.filter(pa.array(keep)).to_pylist()
            if student_prompt is not None:
                for answer in answers.values():
                    answer["prompt_ids"] = student_prompt(answer["question"])
            by_answer = {i: list(kept) for i, kept in groupby(rows, itemgetter("index"))}
            made = [_supervise(answers[i], kept, method.target) for i, kept in by_answer.items()]
            labels = (label for one in made for label in one.labels)
            for label, row in zip(labels, rows, strict=True):
                if label and step_shard is not None:
                    counts.add_label(label, row)
            others = answers.keys() - by_answer.keys()  # without a kept position
            yield as_table([*made, *(_supervise(answers[i], [], method.target) for i in others)])

    # The batches of one window of questions are complete before those of the next begin
    # (`generation.batches_by_length`), so only one window is held, as Arrow tables.
    windows = groupby(supervised(), key=lambda part: part["index"][0].as_py() // WINDOW)
    in_order = (pa.concat_tables(own).sort_by("index").combine_chunks() for _, own in windows)
    digest = write_supervision(in_order, folder)
    return {**counts.profile(), "digest": digest}


def _positions(columns: Columns, step_shard: Path | None, target: BoundChoice) -> pa.Table:
    if step_shard is not None:
        names = dict.fromkeys((*POSITION, "kl", *SCORES, *target.choice.columns))
        return read_table([step_shard], [*names])
    not_scored = np.full(len(columns["step"]), math.nan, dtype=np.float32)
    return pa.table({**columns, "kl": not_scored})


def _supervise(
    answer: dict[str, Any], rows: list[dict[str, Any]], target: BoundChoice
) -> SupervisedTrajectory:
    """The kept positions of an answer with their targets, which are empty without a target."""
    names = (*POSITION, *target.choice.columns)
    result = None
    if rows:
        result = target({name: _as_tensor([row[name] for row in rows]) for name in names})
    empty = torch.empty(len(rows), 0)
    ids, weights = (empty, empty) if result is None else result
    nonzero = [row > 0 for row in weights]
    prompt = answer["prompt_ids"]
    return SupervisedTrajectory(
        question_id=answer["question_id"],
        question=answer["question"],
        input_ids=[*prompt, *answer["token_ids"][: rows[-1]["step"] if rows else 0]],
        prompt_length=len(prompt),
        steps=[row["step"] for row in rows],
        kl=[row["kl"] for row in rows],
        target_ids=[row[some].tolist() for row, some in zip(ids, nonzero, strict=True)],
        target_weights=[row[some].tolist() for row, some in zip(weights, nonzero, strict=True)],
        index=answer["index"],
    )


def _as_tensor(values: list[Any]) -> Tensor:
    """Numbers as `(n,)`; ragged ids or log-probabilities as `(n, support)`, see `targets`."""
    if not isinstance(values[0], list):
        return torch.tensor(values)
    rows = [torch.tensor(row) for row in values]
    padding = -math.inf if rows[0].is_floating_point() else 0
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)

"""The kept steps of each optimizer step, and the packed passes that compute their loss."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from lr_exp.config.settings import DistillerSettings
from lr_exp.errors import UserError
from lr_exp.models.packing import groups_within, pack
from lr_exp.sampler.supervision import Supervision


@dataclass(frozen=True, order=True)
class KeptStep:
    """One kept step: a trajectory of the supervision, and which of its kept steps."""

    trajectory: int
    index: int


Plan = list[list[KeptStep]]  # of each optimizer step


def plan_batches(supervision: Supervision, settings: DistillerSettings, seed: int) -> Plan:
    """The kept steps of every optimizer step, fixed by the seed before training starts.

    Batches are filled from passes over all kept steps, each in a new order, so that each is used
    equally often (to within one). With `order` "trajectories" answers are shuffled and a batch
    takes neighboring kept steps, which share prefixes; with "steps" the kept steps are shuffled.

    With `batch_answers` a batch takes all kept steps of that many answers. The answers of each
    batch depend on the seed and the number of answers alone, not on which steps are kept; one
    without a kept step takes its place and is not read.

    Raises UserError: with `batch_answers`, an optimizer step without a kept step.
    """
    if supervision.kept == 0:
        raise ValueError("a supervision without a kept step cannot fill a batch")
    counts, rng, answers = supervision.kept_counts, random.Random(seed), settings.batch_answers
    if answers is not None:
        drawn = _passes([*range(len(counts))], rng)
        plan = [
            [step for one in islice(drawn, answers) for step in _steps_of(one, counts)]
            for _ in range(settings.steps)
        ]
        if [] in plan:
            raise UserError(
                f"distiller.batch_answers={answers}: optimizer step {plan.index([]) + 1} has no "
                "kept step. Raise distiller.batch_answers, or choose a method that keeps more."
            )
        return plan
    if settings.order == "trajectories":
        drawn = _passes(np.flatnonzero(counts).tolist(), rng)
        stream = (step for one in drawn for step in _steps_of(one, counts))
    else:
        ends = np.cumsum(counts)
        drawn = _passes([*range(supervision.kept)], rng)
        places = ((int(np.searchsorted(ends, one, side="right")), one) for one in drawn)
        stream = (KeptStep(place, one - int(ends[place] - counts[place])) for place, one in places)
    return [[*islice(stream, settings.batch_size)] for _ in range(settings.steps)]


def _passes(units: list[int], rng: random.Random) -> Iterator[int]:
    """Endless passes over answers or kept steps, by number: there can be millions."""
    while True:
        rng.shuffle(units)
        yield from units


def _steps_of(trajectory: int, counts: NDArray[np.int64]) -> list[KeptStep]:
    return [KeptStep(trajectory, index) for index in range(int(counts[trajectory]))]


def build_batch(
    supervision: Supervision, steps: list[KeptStep], tokens_per_pass: int
) -> dict[str, Any]:
    """The packed passes that compute the loss of these kept steps, each exactly once.

    A batch is `{"passes": [...], "kept_steps": int}`; each pass holds `input_ids` and
    `position_ids` `(1, tokens)`, `read_at` `(kept,)`, `target_ids` int64 and `target_weights`
    fp32 `(kept, support)`.
    """
    rows = []  # (trajectory, its kept steps of this batch)
    # Kept steps of one answer share its prefix. In a small supervision a batch may hold one twice.
    for index, group in groupby(sorted(steps), lambda step: step.trajectory):
        rows.append((supervision.trajectories[index], [step.index for step in group]))
    lengths = [max(t.read_at(k) for k in kept) + 1 for t, kept in rows]
    passes = []
    for chosen in groups_within(lengths, tokens_per_pass):
        packed = pack(
            [rows[i][0].input_ids[: lengths[i]] for i in chosen],
            [[rows[i][0].read_at(k) for k in rows[i][1]] for i in chosen],
        )
        kept = [(rows[i][0], k) for i in chosen for k in rows[i][1]]
        ids = [torch.tensor(t.target_ids[k], dtype=torch.int64) for t, k in kept]
        weights = [torch.tensor(t.target_weights[k], dtype=torch.float32) for t, k in kept]
        targets = {  # padding entries are id 0 with weight 0
            "target_ids": pad_sequence(ids, batch_first=True),
            "target_weights": pad_sequence(weights, batch_first=True),
        }
        passes.append({**vars(packed), **targets})
    return {"passes": passes, "kept_steps": len(steps)}


def tokens_read(supervision: Supervision, plan: Plan) -> int:
    """How many tokens the passes of all batches read: each prefix up to its last kept step."""
    lengths, starts = supervision.prefix_lengths, np.cumsum(supervision.kept_counts)
    starts -= supervision.kept_counts
    total = 0
    for batch in plan:
        longest: dict[int, int] = {}
        for step in batch:
            length = int(lengths[starts[step.trajectory] + step.index])
            longest[step.trajectory] = max(longest.get(step.trajectory, 0), length)
        total += sum(longest.values())
    return total


def assign_passes(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices of the passes that each of `count` ranks computes; some may have none.

    Greedy: the longest pass first, to the rank with the fewest tokens.
    """
    by_rank: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rank = tokens.index(min(tokens))
        by_rank[rank].append(index)
        tokens[rank] += lengths[index]
    return [sorted(passes) for passes in by_rank]

"""Reads columns of the step table and applies a step rule to it, shard by shard.

The support columns make up most of the table. A rule reads only the columns that it declares, so
rules that compare all positions of a run need about 40 bytes per position.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_exp.config.method import POSITION, BoundChoice
from lr_exp.store.shards import read_shard, read_table, shard_paths

Columns = dict[str, NDArray[Any]]

# Columns with one number for each position: `kl` and the entropies in nats.
MEASURES = (
    *("index", "step", "token_id", "kl", "expert_entropy", "amateur_entropy"),
    *("expert_top1", "amateur_top1"),
)


def read_columns(paths: Sequence[Path], names: Iterable[str]) -> Columns:
    """Columns of these shards as arrays, in the table's order."""
    table = read_table(paths, [*dict.fromkeys(names)])
    return {name: table[name].to_numpy() for name in table.column_names}


def read_positions(paths: Sequence[Path]) -> Columns:
    """The position columns of trajectories that were not scored."""
    answers = [answer for path in paths for answer in read_shard(path)]
    ids = [np.asarray(answer["token_ids"], dtype=np.int32) for answer in answers]
    lengths = [len(one) for one in ids]
    empty = [np.empty(0, dtype=np.int32)]
    return {
        "index": np.repeat(np.array([a["index"] for a in answers], dtype=np.int32), lengths),
        "step": np.concatenate(empty + [np.arange(n, dtype=np.int32) for n in lengths]),
        "token_id": np.concatenate(empty + ids),
    }


def kept_by_shard(
    trajectories: Path, steps: Path | None, rule: BoundChoice
) -> Iterator[tuple[Columns, NDArray[np.bool_]]]:
    """Each shard's columns, and its mask of kept positions as the rule (`step_rules`) decides.

    `trajectories` and `steps` are the folders of the rollout and of the step table; `steps` is None
    for a rule that reads no column of it.
    """
    paths = shard_paths(trajectories if steps is None else steps)
    declared = (*POSITION, *rule.choice.columns)

    def read(some: Sequence[Path], names: Iterable[str]) -> Columns:
        return read_positions(some) if steps is None else read_columns(some, names)

    compares_all = rule.choice.compares_all and paths
    mask = rule(read(paths, declared)) if compares_all else None
    for path in paths:
        columns = read([path], (*MEASURES, *declared))
        count = len(columns["step"])
        if mask is None:
            yield columns, rule({name: columns[name] for name in declared})
        else:
            yield columns, mask[:count]
            mask = mask[count:]

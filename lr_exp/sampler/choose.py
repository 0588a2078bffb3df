"""Which steps a method keeps, decided on one row of numbers a step.

Knows the step table's measures and the method; knows neither labels, prefixes nor models.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.config.settings import MethodSettings
from lr_exp.store.shards import shard_paths

_MEASURES = (
    "index",
    "step",
    "kl",
    "expert_entropy",
    "amateur_entropy",
    "expert_top1",
    "amateur_top1",
)

# Choices that compare every step with every other, and what they read of each: these numbers of all
# steps are in memory at once, with an order of the steps some 40 bytes each.
_AMONG_ALL = {
    "random": ("index", "step", "kl"),
    "entropy_top": ("index", "step", "kl", "expert_entropy"),
    "kl_top": ("index", "step", "kl"),
}


@dataclass(frozen=True)
class Measures:
    """Scored steps' numbers, shard after shard in the table's order.

    All `(steps,)`, or empty where they were not read.
    """

    index: NDArray[np.int32]  # the trajectory's place among the questions
    step: NDArray[np.int32]  # tokens generated before it
    kl: NDArray[np.float32]  # D_t in nats
    expert_entropy: NDArray[np.float32]  # nats
    amateur_entropy: NDArray[np.float32]  # nats
    expert_top1: NDArray[np.int32]
    amateur_top1: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.step)


def read_measures(steps: Path) -> Measures:
    """The whole step table without its supports, which are most of its size."""
    return _read(shard_paths(steps), _MEASURES)


def chosen_by_shard(
    steps: Path, method: MethodSettings, *, beta: float, seed: int
) -> Iterator[tuple[Measures, NDArray[np.bool_]]]:
    """Each shard's measures, and of its steps what `choose_steps` gives for the whole table.

    Only a choice among all steps reads all of them before the first shard's are told.
    """
    paths = shard_paths(steps)
    if method.steps not in _AMONG_ALL:
        for path in paths:
            measures = _read([path], _MEASURES)
            yield measures, choose_steps(measures, method, beta=beta, seed=seed)
        return
    whole = _read(paths, _AMONG_ALL[method.steps])
    keep = choose_steps(whole, method, beta=beta, seed=seed)
    del whole
    start = 0
    for path in paths:
        measures = _read([path], _MEASURES)
        yield measures, keep[start : start + len(measures)]
        start += len(measures)


def _read(paths: Sequence[Path], names: Collection[str]) -> Measures:
    wanted = [name for name in _MEASURES if name in names]
    table = pa.concat_tables(pq.ParquetFile(path).read(wanted) for path in paths)
    unread: Any = np.empty(0)
    return Measures(
        **{name: table[name].to_numpy() if name in wanted else unread for name in _MEASURES}
    )


def choose_steps(
    measures: Measures, method: MethodSettings, *, beta: float, seed: int
) -> NDArray[np.bool_]:
    """True at the steps that are kept, `(steps,)`.

    `kl_above_beta` is Eq. 3. `random` and `entropy_top` keep as many steps as Eq. 3 would, so that
    only the choice differs; `kl_top` keeps `method.share` of all. Ties and draws go by question and
    step, so they do not depend on how the rollout was batched.
    """
    informative = contrast.informative(torch.from_numpy(measures.kl.copy()), beta).numpy()
    if method.steps == "kl_above_beta":
        return informative
    if method.steps == "all":
        return np.ones(len(measures), dtype=bool)
    if method.steps == "first":
        return measures.step < method.first
    order = np.lexsort((measures.step, measures.index))
    budget = int(informative.sum())
    if method.steps == "random":
        rng = np.random.default_rng(seed)
        chosen = order[rng.choice(len(order), size=budget, replace=False)]
    elif method.steps == "entropy_top":
        chosen = _highest(measures.expert_entropy, order, budget)
    elif method.steps == "kl_top":
        chosen = _highest(measures.kl, order, round(method.share * len(measures)))
    else:
        raise ValueError(f"there is no way to choose steps called {method.steps!r}")
    keep = np.zeros(len(measures), dtype=bool)
    keep[chosen] = True
    return keep


def _highest(values: NDArray[np.float32], order: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest values; of equal ones the first in `order`."""
    return order[np.argsort(-values[order], kind="stable")[:count]]

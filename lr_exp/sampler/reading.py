"""A sample of answers with both models' candidates at every token, for `trajectories.json.gz`.

Pages and W&B show this file; no stage reads it.
"""

import heapq
import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

from lr_exp import contrast
from lr_exp.models.vocabulary import text_of
from lr_exp.sampler.profile import effect_of
from lr_exp.sampler.supervision import read_answers
from lr_exp.store.shards import shard_paths

FORMAT_VERSION = 1  # of the file

_POOL = 160  # the first answers, from which the sample is taken
_MAX_ANSWERS = 48
_MAX_WRONG = 24  # unless there are too few right ones
_MAX_TOKENS = 1024  # of an answer
_MAX_BYTES = 1_000_000  # of the file
_TOP_TOKENS = 5  # of the expert, at each position; the amateur's are in the step table
_MAX_MASK_TOKENS = 8  # of the alpha-mask, at each position
_COLUMNS = (
    *("token", "kl", "kept", "expert_entropy", "amateur_entropy"),
    "same_top1",
    "mask_size",
    "moving",
    "candidates",
)
Row = dict[str, Any]  # of a table
Label = dict[int, float]  # weight by token id
Verdict = dict[str, Any]  # of an answer: `reference`, `predicted`, `correct`


def sample_for_display(
    trajectories: Path,
    steps: Path | None,
    supervision: Path,
    tokenizer: Any,
    *,
    alpha: float | None,
    verdict: Callable[[int, str], Verdict | None],
) -> dict[str, Any]:
    """A sample of answers with all their positions, as JSON.

    Args:
        trajectories, steps, supervision: folders of the answers, of the step table, if there is
            one, and of the kept steps.
        alpha: the mask's threshold; None for a method without a mask.
        verdict: grades an answer by its index and text; None without a reference.

    Returns:
        `answers_total` and `chosen` (which of them are included, in words), `tokens` (distinct
        texts, which positions refer to by index) and `answers`. In an answer, each of these lists
        has one entry per generated token: `token`, `kl`, `expert_entropy`, `amateur_entropy`
        (nats), `kept`, `same_top1` (0 or 1), `mask_size` (tokens), `moving` (0 or 1, see
        `effect_of`) and `candidates`; None where nothing was scored. A candidate is `[token,
        expert's probability, amateur's, in the mask (0 or 1), weight at kept steps]`.
    """
    total, chosen = _choose(trajectories, tokenizer, verdict)
    scored: dict[int, dict[int, dict[str, Any]]] = {row["index"]: {} for row, _ in chosen}
    kept = {
        one.index: dict(zip(one.steps, one.labels, strict=True))
        for one in read_answers(supervision, list(scored))
    }
    for scores in [] if steps is None else _rows(steps, list(scored)):
        scored[scores["index"]][scores["step"]] = scores
    display = _Display(tokenizer, alpha)
    answers: list[dict[str, Any]] = []
    size = 0
    for row, graded in chosen:
        index = row["index"]
        answer = display.answer(row, graded, scored[index], kept.get(index, {}))
        size += len(json.dumps(answer))
        if answers and size > _MAX_BYTES:
            break
        answers.append(answer)
    return {
        "version": FORMAT_VERSION,
        "alpha": alpha,
        "answers_total": total,
        "chosen": _description(answers, total),
        "tokens": list(display.places),
        "answers": answers,
    }


def _choose(
    trajectories: Path, tokenizer: Any, verdict: Callable[[int, str], Verdict | None]
) -> tuple[int, list[tuple[dict[str, Any], Verdict | None]]]:
    """The number of answers, and the rows of the sample with their grades."""
    indices = _dataset(trajectories).to_table(["index"])["index"].to_pylist()
    graded = [
        (row, verdict(row["index"], text_of(tokenizer, row["token_ids"])))
        for row in _rows(trajectories, heapq.nsmallest(_POOL, indices))
    ]
    missed = [i for i, (_, one) in enumerate(graded) if one and not one["correct"]]
    others = [i for i in range(len(graded)) if i not in missed]
    # Right and wrong answers, where there are both.
    few = missed[: max(_MAX_WRONG, _MAX_ANSWERS - len(others))]
    shown = sorted([*few, *others[: _MAX_ANSWERS - len(few)]])
    return len(indices), [graded[i] for i in shown]


def _description(answers: list[dict[str, Any]], total: int) -> str:
    if len(answers) == total:
        return f"all {total:,} answers"
    missed = sum(answer["correct"] is False for answer in answers)
    others = len(answers) - missed
    if not missed:
        return f"the first {others:,} of {total:,} answers"
    and_others = f" and the first {others:,} others" if others else ""
    return f"the first {missed:,} wrong answers{and_others}, of {total:,} answers"


def _dataset(folder: Path) -> ds.Dataset:
    return ds.dataset([str(path) for path in shard_paths(folder)], format="parquet")


def _rows(folder: Path, indices: list[int]) -> list[dict[str, Any]]:
    """The rows of these answers, by index; shards without any of them are not read."""
    table = _dataset(folder).to_table(filter=pc.field("index").isin(indices))
    return table.sort_by("index").to_pylist()


class _Display:
    """Answers as JSON, and the distinct texts of their tokens."""

    def __init__(self, tokenizer: Any, alpha: float | None) -> None:
        self.places: dict[str, int] = {}  # the index of each text
        self._alpha = alpha
        self._decode = lru_cache(maxsize=100_000)(
            lambda *ids: text_of(tokenizer, ids, special=True)
        )

    def answer(
        self, row: Row, verdict: Verdict | None, scored: dict[int, Row], kept: dict[int, Label]
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "id": row["question_id"],
            "question": row["question"],
            **(verdict or dict.fromkeys(("reference", "predicted", "correct"))),
            "finished": row.get("finished"),
            "tokens_total": len(row["token_ids"]),
        }
        before = [row["prompt_ids"][-1], *row["token_ids"]]
        steps = [
            self._step(before[step], token, scored.get(step), kept.get(step))
            for step, token in enumerate(row["token_ids"][:_MAX_TOKENS])
        ]
        return answer | {name: [step.get(name) for step in steps] for name in _COLUMNS}

    def _step(self, before: int, token: int, scores: Row | None, label: Label | None) -> Row:
        """The `_COLUMNS` of a token after the token `before`; those without a value are missing."""
        shown = {"token": self._place(before, token), "kept": int(label is not None)}
        if scores is None:
            weight = round(label[token], 4) if label and token in label else None
            only = [shown["token"], None, None, 0, weight]
            return {**shown, "candidates": [only] if label else []}
        mask = self._mask(scores)
        candidates = []
        for one, expert, amateur in _candidates(scores, mask):
            numbers = [round(math.exp(expert), 4), round(math.exp(amateur), 4), int(one in mask)]
            weight = round(label.get(one, 0.0), 4) if label is not None else None
            candidates.append([self._place(before, one), *numbers, weight])
        return {
            **shown,
            "kl": round(max(scores["kl"], 0.0), 4),
            "expert_entropy": round(scores["expert_entropy"], 4),
            "amateur_entropy": round(scores["amateur_entropy"], 4),
            "same_top1": int(scores["expert_top1"] == scores["amateur_top1"]),
            "mask_size": len(mask) if self._alpha is not None else None,
            "moving": int(effect_of(label, scores).is_moving) if label else None,
            "candidates": candidates,
        }

    def _place(self, before: int, token: int) -> int:
        """Index of a token's text, decoded after `before`: alone, some lose a leading space."""
        both, first = self._decode(before, token), self._decode(before)
        text = both[len(first) :] if both.startswith(first) else self._decode(token)
        return self.places.setdefault(text, len(self.places))

    def _mask(self, scores: Row) -> set[int]:
        """The ids in the alpha-mask (Eq. 4)."""
        if self._alpha is None:
            return set()
        plausible = contrast.plausible(torch.tensor(scores["support_expert"]), self._alpha).tolist()
        return {token for token, keep in zip(scores["support_ids"], plausible, strict=True) if keep}


def _candidates(scores: dict[str, Any], mask: set[int]) -> list[tuple[int, float, float]]:
    """Both models' top tokens and the mask: id and both log-probabilities, by the expert's."""

    def rows(*names: str) -> list[tuple[int, float, float]]:
        return list(zip(*(scores[name] for name in names), strict=True))

    support = rows("support_ids", "support_expert", "support_amateur")
    support.sort(key=lambda one: -one[1])
    shown = support[:_TOP_TOKENS]
    shown += [one for one in support[_TOP_TOKENS:_MAX_MASK_TOKENS] if one[0] in mask]
    known = {token for token, _, _ in shown}
    amateurs = rows("amateur_top_ids", "amateur_top_expert", "amateur_top_amateur")
    shown += [one for one in amateurs if one[0] not in known]
    return sorted(shown, key=lambda one: -one[1])

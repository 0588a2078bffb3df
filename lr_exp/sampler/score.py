"""Scoring: both models read the expert's answers, and every step is measured.

Knows two models and token ids; knows neither alpha nor beta. One teacher-forced pass of each model
over the very ids that were generated gives the distributions of all steps at once; of them only the
step table below is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from lr_exp import contrast
from lr_exp.errors import UserError
from lr_exp.models import LanguageModel
from lr_exp.packing import groups_within, pack, read_logits
from lr_exp.prompts import render_prompt
from lr_exp.shards import count_rows, read_shard, shard_path, shard_paths, write_shard
from lr_exp.vocabulary import SharedVocabulary

VERSION = 1

SCHEMA = pa.schema(
    [
        ("index", pa.int32()),  # the trajectory's question
        ("step", pa.int32()),  # tokens generated before this one, from 0
        ("token_id", pa.int32()),  # what the expert chose
        ("kl", pa.float32()),  # D_t in nats
        ("expert_entropy", pa.float32()),  # nats
        ("amateur_entropy", pa.float32()),  # nats
        ("expert_top1", pa.int32()),
        ("amateur_top1", pa.int32()),
        # The support: tokens with at least `floor` times the expert's top probability.
        ("support_ids", pa.list_(pa.int32())),
        ("support_expert", pa.list_(pa.float32())),  # log-probabilities
        ("support_amateur", pa.list_(pa.float32())),
    ]
)

# Steps that are measured at once: beside a pass's raw logits, the working set is a few such
# (steps, vocabulary) matrices in fp32.
_CHUNK = 256


@dataclass(frozen=True)
class StepScores:
    """Measures of consecutive steps; `support_rows` says whose each support entry is."""

    kl: Tensor  # (steps,) fp32 nats
    expert_entropy: Tensor  # (steps,) fp32 nats
    amateur_entropy: Tensor  # (steps,) fp32 nats
    expert_top1: Tensor  # (steps,) int64
    amateur_top1: Tensor  # (steps,) int64
    support_rows: Tensor  # (entries,) int64, ascending
    support_ids: Tensor  # (entries,) int64
    support_expert: Tensor  # (entries,) fp32
    support_amateur: Tensor  # (entries,) fp32


def score_steps(
    expert_logits: Tensor, amateur_logits: Tensor, shared: SharedVocabulary, floor: float
) -> StepScores:
    """Measures steps from both models' raw logits `(steps, rows)` (arXiv 2510.07962, Eq. 1-2)."""
    ids = shared.ids(expert_logits.device)
    expert = contrast.log_probs(shared.restrict(expert_logits))
    amateur = contrast.log_probs(shared.restrict(amateur_logits))
    rows, columns = contrast.plausible(expert, floor).nonzero(as_tuple=True)
    return StepScores(
        kl=contrast.kl_nats(expert, amateur),
        expert_entropy=contrast.entropy_nats(expert),
        amateur_entropy=contrast.entropy_nats(amateur),
        expert_top1=ids[expert.argmax(-1)],
        amateur_top1=ids[amateur.argmax(-1)],
        support_rows=rows,
        support_ids=ids[columns],
        support_expert=expert[rows, columns],
        support_amateur=amateur[rows, columns],
    )


def score(
    trajectories: Path,
    expert: LanguageModel,
    amateur: LanguageModel,
    shared: SharedVocabulary,
    folder: Path,
    *,
    system_prompt: str,
    support_floor: float,
    tokens_per_pass: int,
) -> dict[str, Any]:
    """Writes one shard of steps for each shard of trajectories; goes on where it was stopped.

    Returns:
        Facts: `steps`.
    """
    shards = shard_paths(trajectories)
    with tqdm(total=len(shards), desc="score", unit="shard", dynamic_ncols=True) as progress:
        for number, path in enumerate(shards):
            if not shard_path(folder, number).exists():
                rows = list(
                    _score_shard(
                        read_shard(path),
                        expert,
                        amateur,
                        shared,
                        system_prompt,
                        support_floor,
                        tokens_per_pass,
                    )
                )
                write_shard(folder, number, rows, SCHEMA)
            progress.update()
    return {"steps": sum(count_rows(path) for path in shard_paths(folder))}


def scored_length(token_ids: list[int], shared: SharedVocabulary) -> int:
    """Steps of an answer that both models read alike: all before the first id they do not share.

    The step that chose that id has a shared prefix, but what the expert wanted there has left the
    distribution: the rest, normalized, would be noise.
    """
    for step, token in enumerate(token_ids):
        if token not in shared:
            return step
    return len(token_ids)


def _score_shard(
    trajectories: list[dict[str, Any]],
    expert: LanguageModel,
    amateur: LanguageModel,
    shared: SharedVocabulary,
    system_prompt: str,
    floor: float,
    tokens_per_pass: int,
) -> Iterator[dict[str, Any]]:
    lengths = [scored_length(row["token_ids"], shared) for row in trajectories]
    amateur_prompts = [_amateur_prompt(amateur, row, system_prompt) for row in trajectories]
    sizes = [
        max(len(row["prompt_ids"]), len(prompt)) + length
        for row, prompt, length in zip(trajectories, amateur_prompts, lengths, strict=True)
    ]
    for group in groups_within(sizes, tokens_per_pass):
        group = [i for i in group if lengths[i]]
        if not group:
            continue
        logits = [
            _next_token_logits(
                model,
                [prompts[i] for i in group],
                [trajectories[i]["token_ids"][: lengths[i]] for i in group],
            )
            for model, prompts in (
                (expert, [row["prompt_ids"] for row in trajectories]),
                (amateur, amateur_prompts),
            )
        ]
        places = [(trajectories[i], step) for i in group for step in range(lengths[i])]
        for start in range(0, len(places), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            scores = score_steps(logits[0][chunk], logits[1][chunk], shared, floor)
            yield from _rows(places[chunk], scores, expert, amateur)
        del logits  # before the next pass makes its own


def _amateur_prompt(amateur: LanguageModel, row: dict[str, Any], system_prompt: str) -> list[int]:
    prompt = render_prompt(amateur.tokenizer, row["question"], system_prompt)
    if amateur.context is not None and len(prompt) + len(row["token_ids"]) > amateur.context:
        raise UserError(
            f"question {row['question_id']}: prompt and answer have "
            f"{len(prompt) + len(row['token_ids'])} tokens, and amateur {amateur.name} reads "
            f"{amateur.context} at most: lower sampler.max_new_tokens or remove the question."
        )
    return prompt


@torch.inference_mode()
def _next_token_logits(
    language_model: LanguageModel, prompts: list[list[int]], answers: list[list[int]]
) -> Tensor:
    """Logits `(steps, rows)` that predict every token of every answer, the first one included."""
    device = next(language_model.model.parameters()).device
    packed = pack(
        # An answer's last token is predicted, never read.
        [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)],
        # The logits at index i predict the token at i + 1.
        [
            range(len(prompt) - 1, len(prompt) - 1 + len(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ],
    )
    return read_logits(language_model.model, packed.to(device))


def _rows(
    places: list[tuple[dict[str, Any], int]],
    scores: StepScores,
    expert: LanguageModel,
    amateur: LanguageModel,
) -> Iterator[dict[str, Any]]:
    finite = torch.isfinite(scores.expert_entropy), torch.isfinite(scores.kl)
    for who, good in zip((f"expert {expert.name}", f"amateur {amateur.name}"), finite, strict=True):
        if not good.all():
            row, step = places[int((~good).nonzero()[0])]
            raise UserError(
                f"{who} gives logits that are not finite (NaN or infinite) at step {step} of "
                f"question {row['question_id']}: its weights are damaged, or the "
                "precision is too low; try dtype=float32."
            )
    ends = torch.bincount(scores.support_rows, minlength=len(places)).cumsum(0).tolist()
    columns = {
        "kl": scores.kl.tolist(),
        "expert_entropy": scores.expert_entropy.tolist(),
        "amateur_entropy": scores.amateur_entropy.tolist(),
        "expert_top1": scores.expert_top1.tolist(),
        "amateur_top1": scores.amateur_top1.tolist(),
    }
    support = {
        "support_ids": scores.support_ids.tolist(),
        "support_expert": scores.support_expert.tolist(),
        "support_amateur": scores.support_amateur.tolist(),
    }
    start = 0
    for place, (row, step) in enumerate(places):
        entries = slice(start, ends[place])
        yield {
            "index": row["index"],
            "step": step,
            "token_id": row["token_ids"][step],
            **{name: values[place] for name, values in columns.items()},
            **{name: values[entries] for name, values in support.items()},
        }
        start = ends[place]

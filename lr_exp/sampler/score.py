"""Scoring: both models' next-token distributions at every position of the expert's answers.

One teacher-forced pass of each model over the generated ids gives the distributions of all
positions of an answer. They are reduced to the step table, which depends on neither alpha nor beta.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from lr_exp import contrast, distributed
from lr_exp.errors import UserError
from lr_exp.inference.cpu_linear import prepacked_linear
from lr_exp.inference.memory import AdaptiveBatchSize
from lr_exp.models.early_exit import shared_layer_logits
from lr_exp.models.loading import LanguageModel, ModelPair
from lr_exp.models.packing import Pack, pack, pass_size, read_logits
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.progress import Progress
from lr_exp.sampler.cross_tokenizer import CrossTokenizer, Reader
from lr_exp.sampler.step_table import read_columns
from lr_exp.store.shards import (
    count_items,
    encoded,
    read_shard,
    shard_path,
    shard_paths,
    shard_sizes,
    write_encoded,
)

VERSION = 4

SCHEMA = pa.schema(
    [
        ("index", pa.int32()),  # of the trajectory
        ("step", pa.int32()),  # tokens generated before this one, from 0
        ("token_id", pa.int32()),  # the generated token
        ("kl", pa.float32()),  # D_t in nats
        ("expert_entropy", pa.float32()),  # nats
        ("amateur_entropy", pa.float32()),  # nats
        ("expert_top1", pa.int32()),
        ("amateur_top1", pa.int32()),
        # The support: tokens with at least `floor` times the expert's top probability.
        ("support_ids", pa.list_(pa.int32())),
        ("support_expert", pa.list_(pa.float32())),  # log-probabilities
        ("support_amateur", pa.list_(pa.float32())),
        # The amateur's most probable tokens in order, which may lie outside the expert's support.
        # Shown to readers; the step rule `kl_no_conflict` reads the first ones.
        ("amateur_top_ids", pa.list_(pa.int32())),
        ("amateur_top_expert", pa.list_(pa.float32())),  # log-probabilities
        ("amateur_top_amateur", pa.list_(pa.float32())),
    ]
)

_AMATEUR_TOP = 4

# Positions measured at once. The working set is a few (positions, vocabulary) fp32 matrices; small
# chunks stay in a CPU's cache (49,152 ids, one core, 128 positions: 0.17 s in chunks of 256, 0.07 s
# in chunks of 32). On a GPU each chunk costs a synchronization.
_CPU_CHUNK, _GPU_CHUNK = 32, 256
_ADVICE = (
    "lower sampler.max_new_tokens (an answer is scored whole), or take a smaller model or "
    "dtype=bfloat16"
)


def score_steps(
    expert_logits: Tensor,
    amateur_logits: Tensor,
    shared: SharedVocabulary,
    floor: float,
    push: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Measures positions from both models' raw logits `(steps, rows)`, Eq. 1-2.

    `push` replaces the logits of an amateur with another tokenizer.

    Returns:
        The measures in `SCHEMA`, `(steps,)` or `(steps, at most 4)`; the support of all positions,
        `(entries,)`; and `support_rows`, the ascending position of each entry. Ids are int64, other
        values fp32.
    """
    ids = shared.ids(expert_logits.device)
    expert = contrast.log_probs(shared.restrict(expert_logits, ids))
    mask = contrast.plausible(expert, floor)
    if push is None:
        amateur = contrast.log_probs(shared.restrict(amateur_logits, ids))
        kl = contrast.kl_nats(expert, amateur)
    else:
        amateur, kl = push(expert, mask)
    rows, columns = mask.nonzero(as_tuple=True)
    amateur_top, places = amateur.topk(min(_AMATEUR_TOP, amateur.shape[-1]), dim=-1)
    return {
        "kl": kl,
        "expert_entropy": contrast.entropy_nats(expert),
        "amateur_entropy": contrast.entropy_nats(amateur),
        "expert_top1": ids[expert.argmax(-1)],
        "amateur_top1": ids[amateur.argmax(-1)],
        "support_rows": rows,
        "support_ids": ids[columns],
        "support_expert": expert[rows, columns],
        "support_amateur": amateur[rows, columns],
        "amateur_top_ids": ids[places],
        "amateur_top_expert": expert.gather(-1, places),
        "amateur_top_amateur": amateur_top,
    }


def expert_top1_share(folder: Path) -> float:
    """The share of a step table's tokens that are the expert's most probable ones."""
    columns = read_columns(shard_paths(folder), ["token_id", "expert_top1"])
    matching = columns["token_id"] == columns["expert_top1"]
    return float(matching.mean()) if len(matching) else 1.0


def score(
    trajectories: Path,
    pair: ModelPair,
    folder: Path,
    *,
    prompt: Prompt,
    support_floor: float,
    tokens_per_pass: int,
    cross: CrossTokenizer | None = None,
) -> dict[str, Any]:
    """Writes one shard of the step table for each shard of trajectories.

    Resumes from finished shards. The ranks divide the shards; rank 0 writes.

    Returns:
        Facts: `steps`, and `flops` of both models (an early exit counts as a model of its own; with
        `cross`, as if the amateur read the expert's tokens once).

    Raises UserError: logits are not finite, or a trajectory does not fit in memory.
    """
    expert, amateur, shared = pair
    device = next(expert.model.parameters()).device.type
    size = pass_size(tokens_per_pass, device, packs=expert.packs and amateur.packs)
    batch = AdaptiveBatchSize(size, "score: tokens of a pass", _ADVICE)
    sizes, done = distributed.run_on_rank0(lambda: (shard_sizes(trajectories), shard_sizes(folder)))

    def measure(number: int) -> tuple[bytes, int]:
        answers = [
            _answer(row, steps, amateur, prompt, cross)
            for row in read_shard(shard_path(trajectories, number))
            if (steps := scored_length(row["token_ids"], shared))
        ]
        tables = batch.run(
            answers,
            lambda group: _score_group(group, pair, support_floor, size, cross),
            size=lambda answer: answer.size,
        )
        table = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        return encoded(table), table.num_rows

    found = sum(sizes[number] for number in done)
    with (
        Progress("score", sum(sizes.values()), "answer", found=found, also="token") as progress,
        prepacked_linear(expert.model, amateur.model),
    ):

        def keep(number: int, measured: tuple[bytes, int]) -> None:
            write_encoded(folder, number, measured[0])
            progress.add(sizes[number], also=measured[1])

        missing = (number for number in sizes if number not in done)
        distributed.distribute_jobs(missing, measure, keep)
    steps, prompts = distributed.run_on_rank0(
        lambda: (sum(shard_sizes(folder).values()), count_items(trajectories, "prompt_ids"))
    )
    flops = sum(model.forward_flops(prompts + steps) for model in (expert, amateur))
    return {"steps": steps, "flops": flops}


def scored_length(token_ids: list[int], shared: SharedVocabulary) -> int:
    """How many positions of an answer can be scored: those before the first id not shared.

    The position of that id has a shared prefix, but the expert's choice there is missing from the
    shared distribution, so the renormalized rest would be noise.
    """
    outside = (step for step, token in enumerate(token_ids) if token not in shared)
    return next(outside, len(token_ids))


def answer_logits(row: dict[str, Any], pair: ModelPair, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Both models' logits `(steps, shared)` at the scored positions of one trajectory."""
    steps = scored_length(row["token_ids"], pair.shared)
    answer = _answer(row, steps, pair.amateur, prompt)
    expert_logits, amateur_logits = _next_token_logits([answer], pair)
    return pair.shared.restrict(expert_logits), pair.shared.restrict(amateur_logits)


def mean_log_likelihoods(row: dict[str, Any], pair: ModelPair, prompt: Prompt) -> list[float]:
    """The expert's and the amateur's mean log-probability of a trajectory's tokens, in nats."""
    tokens = torch.tensor(row["token_ids"][: scored_length(row["token_ids"], pair.shared)])
    columns = torch.searchsorted(pair.shared.ids(), tokens)[:, None]
    return [
        contrast.log_probs(logits).gather(-1, columns.to(logits.device)).mean().item()
        for logits in answer_logits(row, pair, prompt)
    ]


@dataclass(frozen=True)
class _Answer:
    """A trajectory to score, as both models read it."""

    row: dict[str, Any]
    token_ids: list[int]  # at the scored positions
    amateur_prompt: list[int]
    amateur_ids: list[int]

    @property
    def size(self) -> int:
        """Tokens that it takes in a pass."""
        own = len(self.amateur_prompt) + len(self.amateur_ids)
        return max(len(self.row["prompt_ids"]) + len(self.token_ids), own)


def _score_group(
    group: Sequence[_Answer], pair: ModelPair, floor: float, size: int, cross: CrossTokenizer | None
) -> list[pa.Table]:
    """The step table of these answers in parts, from one pass of each model."""
    expert_logits, amateur_logits = _next_token_logits(group, pair)
    places = [(answer.row, step) for answer in group for step in range(len(answer.token_ids))]
    answers = ((one.amateur_prompt, one.amateur_ids, one.token_ids) for one in group)
    positions = cross.positions(answers) if cross else []
    reader = Reader(pair.amateur.model, amateur_logits, size)
    chunk = _CPU_CHUNK if expert_logits.device.type == "cpu" else _GPU_CHUNK
    tables = []
    for start in range(0, len(places), chunk):
        steps = slice(start, start + chunk)
        push = cross and partial(cross.score, positions[steps], reader)
        scores = score_steps(expert_logits[steps], amateur_logits[steps], pair.shared, floor, push)
        tables.append(_step_table(places[steps], scores, pair))
    return tables


def _answer(
    row: dict[str, Any],
    steps: int,
    amateur: LanguageModel,
    prompt: Prompt,
    cross: CrossTokenizer | None = None,
) -> _Answer:
    ids, scored = (
        render_prompt(amateur.tokenizer, row["question"], prompt),
        row["token_ids"][:steps],
    )
    own = cross.amateur_ids(scored) if cross else scored
    length = len(ids) + (len(own) if cross else len(row["token_ids"]))
    if amateur.context is not None and length > amateur.context:
        raise UserError(
            f"question {row['question_id']}: prompt and answer have {length} tokens, but "
            f"amateur {amateur.name} has a context of {amateur.context}: lower "
            "sampler.max_new_tokens or remove the question."
        )
    return _Answer(row, scored, ids, own)


@torch.inference_mode()
def _next_token_logits(group: Sequence[_Answer], pair: ModelPair) -> tuple[Tensor, Tensor]:
    """Both models' logits `(steps, rows)` that predict every scored token, the first included."""
    expert, amateur, _ = pair
    device = next(expert.model.parameters()).device
    expert_pack = _packed([(one.row["prompt_ids"], one.token_ids) for one in group]).to(device)
    amateur_pack = _packed([(one.amateur_prompt, one.amateur_ids) for one in group]).to(device)
    both = shared_layer_logits(expert, amateur, expert_pack, amateur_pack)
    if both is not None:
        return both
    return read_logits(expert.model, expert_pack), read_logits(amateur.model, amateur_pack)


def _packed(answers: Sequence[tuple[list[int], list[int]]]) -> Pack:
    # The last token of an answer is predicted but never read.
    rows = [[*prompt, *answer[:-1]] for prompt, answer in answers]
    # The logits at index i predict the token at i + 1.
    reads = [range(len(prompt) - 1, len(prompt) - 1 + len(ids)) for prompt, ids in answers]
    return pack(rows, reads)


def _step_table(
    places: list[tuple[dict[str, Any], int]], scores: dict[str, Tensor], pair: ModelPair
) -> pa.Table:
    """The step table of positions (each a trajectory and a step) from their scores."""
    models = {"expert_entropy": f"expert {pair.expert.name}", "kl": f"amateur {pair.amateur.name}"}
    for measure, who in models.items():
        finite = torch.isfinite(scores[measure])
        if not finite.all():
            row, step = places[int((~finite).nonzero()[0])]
            raise UserError(
                f"{who} gives logits that are not finite (NaN or infinite) at token position "
                f"{step} of the answer to question {row['question_id']}: its weights are damaged, "
                "or the precision is too low; try dtype=float32."
            )
    counts = torch.bincount(scores["support_rows"], minlength=len(places)).tolist()
    columns: dict[str, list[Any]] = {name: values.tolist() for name, values in scores.items()}
    for name in ("support_ids", "support_expert", "support_amateur"):
        columns[name] = [part.tolist() for part in scores[name].cpu().split(counts)]
    columns["index"] = [row["index"] for row, _ in places]
    columns["step"] = [step for _, step in places]
    columns["token_id"] = [row["token_ids"][step] for row, step in places]
    return pa.Table.from_pydict({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)

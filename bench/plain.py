"""The published loops, written plainly: what the fast paths are measured against and held to.

Knows causal models, token ids and the paper's equations (arXiv 2510.07962); uses nothing of the
project's own passes, packs, caches or losses. What the published loops do is kept (a forward pass
for every prefix, logits at every position, dense labels); their bugs are not: ids are never turned
into text and back, rows are read at their own last token, and the first token is a step too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# {(row, step): (D_t in nats, {token id: weight})}
Kept = dict[tuple[int, int], tuple[float, dict[int, float]]]

ROWS = 8  # of a training batch, as published


@dataclass(frozen=True)
class Sample:
    """One kept step as the published training loop reads it: a row of its own."""

    ids: Sequence[int]  # prompt and prefix
    target_ids: Sequence[int]
    weights: Sequence[float]  # sum to 1


@torch.no_grad()
def sample(
    expert: Any,
    amateur: Any,
    prompts: Sequence[Sequence[int]],
    amateur_prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    stop_ids: Sequence[int],
    alpha: float,
    beta: float,
    rows: int | None = None,
    prefixes_per_pass: int = 1,
) -> tuple[Kept, list[list[int]]]:
    """One question at a time: greedy generate, then the amateur on every prefix.

    Args:
        expert, amateur: causal models in evaluation mode, on one device.
        prompts, amateur_prompts: each question's ids, as each model is asked.
        rows: ids below it have tokens in both models (None: all that both have).
        prefixes_per_pass: how many prefixes of a question the amateur reads at once, right-padded
            (the published code's own setting is 64).

    Returns:
        The kept steps, and every answer's ids with its stop token.
    """
    kept: Kept = {}
    answers = []
    for place, (prompt, amateur_prompt) in enumerate(zip(prompts, amateur_prompts, strict=True)):
        answer, scores = generate(expert, prompt, new_tokens=new_tokens, stop_ids=stop_ids)
        answers.append(answer)
        experts = [score[:rows].softmax(-1) for score in scores]
        prefixes = [[*amateur_prompt, *answer[:step]] for step in range(len(answer))]
        amateurs = [
            row[:rows].softmax(-1)
            for start in range(0, len(prefixes), prefixes_per_pass)
            for row in _last_logits(amateur, prefixes[start : start + prefixes_per_pass])
        ]
        for step, (p, q) in enumerate(zip(experts, amateurs, strict=True)):
            size = min(len(p), len(q))
            p, q = p[:size], q[:size]
            # kl_div takes the second distribution's logarithm first.
            kl = functional.kl_div(q.log(), p, reduction="sum").item()
            if kl > beta:
                mask = p >= alpha * p.max()
                weights = (p[mask].log() - q[mask].log()).softmax(-1)
                ids = mask.nonzero().squeeze(-1).tolist()
                kept[place, step] = kl, dict(zip(ids, weights.tolist(), strict=True))
    return kept, answers


@torch.no_grad()
def generate(
    model: Any,
    prompt: Sequence[int],
    *,
    new_tokens: int,
    stop_ids: Sequence[int],
    keep_logits: bool = True,
) -> tuple[list[int], tuple[Tensor, ...]]:
    """The library's own greedy generate: the answer's ids, and each step's raw logits `(rows,)`."""
    ids = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,  # never used: there is one row
        output_logits=keep_logits,
        return_dict_in_generate=True,
    )
    answer = output.sequences[0, len(prompt) :].tolist()
    return answer, tuple(logits[0] for logits in output.logits or ())


def losses(model: Any, samples: Sequence[Sample], rows: int) -> Tensor:
    """KL(label || model) of each sample, `(samples,)` in nats: one right-padded batch.

    Full logits at every position, a dense label of `rows` ids, read at each row's own last token.
    """
    logits = _last_logits(model, [sample.ids for sample in samples])[:, :rows]
    labels = torch.zeros(len(samples), rows, dtype=logits.dtype)
    for place, one in enumerate(samples):
        labels[place, list(one.target_ids)] = torch.tensor(list(one.weights), dtype=logits.dtype)
    return functional.kl_div(
        logits.log_softmax(-1), labels.to(logits.device), reduction="none"
    ).sum(-1)


def train(
    model: Any, batches: Sequence[Sequence[Sample]], *, rows: int, learning_rate: float
) -> list[float]:
    """Tunes what of the model takes a gradient: one optimizer step a batch, by passes of `ROWS`.

    Returns:
        The loss of every optimizer step: the mean over its samples, in nats.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    seen = []
    for batch in batches:
        total = 0.0
        for start in range(0, len(batch), ROWS):
            loss = losses(model, batch[start : start + ROWS], rows).sum() / len(batch)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(total)
    return seen


def samples_of(supervision: Any) -> Iterator[Sample]:
    """Every kept step of a `Supervision`, trajectory by trajectory, as a row of its own."""
    for trajectory in supervision.trajectories:
        for kept in range(len(trajectory.steps)):
            yield Sample(
                trajectory.input_ids[: trajectory.read_at(kept) + 1],
                trajectory.target_ids[kept],
                trajectory.target_weights[kept],
            )


def _last_logits(model: Any, sequences: Sequence[Sequence[int]]) -> Tensor:
    """`(sequences, rows)` at each one's last token, of logits at every position of all of them."""
    device = next(model.parameters()).device
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(list(sequence))
        mask[row, : len(sequence)] = 1
    logits = model(ids.to(device), attention_mask=mask.to(device)).logits
    last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=device)
    return logits[torch.arange(len(sequences), device=device), last]

"""The published loops (arXiv 2510.07962) in plain code: reference for speed and correctness.

Uses none of the project's own batching, caches or losses. Like the published code, it runs a
forward pass per prefix, computes logits at every position and uses dense labels. It fixes three
bugs of the published code: ids are no longer decoded and re-encoded, each row is read at its own
last token, and the first token counts as a step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# {(row, step): (D_t in nats, {token id: weight})}
Kept = dict[tuple[int, int], tuple[float, dict[int, float]]]

ROWS = 8  # per training pass, as published


@dataclass(frozen=True)
class Sample:
    """One kept step, as a row of its own."""

    ids: Sequence[int]  # prompt and prefix
    target_ids: Sequence[int]
    weights: Sequence[float]  # sum to 1


@dataclass(frozen=True)
class Sampling:
    """Options of `sample`."""

    new_tokens: int
    stop_ids: Sequence[int]
    alpha: float
    beta: float
    rows: int | None = None  # ids below it are tokens of both models; None: all that both have
    prefixes_per_pass: int = 1  # right-padded; 64 in the published code


@torch.no_grad()
def sample(
    expert: Any,
    amateur: Any,
    prompts: Sequence[Sequence[int]],
    amateur_prompts: Sequence[Sequence[int]],
    options: Sampling,
) -> tuple[Kept, list[list[int]]]:
    """Per question, generates the expert's greedy answer, then runs the amateur on every prefix.

    Args:
        expert, amateur: causal models in evaluation mode, on one device.
        prompts, amateur_prompts: each question's prompt ids for each model.
        options: see `Sampling`.

    Returns:
        The kept steps, and every answer's ids with its stop token.
    """
    rows, batch = options.rows, options.prefixes_per_pass
    kept: Kept = {}
    answers = []
    for row, (prompt, amateur_prompt) in enumerate(zip(prompts, amateur_prompts, strict=True)):
        answer, scores = generate(
            expert, prompt, new_tokens=options.new_tokens, stop_ids=options.stop_ids
        )
        answers.append(answer)
        experts = [score[:rows].softmax(-1) for score in scores]
        prefixes = [[*amateur_prompt, *answer[:step]] for step in range(len(answer))]
        amateurs = [
            logits[:rows].softmax(-1)
            for start in range(0, len(prefixes), batch)
            for logits in _last_logits(amateur, prefixes[start : start + batch])
        ]
        for step, (p, q) in enumerate(zip(experts, amateurs, strict=True)):
            size = min(len(p), len(q))
            p, q = p[:size], q[:size]
            # KL(p || q): the first argument of kl_div is log q.
            kl = functional.kl_div(q.log(), p, reduction="sum").item()
            if kl > options.beta:
                mask = p >= options.alpha * p.max()
                weights = (p[mask].log() - q[mask].log()).softmax(-1)
                ids = mask.nonzero().squeeze(-1).tolist()
                kept[row, step] = kl, dict(zip(ids, weights.tolist(), strict=True))
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
    """Greedy `generate` of transformers: the answer's ids, and each step's raw logits `(rows,)`."""
    ids = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,  # unused with one row
        output_logits=keep_logits,
        return_dict_in_generate=True,
    )
    answer = output.sequences[0, len(prompt) :].tolist()
    return answer, tuple(logits[0] for logits in output.logits or ())


def losses(model: Any, samples: Sequence[Sample], rows: int) -> Tensor:
    """KL(label || model) of each sample, `(samples,)` in nats, in one right-padded batch.

    Computes logits at every position and reads each row's last token; labels are dense, of `rows`
    ids.
    """
    logits = _last_logits(model, [sample.ids for sample in samples])[:, :rows]
    labels = torch.zeros(len(samples), rows, dtype=logits.dtype)
    for row, sample in enumerate(samples):
        labels[row, list(sample.target_ids)] = torch.tensor(
            list(sample.weights), dtype=logits.dtype
        )
    return functional.kl_div(
        logits.log_softmax(-1), labels.to(logits.device), reduction="none"
    ).sum(-1)


def train(
    model: Any, batches: Sequence[Sequence[Sample]], *, rows: int, learning_rate: float
) -> list[float]:
    """Trains the parameters that require gradients, one optimizer step per batch.

    Returns:
        Each optimizer step's loss: the mean over its samples, in nats.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    step_losses = []
    for batch in batches:
        total = 0.0
        for start in range(0, len(batch), ROWS):
            loss = losses(model, batch[start : start + ROWS], rows).sum() / len(batch)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step_losses.append(total)
    return step_losses


def samples_of(supervision: Any) -> Iterator[Sample]:
    """Yields each kept step of a `Supervision` as a sample."""
    for trajectory in supervision.trajectories:
        for kept in range(len(trajectory.steps)):
            yield Sample(
                trajectory.input_ids[: trajectory.read_at(kept) + 1],
                trajectory.target_ids[kept],
                trajectory.target_weights[kept],
            )


def _last_logits(model: Any, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Logits at each sequence's last token, `(sequences, rows)`, computed at every position."""
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

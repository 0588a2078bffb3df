"""Rollout: the expert answers the questions, greedily or sampled, in batches of similar length.

Knows the expert only, or the engine that answers in its place. What it writes does not depend on
any amateur, on alpha or on beta.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp import distributed
from lr_exp.data.lazy import Blocks, Repeated
from lr_exp.data.questions import Question
from lr_exp.data.stored_questions import StoredQuestions
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate
from lr_exp.inference.generation import (
    WINDOW,
    DecodeBatch,
    decode_into_shards,
    engine_decoding,
    greedy_decoding,
    render_prompts,
    sampled_decoding,
)
from lr_exp.models.loading import LanguageModel

VERSION = 1

COLUMNS = [
    ("question_id", pa.string()),
    ("question", pa.string()),
    ("prompt_ids", pa.list_(pa.int32())),  # as the expert was asked
    ("token_ids", pa.list_(pa.int32())),  # as the expert answered, stop token included
]


def roll_out(
    questions: Sequence[Question],
    expert: LanguageModel,
    folder: Path,
    *,
    system_prompt: str,
    max_new_tokens: int,
    batch_size: int,
    generate: Generate | None = None,
) -> dict[str, Any]:
    """Writes one shard of trajectories a batch into `folder`; goes on where it was stopped.

    Args:
        expert: its weights are not read where an engine answers.
        generate: the engine that does; None: the expert itself.

    Returns:
        Facts: `questions`, `tokens` generated, `finished` (ended by a stop token).
    """
    prompts = _prompts(questions, expert, system_prompt)
    if generate is None:
        decode_batch = greedy_decoding(expert, prompts, max_new_tokens=max_new_tokens)
    else:
        decode_batch = engine_decoding(generate, expert, prompts, max_new_tokens=max_new_tokens)
    return _write(questions, prompts, decode_batch, folder, name="rollout", batch_size=batch_size)


def sample_answers(
    questions: Sequence[Question],
    expert: LanguageModel,
    folder: Path,
    *,
    system_prompt: str,
    max_new_tokens: int,
    batch_size: int,
    samples: int,
    temperature: float,
    top_p: float,
    seed: int,
    generate: Generate | None = None,
) -> dict[str, Any]:
    """Writes `samples` drawn answers a question, as `roll_out` writes one; goes on as it does.

    Args:
        batch_size: answers in a batch; another one gives other draws.
        samples: a row's index is its question's index * samples + the sample's number.
        temperature, top_p: see `choosing.sampled`.
        seed: with the other arguments it determines every answer.
        generate: as in `roll_out`; an engine's draws are its own.

    Returns:
        Facts: `questions`, `answers` (all their samples), and of those `tokens` generated and
        `finished`.
    """
    prompts = _prompts(questions, expert, system_prompt)
    repeated = Repeated(prompts, samples)
    chosen = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    if generate is None:
        decode_batch = sampled_decoding(expert, repeated, **chosen)
    else:
        decode_batch = engine_decoding(generate, expert, repeated, **chosen)
    facts = _write(
        Repeated(questions, samples),
        repeated,
        decode_batch,
        folder,
        name="sampling",
        batch_size=batch_size,
    )
    return {**facts, "questions": len(questions), "answers": facts["questions"]}


def _prompts(
    questions: Sequence[Question], expert: LanguageModel, system_prompt: str
) -> Sequence[list[int]]:
    """Each question's prompt; raises UserError where one leaves no room in the context.

    Of a list's questions, before any is answered. Stored ones' prompts are made when they are asked
    for, a window at a time, so that millions are never there at once: a question that is too long
    stops the run when its window comes, and what was answered before it stays.
    """

    def rendered(part: Sequence[Question]) -> list[list[int]]:
        ids, texts = [q.id for q in part], [q.text for q in part]
        return distributed.run_identically(
            lambda: render_prompts(expert, ids, texts, system_prompt)
        )

    if not isinstance(questions, StoredQuestions):
        return rendered(questions)
    return Blocks(
        len(questions), WINDOW, lambda n: rendered(questions[n * WINDOW : (n + 1) * WINDOW])
    )


def _write(
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    decode_batch: DecodeBatch,
    folder: Path,
    *,
    name: str,
    batch_size: int,
) -> dict[str, Any]:
    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        return {
            "question_id": questions[index].id,
            "question": questions[index].text,
            "prompt_ids": prompts[index],
            "token_ids": decoded.token_ids,
        }

    return decode_into_shards(
        prompts, decode_batch, folder, COLUMNS, row, name=name, batch_size=batch_size
    )

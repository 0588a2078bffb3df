"""Rollout: the expert, or an engine in its place, answers the questions in batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp import distributed
from lr_exp.data.lazy import in_blocks, repeated
from lr_exp.data.questions import Question, StoredQuestions
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate
from lr_exp.inference.generation import (
    WINDOW,
    BatchDecoder,
    decode_into_shards,
    engine_decoding,
    greedy_decoding,
    render_prompts,
    sampled_decoding,
)
from lr_exp.models.loading import LanguageModel

VERSION = 2

COLUMNS = [
    ("question_id", pa.string()),
    ("question", pa.string()),
    ("prompt_ids", pa.list_(pa.int32())),  # the rendered question
    ("token_ids", pa.list_(pa.int32())),  # the answer, with its stop token
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
    """Writes the greedy answers, one shard for each batch, and resumes from finished shards.

    Args:
        expert: without weights where an engine generates.
        generate: the engine; None for the expert itself.

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
    batch_size: int,
    samples: int,
    generate: Generate | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Writes sampled answers as `roll_out` writes greedy ones.

    A row's index is its question's index times `samples` plus the sample's number.

    Args:
        batch_size: answers in a batch; another size draws other answers.
        samples: answers to each question.
        generate: as in `roll_out`; an engine samples in its own way.
        sampling: `max_new_tokens`, `temperature`, `top_p` and `seed`, see `sampled_decoding`.

    Returns:
        Facts: `questions`, `answers`, `tokens` generated, `finished` answers.
    """
    prompts = repeated(_prompts(questions, expert, system_prompt), samples)
    if generate is None:
        decode_batch = sampled_decoding(expert, prompts, **sampling)
    else:
        decode_batch = engine_decoding(generate, expert, prompts, **sampling)
    facts = _write(
        repeated(questions, samples),
        prompts,
        decode_batch,
        folder,
        name="sampling",
        batch_size=batch_size,
    )
    return {**facts, "questions": len(questions), "answers": facts["questions"]}


def _prompts(
    questions: Sequence[Question], expert: LanguageModel, system_prompt: str
) -> Sequence[list[int]]:
    """Each question's prompt; raises UserError where one exceeds the context.

    Prompts of stored questions are rendered window by window, because millions do not fit in
    memory: a question that is too long then stops the run when its window is reached.
    """

    def rendered(part: Sequence[Question]) -> list[list[int]]:
        ids, texts = [q.id for q in part], [q.text for q in part]
        return distributed.run_identically(
            lambda: render_prompts(expert, ids, texts, system_prompt)
        )

    if not isinstance(questions, StoredQuestions):
        return rendered(questions)
    return in_blocks(
        len(questions), WINDOW, lambda n: rendered(questions[n * WINDOW : (n + 1) * WINDOW])
    )


def _write(
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    decode_batch: BatchDecoder,
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

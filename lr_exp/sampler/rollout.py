"""Rollout: the expert, or an engine in its place, answers the questions in batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp import distributed
from lr_exp.data.lazy import repeated
from lr_exp.data.questions import Question
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.generation import decode_into_shards, render_prompts, single_decoding
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import form_for
from lr_exp.store.shards import count_items

VERSION = 3

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
    prompt: Prompt,
    batch_size: int,
    samples: int | None = None,
    **decoding: Any,
) -> dict[str, Any]:
    """Writes the expert's answers, one shard for each batch, and resumes from finished shards.

    Args:
        batch_size: answers in a batch; another size draws other samples.
        samples: sampled answers to each question; None for one greedy answer. The index of a row is
            its question's index times `samples` plus the sample's number.
        decoding: of `single_decoding`: `max_new_tokens`, `generate` and those of samples.

    Returns:
        Facts: `questions`, `tokens` generated, `finished` (ended by a stop token), `flops` (None if
        an engine generates), and `answers` if they are samples.
    """
    rendered = render_prompts(expert, questions, prompt, lambda one: one.text)
    prompts, asked = repeated(rendered, samples or 1), repeated(questions, samples or 1)

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        return {
            "question_id": asked[index].id,
            "question": asked[index].text,
            "prompt_ids": prompts[index],
            "token_ids": decoded.token_ids,
        }

    facts = decode_into_shards(
        single_decoding(expert, prompts, stop=form_for(expert.tokenizer, prompt).stop, **decoding),
        folder,
        COLUMNS,
        row,
        name="rollout" if samples is None else "sampling",
        batch_size=batch_size,
    )
    if samples is not None:
        facts |= {"questions": len(questions), "answers": facts["questions"]}
    if expert.model is None:
        return {**facts, "flops": None}
    read = distributed.run_on_rank0(lambda: count_items(folder, "prompt_ids")) + facts["tokens"]
    return {**facts, "flops": expert.forward_flops(read)}

"""Rollout: the expert answers the questions, greedily, in batches of similar length.

Knows the expert only. What it writes does not depend on any amateur, on alpha or on beta.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data import Question
from lr_exp.decoding import Decoded
from lr_exp.generation import decode_into_shards, render_prompts
from lr_exp.models import LanguageModel

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
) -> dict[str, Any]:
    """Writes one shard of trajectories a batch into `folder`; goes on where it was stopped.

    Returns:
        Facts: `questions`, `tokens` generated, `finished` (ended by a stop token).
    """
    prompts = render_prompts(
        expert, [question.id for question in questions], [q.text for q in questions], system_prompt
    )

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        return {
            "question_id": questions[index].id,
            "question": questions[index].text,
            "prompt_ids": prompts[index],
            "token_ids": decoded.token_ids,
        }

    return decode_into_shards(
        expert,
        prompts,
        folder,
        COLUMNS,
        row,
        name="rollout",
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )

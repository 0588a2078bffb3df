"""The model answers a benchmark's questions, greedily, in batches of similar length.

Knows one model and prompts; knows no reference answers. What it writes can be graded again and
again without the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data import Question
from lr_exp.decoding import Decoded
from lr_exp.evaluator.prompts import user_message
from lr_exp.generation import decode_into_shards, render_prompts
from lr_exp.models import LanguageModel
from lr_exp.shards import read_shards

VERSION = 1

COLUMNS = [
    ("question_id", pa.string()),
    ("output", pa.string()),  # the answer as text, without special tokens
]


def answer(
    questions: Sequence[Question],
    language_model: LanguageModel,
    folder: Path,
    *,
    name: str,
    system_prompt: str,
    shots: Sequence[Question],
    max_new_tokens: int,
    batch_size: int,
) -> dict[str, Any]:
    """Writes one shard of outputs a batch into `folder`; goes on where it was stopped.

    Args:
        name: what the progress bar shows.
        shots: worked examples put before every question.

    Returns:
        Facts: `questions`, `tokens` generated, `finished`.
    """
    prompts = render_prompts(
        language_model,
        [question.id for question in questions],
        [user_message(question, shots) for question in questions],
        system_prompt,
    )

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        text = language_model.tokenizer.decode(
            decoded.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return {"question_id": questions[index].id, "output": text}

    return decode_into_shards(
        language_model,
        prompts,
        folder,
        COLUMNS,
        row,
        name=name,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )


def read_outputs(folder: Path) -> list[dict[str, Any]]:
    """The finished outputs, in the benchmark's order."""
    return sorted(read_shards(folder), key=lambda row: row["index"])

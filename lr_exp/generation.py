"""A model answers many prompts: batched by length, one shard a batch, resumable.

Knows prompts, batches and shards; what a row of a shard holds is its caller's business.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from lr_exp.decoding import Decoded, decode_greedily
from lr_exp.errors import UserError
from lr_exp.models import LanguageModel
from lr_exp.prompts import render_prompt
from lr_exp.shards import shard_path, shard_paths, write_shard

# Prompts are sorted by length inside windows of this many, so that a batch pads little while its
# composition depends on its own window only.
WINDOW = 1024

_COLUMNS = [("index", pa.int32()), ("tokens", pa.int32()), ("finished", pa.bool_())]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length: sorted (longest first) inside consecutive windows."""
    batches = []
    for start in range(0, len(lengths), WINDOW):
        window = range(start, min(start + WINDOW, len(lengths)))
        ordered = sorted(window, key=lambda index: (-lengths[index], index))
        batches += [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    return batches


def render_prompts(
    language_model: LanguageModel, ids: Sequence[str], texts: Sequence[str], system: str
) -> list[list[int]]:
    """Prompt ids of each text; raises UserError where a prompt leaves no room in the context."""
    prompts = []
    for question_id, text in zip(ids, texts, strict=True):
        prompt = render_prompt(language_model.tokenizer, text, system)
        if language_model.context is not None and len(prompt) >= language_model.context:
            raise UserError(
                f"question {question_id}: its prompt has {len(prompt)} tokens, and "
                f"{language_model.name} reads {language_model.context} at most: shorten or remove "
                "the question."
            )
        prompts.append(prompt)
    return prompts


def decode_into_shards(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    folder: Path,
    columns: Sequence[tuple[str, pa.DataType]],
    row: Callable[[int, Decoded], dict[str, Any]],
    *,
    name: str,
    max_new_tokens: int,
    batch_size: int,
) -> dict[str, Any]:
    """Answers every prompt greedily and writes one shard a batch; shards that are there stay.

    Args:
        columns, row: what a row holds beside `index`, `tokens` (generated, stop token included) and
            `finished` (ended by a stop token), and its values from a prompt's index and answer.
        name: what the progress bar shows.

    Returns:
        Facts: `questions`, `tokens` generated, `finished` (ended by a stop token).
    """
    schema = pa.schema([*_COLUMNS, *columns])
    batches = batches_by_length([len(prompt) for prompt in prompts], batch_size)
    with tqdm(total=len(prompts), desc=name, unit="question", dynamic_ncols=True) as progress:
        for number, batch in enumerate(batches):
            if not shard_path(folder, number).exists():
                decoded = decode_greedily(
                    language_model.model,
                    [prompts[index] for index in batch],
                    max_new_tokens=max_new_tokens,
                    stop_ids=language_model.stop_ids,
                    vocabulary_size=language_model.vocabulary_size,
                    context=language_model.context,
                )
                rows = [
                    {
                        **row(index, one),
                        "index": index,
                        "tokens": len(one.token_ids),
                        "finished": one.finished,
                    }
                    for index, one in zip(batch, decoded, strict=True)
                ]
                write_shard(folder, number, rows, schema)
            progress.update(len(batch))
    counts = pa.concat_tables(
        pq.ParquetFile(path).read(["tokens", "finished"]) for path in shard_paths(folder)
    )
    return {
        "questions": counts.num_rows,
        "tokens": sum(counts["tokens"].to_pylist()),
        "finished": sum(counts["finished"].to_pylist()),
    }

"""The model answers a benchmark's questions, in batches of similar length.

Knows one model (contrastive decoding: and its amateur) and prompts; knows no reference answers.
What it writes can be graded again and again without the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp import distributed
from lr_exp.data.questions import Question
from lr_exp.evaluator.prompts import user_message
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate
from lr_exp.inference.generation import (
    DecodeBatch,
    contrastive_decoding,
    decode_into_shards,
    engine_decoding,
    greedy_decoding,
    render_prompts,
    sampled_decoding,
)
from lr_exp.models.loading import LanguageModel
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.store.shards import read_shards

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
    decoder: str = "greedy",
    amateur: LanguageModel | None = None,
    shared: SharedVocabulary | None = None,
    alpha: float = 0.2,
    temperature: float = 1.0,
    seed: int = 0,
    generate: Generate | None = None,
) -> dict[str, Any]:
    """Writes one shard of outputs a batch into `folder`; goes on where it was stopped.

    Args:
        name: what the progress bar shows.
        shots: worked examples put before every question.
        decoder: `greedy`; `contrastive` (with `amateur`, `shared` and `alpha`; the amateur is asked
            the same through its own template); or `sampled` (with `temperature` and `seed`), one
            draw a question.
        generate: an engine that answers greedily in the model's place; None: the model itself.

    Returns:
        Facts: `questions`, `tokens` generated, `finished`.
    """

    def rendered(reader: LanguageModel) -> list[list[int]]:
        return distributed.run_identically(
            lambda: render_prompts(
                reader,
                [question.id for question in questions],
                [user_message(question, shots) for question in questions],
                system_prompt,
            )
        )

    prompts = rendered(language_model)
    decode_batch: DecodeBatch
    if generate is not None:
        if decoder != "greedy":
            raise ValueError(f"an engine answers greedily, not by decoder {decoder!r}")
        decode_batch = engine_decoding(
            generate, language_model, prompts, max_new_tokens=max_new_tokens
        )
    elif decoder == "greedy":
        decode_batch = greedy_decoding(language_model, prompts, max_new_tokens=max_new_tokens)
    elif decoder == "sampled":
        decode_batch = sampled_decoding(
            language_model,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=1.0,
            seed=seed,
        )
    elif decoder == "contrastive":
        if amateur is None or shared is None:
            raise ValueError("contrastive decoding needs an amateur and the shared vocabulary")
        decode_batch = contrastive_decoding(
            language_model,
            amateur,
            prompts,
            rendered(amateur),
            shared=shared,
            alpha=alpha,
            max_new_tokens=max_new_tokens,
        )
    else:
        raise ValueError(f"decoder {decoder!r} is none of greedy, contrastive, sampled")

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        text = language_model.tokenizer.decode(
            decoded.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return {"question_id": questions[index].id, "output": text}

    return decode_into_shards(
        prompts, decode_batch, folder, COLUMNS, row, name=name, batch_size=batch_size
    )


def read_outputs(folder: Path) -> list[dict[str, Any]]:
    """The finished outputs, in the benchmark's order."""
    return sorted(read_shards(folder), key=lambda row: row["index"])

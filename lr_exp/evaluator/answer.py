"""Generates a model's outputs for a benchmark's questions, in batches of similar length.

Outputs are stored ungraded, so that they can be graded again without the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data.lazy import repeated
from lr_exp.data.questions import Question
from lr_exp.evaluator.prompts import question_text
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate
from lr_exp.inference.generation import (
    contrastive_decoding,
    decode_into_shards,
    render_prompts,
    single_decoding,
)
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import form_for
from lr_exp.models.vocabulary import SharedVocabulary, text_of

VERSION = 2

COLUMNS = [
    ("question_id", pa.string()),
    ("output", pa.string()),  # the decoded text, without special tokens
    ("token_ids", pa.list_(pa.int32())),  # with the stop token
]


def answer(
    questions: Sequence[Question],
    language_model: LanguageModel,
    folder: Path,
    *,
    name: str,
    prompt: Prompt,
    max_new_tokens: int,
    batch_size: int,
    decoder: str = "greedy",
    samples: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    alpha: float = 0.2,
    amateur: LanguageModel | None = None,
    shared: SharedVocabulary | None = None,
    generate: Generate | None = None,
) -> dict[str, Any]:
    """Writes one shard of outputs per batch to `folder`; existing shards are kept.

    Args:
        decoder: greedy, contrastive or sampled.
        samples: sampled answers to each question. The index of a row is its question's index times
            `samples` plus the sample's number.
        temperature, seed: of the samples; see `single_decoding`.
        alpha, amateur, shared: for contrastive decoding only; alpha is the plausibility threshold.
            The amateur is asked in the same form, with its own chat template.
        generate: an inference engine to use instead of the model's own decoding.

    Returns:
        Counts: `questions` (each counted `samples` times), `tokens` generated, `finished` (ended by
        a stop token).
    """

    def render(reader: LanguageModel) -> list[list[int]]:
        ids = [question.id for question in questions]
        return render_prompts(reader, ids, [*map(question_text, questions)], prompt)

    if generate is not None and decoder == "contrastive":
        raise ValueError("an engine does not support decoder 'contrastive'")
    prompts, stop = render(language_model), form_for(language_model.tokenizer, prompt).stop
    if samples > 1:
        prompts, questions = repeated(prompts, samples), repeated(questions, samples)
    if decoder in ("greedy", "sampled"):
        decoding = single_decoding(
            language_model,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature if decoder == "sampled" else 0.0,
            seed=seed,
            stop=stop,
            generate=generate,
        )
    elif decoder == "contrastive":
        if amateur is None or shared is None:
            raise ValueError("contrastive decoding needs an amateur and the shared vocabulary")
        decoding = contrastive_decoding(
            language_model,
            amateur,
            prompts,
            render(amateur),
            shared=shared,
            alpha=alpha,
            max_new_tokens=max_new_tokens,
            stop=stop,
        )
    else:
        raise ValueError(f"unknown decoder {decoder!r}: use greedy, contrastive or sampled")

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        ids = decoded.token_ids
        text = text_of(language_model.tokenizer, ids)
        return {"question_id": questions[index].id, "output": text, "token_ids": ids}

    return decode_into_shards(
        prompts, decoding, folder, COLUMNS, row, name=name, batch_size=batch_size
    )

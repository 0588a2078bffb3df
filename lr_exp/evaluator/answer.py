"""Generates a model's outputs for a benchmark's questions, in batches of similar length.

Outputs are stored ungraded, so that they can be graded again without the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from lr_exp.models.loading import LanguageModel, ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import form_for
from lr_exp.models.vocabulary import SharedVocabulary, text_of

VERSION = 3

# Of a shard: answers differ in length, and a batch would wait for its longest one.
_BATCHES = 4

COLUMNS = [
    ("question_id", pa.string()),
    ("output", pa.string()),  # the decoded text, without special tokens
    ("token_ids", pa.list_(pa.int32())),  # with the stop token
]


@dataclass(frozen=True)
class Sampling:
    """Sampled answers to each question; see `single_decoding`."""

    samples: int = 1
    temperature: float = 1.0
    seed: int = 0


GREEDY = Sampling(temperature=0.0)


class Contrast(NamedTuple):
    """What contrastive decoding needs besides the expert."""

    amateur: LanguageModel  # asked in the same form, with its own chat template
    shared: SharedVocabulary
    alpha: float  # the plausibility threshold


def answer(
    questions: Sequence[Question],
    language_model: LanguageModel,
    folder: Path,
    *,
    name: str,
    prompt: Prompt,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling = GREEDY,
    contrast: Contrast | None = None,
    generate: Generate | None = None,
) -> dict[str, Any]:
    """Writes shards of outputs to `folder`; existing shards are kept.

    With `contrast` the answers are not sampled.

    Args:
        sampling: the index of a row is its question's index times `samples` plus the sample's
            number.
        generate: an inference engine to use instead of the model's own decoding, which is not
            contrastive.

    Returns:
        Counts: `questions` (each counted `samples` times), `tokens` generated, `finished` (ended by
        a stop token).
    """
    render = partial(render_prompts, questions=questions, prompt=prompt, text=question_text)
    samples = sampling.samples
    prompts, questions = repeated(render(language_model), samples), repeated(questions, samples)
    stop = form_for(language_model.tokenizer, prompt).stop
    limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop}
    if contrast is not None:
        pair = ModelPair(language_model, contrast.amateur, contrast.shared)
        others = render(contrast.amateur)
        decoding = contrastive_decoding(pair, prompts, others, alpha=contrast.alpha, **limits)
    else:
        limits |= {"temperature": sampling.temperature, "seed": sampling.seed}
        decoding = single_decoding(language_model, prompts, generate=generate, **limits)

    def row(index: int, decoded: Decoded) -> dict[str, Any]:
        ids = decoded.token_ids
        text = text_of(language_model.tokenizer, ids)
        return {"question_id": questions[index].id, "output": text, "token_ids": ids}

    return decode_into_shards(
        decoding, folder, COLUMNS, row, name=name, batch_size=batch_size, batches=_BATCHES
    )

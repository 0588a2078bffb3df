r"""Forced answers: an answer that was cut off or has no box is asked once for its final answer.

A text that opens a box is appended to it, and greedy decoding goes on to the matching brace. How
often the result is right does not depend on whether a model ends its answers and boxes them. An
answer that was cut off first loses its incomplete sentence: many models do not answer in the middle
of one.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data.formats import boxes
from lr_exp.data.questions import Question
from lr_exp.evaluator.grade import grade_question
from lr_exp.evaluator.prompts import question_text
from lr_exp.inference.engines import Generate
from lr_exp.inference.generation import decode_into_shards, render_prompts, single_decoding
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import continuation_ids
from lr_exp.models.vocabulary import count_within, text_of
from lr_exp.store.shards import read_by_index

VERSION = 3

_MAX_NEW_TOKENS = 32
_COLUMNS = [("text", pa.string())]
_SENTENCE_END = re.compile(r"\s{0,9}\n|(?<=[.!?])\s")


def complete_part(tokenizer: Any, answer: Sequence[int]) -> Sequence[int]:
    """The token ids up to the last end of a line or sentence; all of them if there is none."""
    ends = [end.start() for end in _SENTENCE_END.finditer(text_of(tokenizer, answer))]
    kept = count_within(tokenizer, answer, ends[-1]) if ends else 0
    return answer[: kept or len(answer)]


def force(
    questions: Sequence[Question],
    answers: Sequence[Sequence[int]],
    language_model: LanguageModel,
    folder: Path,
    *,
    name: str,
    prompt: Prompt,
    forced_text: str,
    batch_size: int,
    generate: Generate | None = None,
) -> None:
    r"""Writes one shard per batch of forced answers to `folder`; existing shards are kept.

    Args:
        answers: token ids of the answer to each question, see `complete_part`. Where prompt, answer
            and forced text leave too little of the model's context, its last tokens are dropped.
        prompt: with which the answers were generated.
        forced_text: ends in `\boxed{`.
    """
    forced_ids = continuation_ids(language_model.tokenizer, forced_text)
    asked, prompts = render_prompts(language_model, questions, prompt, question_text), []
    for rendered, answer in zip(asked, answers, strict=True):
        kept = [token for token in answer if token not in language_model.stop_ids]
        if language_model.context is not None:
            room = language_model.context - len(rendered) - len(forced_ids) - _MAX_NEW_TOKENS
            kept = kept[: max(room, 0)]
        prompts.append([*rendered, *kept, *forced_ids])
    decoding = single_decoding(
        language_model, prompts, max_new_tokens=_MAX_NEW_TOKENS, generate=generate
    )

    def row(index: int, decoded: Any) -> dict[str, Any]:
        return {"text": forced_text + text_of(language_model.tokenizer, decoded.token_ids)}

    decode_into_shards(decoding, folder, _COLUMNS, row, name=name, batch_size=batch_size)


def grade_forced(questions: Sequence[Question], folder: Path, kind: str) -> list[dict[str, Any]]:
    """One record per question, in their order: `id`, `text` (appended and decoded), `correct`."""
    records = []
    for question, row in zip(questions, read_by_index(folder), strict=True):
        found = boxes(row["text"])
        text = row["text"][: found[0][1] + 1] if found else row["text"]
        correct = bool(found) and grade_question(text, question, kind).correct
        records.append({"id": question.id, "text": text, "correct": correct})
    return records

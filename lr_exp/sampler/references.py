"""Trajectories made from texts and from other trajectories: human solutions, chosen answers.

Both have the columns of a rollout.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data.formats import boxes
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.inference.generation import WINDOW
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_solution
from lr_exp.models.vocabulary import count_within, text_of
from lr_exp.sampler.rollout import COLUMNS
from lr_exp.store.shards import read_shard, shard_paths, write_shard

log = logging.getLogger(__name__)

VERSION = 2

_SHARD = WINDOW  # rows; a shard's answers are of one window, as a rollout's are
_SENTENCE_END = re.compile(r"[.!?]\s+|\n")
_SCHEMA = pa.schema([("index", pa.int32()), *COLUMNS])


def write_solutions(
    questions: Iterable[Question],
    texts: Iterable[str],
    tokenizer: Any,
    folder: Path,
    *,
    prompt: Prompt,
    context: int | None,
) -> dict[str, Any]:
    """Writes each question's worked solution, one of `texts`, as a trajectory.

    `context` limits prompt and answer together. Returns facts: `answers`, `tokens`, `cut_off`
    (solutions cut at the limit).

    Raises UserError: a solution that the tokenizer has no tokens for.
    """
    facts = {"answers": 0, "tokens": 0, "cut_off": 0}
    separate = 0  # answers that were not read as one text with their prompts

    def row(index: int, question: Question, text: str) -> dict[str, Any]:
        prompt_ids, ids, as_one = render_solution(tokenizer, question.text, text, prompt)
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise UserError(
                f"question {question.id}: the expert's tokenizer has no token for part of its "
                "solution. Remove the question, or choose a method that does not train on human "
                "solutions."
            )
        nonlocal separate
        separate += not as_one
        room = len(ids) if context is None else max(context - len(prompt_ids), 0)
        facts["answers"] += 1
        facts["tokens"] += len(ids[:room])
        facts["cut_off"] += len(ids) > room
        return {
            "index": index,
            "question_id": question.id,
            "question": question.text,
            "prompt_ids": prompt_ids,
            "token_ids": ids[:room],
        }

    rows = (row(i, *pair) for i, pair in enumerate(zip(questions, texts, strict=True)))
    for number, shard in enumerate(iter(lambda: list(islice(rows, _SHARD)), [])):
        write_shard(folder, number, shard, _SCHEMA)
    if separate:
        log.warning(
            "%d of %d solutions (%.1f%%) have other tokens after their prompts than in one text, "
            "in which a token covers the end of the prompt and the start of the solution.",
            separate,
            facts["answers"],
            100 * separate / facts["answers"],
        )
    return facts


def keep_chosen(
    answers: Path,
    tokenizer: Any,
    choose: Callable[[int, str], bool],
    folder: Path,
    *,
    samples: int,
    repeats: bool = False,
    last_sentence: bool = False,
) -> dict[str, Any]:
    """Copies the answers that are finished and chosen.

    Args:
        answers: folder of `rollout.roll_out` with samples.
        choose: takes an answer's index and text.
        samples: answers to each question.
        repeats: whether repeats of an answer to a question are kept.
        last_sentence: the answers begin at the sentence with their last box; what precedes it
            becomes part of the prompt.

    Returns:
        Facts: `answers` (kept), `drawn`, `right` (chosen, with repeats), `solved` (questions with a
        chosen answer).
    """
    drawn = right = kept = solved = 0
    seen: dict[int, set[tuple[int, ...]]] = {}  # chosen answers so far, by question
    for number, path in enumerate(shard_paths(answers)):
        rows = []
        for row in read_shard(path):
            drawn += 1
            index, ids = row["index"], row["token_ids"]
            text = text_of(tokenizer, ids)
            if not row["finished"] or not choose(index, text):
                continue
            right += 1
            question = index // samples
            solved += question not in seen
            known = seen.setdefault(question, set())
            if tuple(ids) in known and not repeats:
                continue
            known.add(tuple(ids))
            kept += 1
            start = _last_sentence(tokenizer, ids, text) if last_sentence else 0
            prompt_ids = [*row["prompt_ids"], *ids[:start]]
            rows.append(row | {"prompt_ids": prompt_ids, "token_ids": ids[start:]})
        write_shard(folder, number, rows, _SCHEMA)
    return {"answers": kept, "drawn": drawn, "right": right, "solved": solved}


def with_prompts(
    answers: Path, prompts: Sequence[list[int]], folder: Path, *, context: int | None
) -> dict[str, Any]:
    """Copies answers, each with the prompt of its index. Returns facts: `answers`.

    Raises UserError: a prompt and its answer are longer than `context`.
    """
    for number, path in enumerate(shard_paths(answers)):
        rows = [row | {"prompt_ids": prompts[row["index"]]} for row in read_shard(path)]
        for row in rows:
            length = len(row["prompt_ids"]) + len(row["token_ids"])
            if context is not None and length > context:
                raise UserError(
                    f"question {row['question_id']}: the expert's context and the answer have "
                    f"{length} tokens, but the expert reads {context}: lower "
                    "sampler.max_new_tokens, or remove the question."
                )
        write_shard(folder, number, rows, _SCHEMA)
    return {"answers": len(prompts)}


def _last_sentence(tokenizer: Any, token_ids: list[int], text: str) -> int:
    """The index of the token that begins the sentence with the last box in the answer's text."""
    before = text[: boxes(text)[-1][0]]
    end = max((match.end() for match in _SENTENCE_END.finditer(before)), default=0)
    # The token that completes the sentence before belongs to it.
    return count_within(tokenizer, token_ids, end - 1) + 1

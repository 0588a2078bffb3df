"""Trajectories that need references: human solutions, and sampled answers that were verified.

Both have the columns of a rollout.
"""

import logging
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.inference.generation import WINDOW
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_solution
from lr_exp.models.vocabulary import text_of
from lr_exp.sampler.rollout import COLUMNS
from lr_exp.store.shards import read_shard, shard_paths, write_shard

log = logging.getLogger(__name__)

VERSION = 1

_SHARD = WINDOW  # rows; a shard's answers are of one window, as a rollout's are
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

    Args:
        context: the expert's limit on prompt and answer together, or None.

    Returns:
        Facts: `answers`, `tokens`, `cut_off` (solutions cut at the limit).

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


def keep_verified(
    answers: Path,
    tokenizer: Any,
    is_right: Callable[[int, str], bool],
    folder: Path,
    *,
    samples: int,
) -> dict[str, Any]:
    """Copies the answers that are finished and right, without repeats of the same answer.

    Args:
        answers: folder of `rollout.roll_out` with samples.
        is_right: takes an answer's index and text.
        samples: answers to each question.

    Returns:
        Facts: `answers` (kept), `drawn`, `right` (with repeats), `solved` questions.
    """
    drawn = right = kept = solved = begun = 0
    seen: dict[int, set[tuple[int, ...]]] = {}  # right answers so far, by question
    for number, path in enumerate(shard_paths(answers)):
        rows = []
        for row in read_shard(path):
            drawn += 1
            text = text_of(tokenizer, row["token_ids"])
            if not row["finished"] or not is_right(row["index"], text):
                continue
            right += 1
            question, ids = row["index"] // samples, tuple(row["token_ids"])
            # Shards are written window by window: earlier questions are complete.
            first = row["index"] // WINDOW * WINDOW // samples
            if first != begun:
                seen, begun = {q: known for q, known in seen.items() if q >= first}, first
            solved += question not in seen
            known = seen.setdefault(question, set())
            if ids in known:
                continue
            known.add(ids)
            kept += 1
            rows.append({name: row[name] for name in _SCHEMA.names})
        write_shard(folder, number, rows, _SCHEMA)
    return {"answers": kept, "drawn": drawn, "right": right, "solved": solved}

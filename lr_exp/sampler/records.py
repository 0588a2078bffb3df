"""Reads and writes kept steps in the published code's record format.

One JSON object a line: `prompt_id` (the question's text), `step`, `prefix` (the generated text
before it), `tokens`, `token_ids`, `weights`, `kl_divergence`. An export adds `prompt_token_ids`,
`prefix_token_ids` and `question_id`, which the published reader ignores. Ours prefers them, because
text does not always tokenize back to the generated ids.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lr_exp.data.json_lines import read_json_lines
from lr_exp.errors import UserError, short_repr
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import text_of
from lr_exp.sampler.supervision import SupervisedTrajectory, Supervision
from lr_exp.store import open_atomically

VERSION = 1

_IDS = ("prompt_token_ids", "prefix_token_ids")  # keys of an export
_Text = Annotated[str, Field(pattern="^")]  # matching refuses half of a surrogate pair


class _Record(BaseModel):
    """What a line must have, and what an export adds; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    prompt_id: Annotated[str, Field(pattern=r"\S")]  # the question's text
    step: Annotated[int, Field(ge=0)]
    prefix: _Text
    token_ids: Annotated[list[int], Field(min_length=1)]
    weights: list[Annotated[float, Field(ge=0)]]
    # Rounding can make it slightly negative; it must fit in 32 bits.
    kl_divergence: Annotated[float, Field(ge=-1e-3, le=1e30)]
    question_id: _Text = ""
    prompt_token_ids: Annotated[list[int], Field(min_length=1)] = []
    prefix_token_ids: list[int] = []


def export_records(
    trajectories: Iterable[SupervisedTrajectory], tokenizer: Any, path: Path
) -> None:
    """Writes every kept step as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        for trajectory in trajectories:
            for kept in range(len(trajectory.steps)):
                record = _record(trajectory, kept, tokenizer)
                file.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))


def import_records(
    path: Path, tokenizer: Any, *, prompt: Prompt, vocabulary_size: int
) -> Supervision:
    """Reads kept steps in the published form.

    The expert's `tokenizer` and `prompt` read records without ids; ids are below `vocabulary_size`.

    Raises UserError: the file is missing or empty, or a line is not a valid record.
    """
    lines = read_json_lines(path)
    records = [_checked(record, where, vocabulary_size) for _, where, record in lines]
    if not records:
        raise UserError(f"data.path={path} is empty: it needs one kept step per line.")
    by_question: dict[str, list[_Record]] = {}
    for record in records:
        if not record.model_fields_set.issuperset(_IDS):
            ids = tokenizer(record.prefix, add_special_tokens=False)["input_ids"]
            record.prefix_token_ids = list(ids)
            record.prompt_token_ids = render_prompt(tokenizer, record.prompt_id, prompt)
        by_question.setdefault(record.prompt_id, []).append(record)
    return Supervision(
        trajectory
        for number, steps in enumerate(by_question.values())
        for trajectory in _trajectories(steps, f"{path.stem}/{number}")
    )


def profile(supervision: Supervision) -> dict[str, Any]:
    """The facts of imported supervision, under the names of `profile.Counts.profile`.

    Records hold kept steps only, so means and shares over all positions are unknown.
    """
    kl = [value for trajectory in supervision.trajectories for value in trajectory.kl]
    return {
        "questions": len({trajectory.question for trajectory in supervision.trajectories}),
        "answers": len(supervision.trajectories),
        "steps": None,
        "kept": supervision.kept,
        "kl_mean": None,
        "kl_max": max(kl),
    }


def _record(trajectory: SupervisedTrajectory, kept: int, tokenizer: Any) -> dict[str, Any]:
    length, step = trajectory.prompt_length, trajectory.steps[kept]
    prefix, ids = trajectory.input_ids[length : length + step], trajectory.target_ids[kept]
    return {
        "prompt_id": trajectory.question,
        "step": step,
        "prefix": text_of(tokenizer, prefix, special=True),
        "tokens": [text_of(tokenizer, [token], special=True) for token in ids],
        "token_ids": ids,
        "weights": trajectory.target_weights[kept],
        "kl_divergence": trajectory.kl[kept],
        "question_id": trajectory.question_id,
        "prompt_token_ids": trajectory.input_ids[:length],
        "prefix_token_ids": prefix,
    }


def _checked(content: dict[str, Any], where: str, vocabulary_size: int) -> _Record:
    try:
        record = _Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key, value = ".".join(map(str, first["loc"])), short_repr(first["input"])
        raise UserError(
            f"{where}: {key}: {first['msg']} (here: {value}). Correct the line, or remove it."
        ) from error
    ids, weights, prefix = record.token_ids, record.weights, record.prefix_token_ids
    if len(ids) != len(weights):
        raise UserError(
            f"{where} has {len(ids)} token_ids and {len(weights)} weights: write one weight per id."
        )
    for name in ("token_ids", *_IDS):
        wrong = [i for i in getattr(record, name) if not 0 <= i < vocabulary_size]
        if wrong:
            raise UserError(
                f"{where}: {name} has {short_repr(wrong[0])}, but the expert's ids are 0 to "
                f"{vocabulary_size - 1}: the records were made with another tokenizer. Set expert "
                "to the model that produced them, or set data.path to records of this expert."
            )
    if len(set(ids)) != len(ids):
        raise UserError(f"{where}: token_ids has the same token twice; add up its weights.")
    if abs(sum(weights) - 1) > 1e-3:
        raise UserError(f"{where}: weights must sum to 1, not {sum(weights):.4g}.")
    if "prefix_token_ids" in content and len(prefix) != record.step:
        raise UserError(
            f"{where}: step is {short_repr(record.step)}, but there are {len(prefix)} "
            "prefix_token_ids: both must be equal."
        )
    return record


def _trajectories(steps: list[_Record], name: str) -> Iterator[SupervisedTrajectory]:
    """Groups a question's kept steps into as few rows as their prefixes allow.

    Steps share a row where the ids of the shorter prefix begin the longer one, which re-tokenized
    text does not always satisfy.
    """
    chains: list[list[_Record]] = []
    for step in sorted(steps, key=lambda one: len(one.prefix_token_ids)):
        for chain in chains:
            shorter, longer = chain[-1].prefix_token_ids, step.prefix_token_ids
            begins = len(shorter) < len(longer) and longer[: len(shorter)] == shorter
            if begins and chain[-1].prompt_token_ids == step.prompt_token_ids:
                chain.append(step)
                break
        else:
            chains.append([step])
    for chain in chains:
        first, last = chain[0], chain[-1]
        yield SupervisedTrajectory(
            question_id=first.question_id or name,
            question=first.prompt_id,
            input_ids=[*last.prompt_token_ids, *last.prefix_token_ids],
            prompt_length=len(first.prompt_token_ids),
            steps=[len(step.prefix_token_ids) for step in chain],
            kl=[step.kl_divergence for step in chain],
            target_ids=[step.token_ids for step in chain],
            target_weights=[step.weights for step in chain],
        )

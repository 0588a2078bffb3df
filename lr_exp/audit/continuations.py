"""Answers continued from the label's token and from the expert's, at kept positions.

The paper's core claim is that a label prefers tokens that lead to right answers more often. Here it
is tested without training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lr_exp.config.options import option_folders
from lr_exp.config.settings import Settings
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.inference.generation import decode_into_shards, single_decoding
from lr_exp.models.prompts import form_for
from lr_exp.models.vocabulary import text_of
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.sampling import score_trajectories, select_steps
from lr_exp.sampler.profile import effect_of
from lr_exp.sampler.supervision import read_supervision
from lr_exp.store import Artifact, Recipe, Store
from lr_exp.store.shards import read_by_index, read_shards

VERSION = 1
ARMS = ("label", "expert")  # whose most probable token an answer is continued from


@dataclass(frozen=True)
class Budget:
    """How much is continued."""

    positions: int = 200  # of each kind, moving and confirming
    samples: int = 8  # continuations from each token
    temperature: float = 1.0
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Position:
    """A kept position of an answer."""

    answer: int  # the index of the answer
    question_id: str
    step: int  # tokens generated before it
    kl: float  # nats
    moving: bool  # the label's most probable token is not the expert's
    prefix: list[int]  # prompt and answer up to the position
    generated: list[int]  # the part of the prefix that the expert generated
    tokens: tuple[int, int]  # of ARMS


def audit(settings: Settings, budget: Budget) -> list[dict[str, Any]]:
    """Continues answers at sampled positions; reuses what the store has of a run.

    Each question gives one moving and one confirming position at most, so that positions are
    independent. At a confirming position both tokens are the same: the difference there shows the
    noise of the measurement.

    Args:
        settings: of a run; see `compose`.

    Returns:
        For each position: `question_id`, `answer`, `step`, `kl`, `moving`, `label_token` and
        `expert_token` (texts), `trajectory` (`right`, `wrong` or `cut off`), `right_from_label` and
        `right_from_expert` (of `samples`).

    Raises UserError: the method has no label, or a question has no reference answer.
    """
    settings = replace(settings, stages=["sample"])
    store = Store(settings.store)
    context = RunContext(Inputs(settings, option_folders(settings.config_dirs), store), store)
    inputs = context.inputs
    if not inputs.method.target.choice.columns:
        raise UserError(
            f"method={inputs.method.name} has no soft label: choose a method with one, such as "
            "lightreasoner."
        )
    inputs.check()
    grade.check_references(inputs.questions, settings.data.answer)
    trajectories = inputs.method.trajectories(context)
    steps = score_trajectories(context, trajectories.artifact)
    supervision = select_steps(context, trajectories.artifact, steps)
    per_question = trajectories.answers_per_question
    special = {*inputs.expert_tokenizer.all_special_ids}
    chosen = _choose(
        [one for one in _kept(steps.folder, supervision.folder) if not special & {*one.tokens}],
        budget.positions,
        settings.seed,
        question_of=lambda one: one.answer // per_question,
    )
    if not chosen:
        raise UserError("no kept position can be audited: lower beta, or use more questions.")
    continued = read_by_index(_continue(context, supervision, chosen, budget).folder)
    answers = {row["index"]: row for row in read_shards(trajectories.artifact.folder)}
    records = []
    for place, one in enumerate(chosen):
        question = inputs.questions[one.answer // per_question]
        own = continued[place * 2 * budget.samples :][: 2 * budget.samples]
        arms = own[: budget.samples], own[budget.samples :]
        right = [
            sum(
                _is_right(inputs, question, [*one.generated, token, *row["token_ids"]])
                for row in arm
            )
            for token, arm in zip(one.tokens, arms, strict=True)
        ]
        answer = answers[one.answer]["token_ids"]
        is_cut = answers[one.answer]["finished"] is False
        ended = "right" if _is_right(inputs, question, answer) else "wrong"
        names = [text_of(inputs.expert_tokenizer, [token], special=True) for token in one.tokens]
        records.append(
            {
                "question_id": one.question_id,
                "answer": one.answer,
                "step": one.step,
                "kl": one.kl,
                "moving": one.moving,
                **{f"{arm}_token": name for arm, name in zip(ARMS, names, strict=True)},
                "trajectory": "cut off" if is_cut else ended,
                **{f"right_from_{arm}": count for arm, count in zip(ARMS, right, strict=True)},
                "samples": budget.samples,
            }
        )
    return records


def _kept(steps: Path, supervision: Path) -> Iterator[Position]:
    """The kept positions of a run, in the order of the answers."""
    scores: dict[int, dict[int, dict[str, Any]]] = {}  # rows of the step table, by answer and step
    for row in read_shards(steps):
        scores.setdefault(row["index"], {})[row["step"]] = row
    for answer in read_supervision(supervision):
        for place, (step, label) in enumerate(zip(answer.steps, answer.labels, strict=True)):
            row = scores[answer.index][step]
            moving = effect_of(label, row).is_moving
            prefix = answer.input_ids[: answer.read_at(place) + 1]
            top = max(label, key=lambda token: label[token]) if moving else row["expert_top1"]
            yield Position(
                answer.index,
                answer.question_id,
                step,
                row["kl"],
                moving,
                prefix,
                prefix[answer.prompt_length :],
                (top, row["expert_top1"]),
            )


def _choose(
    kept: Sequence[Position],
    count: int,
    seed: int,
    question_of: Callable[[Position], int],
) -> list[Position]:
    """Up to `count` moving and as many confirming positions, at most one of each per question."""
    draw = np.random.default_rng(seed)
    chosen: list[Position] = []
    for moving in (True, False):
        own: dict[int, Position] = {}
        for place in draw.permutation(len(kept)):
            if kept[place].moving == moving:
                own.setdefault(question_of(kept[place]), kept[place])
        chosen += [*own.values()][:count]
    return chosen


def _continue(
    context: RunContext, supervision: Artifact, chosen: Sequence[Position], budget: Budget
) -> Artifact:
    """Sampled continuations: of each position first those from the label's token."""
    inputs = context.inputs
    prompts = [
        [*one.prefix, token]
        for one in chosen
        for token in one.tokens
        for _ in range(budget.samples)
    ]
    settings = {
        **asdict(budget),
        "batch_size": inputs.settings.sampler.batch_size,
        "seed": inputs.settings.seed,
        **context.models.generation_environment("sampler"),
    }
    recipe = Recipe(
        "audit",
        VERSION,
        {"supervision": supervision.address, "expert": inputs.expert.fingerprint},
        settings,
    )

    def build(folder: Path) -> dict[str, Any]:
        with context.models.generating("sampler") as (expert, generate):
            decoding = single_decoding(
                expert,
                prompts,
                max_new_tokens=budget.max_new_tokens,
                temperature=budget.temperature,
                seed=inputs.settings.seed,
                stop=form_for(expert.tokenizer, inputs.teacher_prompt).stop,
                generate=generate,
            )
            return decode_into_shards(
                prompts,
                decoding,
                folder,
                [("token_ids", pa.list_(pa.int32()))],
                lambda _, decoded: {"token_ids": decoded.token_ids},
                name="audit",
                batch_size=inputs.settings.sampler.batch_size,
            )

    return context.make(recipe, build, stage="sample", together=True)


def _is_right(inputs: Inputs, question: Question, token_ids: Sequence[int]) -> bool:
    """Whether an answer equals the question's reference."""
    text = text_of(inputs.expert_tokenizer, token_ids)
    kind = inputs.settings.data.answer
    return grade.grade_answer(text, question.answer or "", kind, question.choices).correct

"""Answers continued from the label's token and from the expert's, at kept positions.

The paper's core claim is that a label prefers tokens that lead to right answers more often. Here it
is tested without training.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from lr_exp.config.settings import Settings
from lr_exp.data.lazy import repeated
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.inference.generation import decode_into_shards, single_decoding
from lr_exp.models.prompts import form_for
from lr_exp.models.vocabulary import text_of
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.interactive import context_of
from lr_exp.pipeline.sampling import score_trajectories, select_steps
from lr_exp.pipeline.trajectories import Trajectories
from lr_exp.report.analyse.samples import by_question
from lr_exp.report.page.audit_table import KINDS
from lr_exp.report.read.run import Run, flat
from lr_exp.sampler.profile import effect_of
from lr_exp.sampler.supervision import read_supervision
from lr_exp.store import Artifact, Recipe
from lr_exp.store.shards import read_by_index, read_shards

log = logging.getLogger(__name__)

VERSION = 4
ARMS = ("label", "expert")  # whose token an answer is continued from

# Settings and groups that labels depend on.
_OF_LABELS = ("expert", "amateur", "data", "method", "sampler", "alpha", "beta", "seed", "dtype")
_RECORDED = ("question_id", "answer", "step", "kl", "kind")


@dataclass(frozen=True)
class Budget:
    positions: int = 200  # of each of KINDS
    samples: int = 8  # continuations from each token
    temperature: float = 1.0
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Position:
    answer: int  # the index of the answer
    question_id: str
    step: int  # tokens generated before it
    kl: float  # nats
    kind: str  # of KINDS
    prefix: list[int]  # prompt and answer up to the position
    prompt_length: int  # of the prefix
    tokens: tuple[int, int]  # of ARMS


def audit(settings: Settings, budget: Budget, run: Run | None = None) -> list[dict[str, Any]]:
    """Continues answers at sampled positions; reuses what the store has of a run.

    At a *moving* position the label's most probable token is not the expert's. At a *confirming*
    one both are the same, and the difference shows the noise of the measurement. *Second choice* is
    a confirming position with the expert's second plausible token in the place of the label's, if
    there is one: what leaving the first choice does where the label does not ask for it. Each
    question gives one position of a kind at most, so that those of a kind are independent.

    Returns:
        For each position: `question_id`, `answer`, `step`, `kl`, `kind`, `label_token` and
        `expert_token` (texts), `trajectory` (`right`, `wrong` or `cut off`), `right_from_label` and
        `right_from_expert` (of `samples`), `cut_off` (continuations, of twice as many), and
        `supervision`, the digest of the labels.

    Raises UserError: see `labels_of`; or the labels are not those of `run`.
    """
    context, trajectories, steps, supervision = labels_of(settings)
    inputs, tokenizer = context.inputs, context.inputs.expert_tokenizer
    if run and run.sample.supervision not in (None, supervision.facts["digest"]):
        raise UserError(
            f"the labels are not those of the run in {run.name}{_differences(inputs, run)}: pass "
            "the run's own overrides (settings.overrides in its summary.json), or another --out."
        )
    special = {*tokenizer.all_special_ids}
    every = [*_kept(steps.folder, supervision.folder)]
    kept = [one for one in every if not special & {*one.tokens}]
    if len(kept) < len(every):
        ending = {(one.answer, one.step) for one in every if special & {*one.tokens}}
        message = "audit: %d kept positions with a token that ends the answer are left out"
        log.info(message, len(ending))
    chosen = _choose(kept, budget.positions, settings.seed)
    if not chosen:
        raise UserError("no kept position can be audited: lower beta, or use more questions.")
    answers = {row["index"]: row for row in read_shards(trajectories.artifact.folder)}
    continued = read_by_index(_continue(context, supervision, chosen, budget).folder)
    arms = by_question(continued, budget.samples)
    records = []
    for one, *drawn in zip(chosen, arms[::2], arms[1::2], strict=True):
        question = inputs.questions[one.answer // trajectories.answers_per_question]
        answer = answers[one.answer]
        ended = "right" if is_right(inputs, question, answer["token_ids"]) else "wrong"
        # Chosen answers have all ended, so that their rows do not say so.
        record = {name: getattr(one, name) for name in _RECORDED} | {
            "trajectory": "cut off" if answer.get("finished") is False else ended,
            "supervision": supervision.facts["digest"],
            "samples": budget.samples,
            "cut_off": sum(not row["finished"] for rows in drawn for row in rows),
        }
        for arm, token, rows in zip(ARMS, one.tokens, drawn, strict=True):
            start = [*one.prefix[one.prompt_length :], token]
            record[f"{arm}_token"] = text_of(tokenizer, [token], special=True)
            ids = [[*start, *row["token_ids"]] for row in rows]
            record[f"right_from_{arm}"] = sum(is_right(inputs, question, one) for one in ids)
        records.append(record)
    return records


def labels_of(settings: Settings) -> tuple[RunContext, Trajectories, Artifact, Artifact]:
    """A run's context, its answers, their step table and their labels.

    Raises UserError: the method has no label, its expert reads another prompt than the student, or
    a question has no reference answer.
    """
    context = context_of(replace(settings, stages=["sample"]))
    inputs, method = context.inputs, context.inputs.method
    problem = None
    if not method.target.choice.columns:
        problem = "has no soft label"
    elif method.needs("context") or method.reads("teacher_prompt"):
        problem = "takes its labels under another prompt than the student's, which is audited"
    if problem:
        raise UserError(
            f"method={method.name} {problem}: choose another method, such as lightreasoner."
        )
    inputs.check()
    grade.check_references(inputs.questions, settings.data.answer)
    trajectories = inputs.method.trajectories(context)
    steps = score_trajectories(context, trajectories.artifact)
    supervision = select_steps(context, trajectories.artifact, steps)
    return context, trajectories, steps, supervision


def _differences(inputs: Inputs, run: Run) -> str:
    """The settings of sampling and scoring that differ from those of a run, ` (alpha=0.1, ...)`."""
    settings = inputs.settings.to_dict()
    settings["method"] |= inputs.method.parameters
    recorded = flat(run.settings)
    differing = [
        f"{key}={value}, in the run {recorded[key]}"
        for key, value in flat(settings).items()
        if key.partition(".")[0] in _OF_LABELS and recorded.get(key, value) != value
    ]
    return f" ({'; '.join(differing)})" if differing else ""


def _kept(steps: Path, supervision: Path) -> Iterator[Position]:
    """The kept positions of a run, in the order of the answers."""
    scores = {(row["index"], row["step"]): row for row in read_shards(steps)}
    for answer in read_supervision(supervision):
        for place, (step, label) in enumerate(zip(answer.steps, answer.labels, strict=True)):
            row = scores[answer.index, step]
            for kind, token in first_tokens(label, row).items():
                yield Position(
                    answer=answer.index,
                    question_id=answer.question_id,
                    step=step,
                    kl=row["kl"],
                    kind=kind,
                    prefix=answer.input_ids[: answer.read_at(place) + 1],
                    prompt_length=answer.prompt_length,
                    tokens=(token, row["expert_top1"]),
                )


def first_tokens(label: Mapping[int, float], scores: Mapping[str, Any]) -> dict[str, int]:
    """The tokens to continue from at a position, by its kinds, from its label and its scores."""
    if effect_of(label, scores).is_moving:
        return {"moving": max(label, key=lambda token: label[token])}
    tokens = {"confirming": scores["expert_top1"]}
    if len(label) > 1:  # its tokens are the plausible ones
        expert = dict(zip(scores["support_ids"], scores["support_expert"], strict=True))
        others = label.keys() - {tokens["confirming"]}
        tokens["second choice"] = max(others, key=lambda token: expert[token])
    return tokens


def _choose(kept: Sequence[Position], count: int, seed: int) -> list[Position]:
    """Up to `count` positions of each kind, at most one of each per question."""
    draw = np.random.default_rng(seed)
    chosen: list[Position] = []
    for kind in KINDS:
        own: dict[str, Position] = {}
        for place in draw.permutation(len(kept)):
            if kept[place].kind == kind:
                own.setdefault(kept[place].question_id, kept[place])
        chosen += [*own.values()][:count]
    return chosen


def _continue(
    context: RunContext, supervision: Artifact, chosen: Sequence[Position], budget: Budget
) -> Artifact:
    """Sampled continuations: of each position first those from the label's token."""
    inputs = context.inputs
    starts = [[*one.prefix, token] for one in chosen for token in one.tokens]
    prompts = repeated(starts, budget.samples)
    settings = {
        "max_new_tokens": budget.max_new_tokens,
        "temperature": budget.temperature,
        "seed": inputs.settings.seed,
    }
    batch_size = cast(int, inputs.settings.sampler.batch_size)
    recipe = Recipe(
        "audit",
        VERSION,
        {"supervision": supervision.address, "expert": inputs.expert.fingerprint},
        {
            **asdict(budget),
            **settings,
            "batch_size": batch_size,
            **context.models.generation_environment("sampler"),
        },
    )

    def build(folder: Path) -> dict[str, Any]:
        with context.models.generating("sampler") as (expert, generate):
            stop = form_for(expert.tokenizer, inputs.prompt).stop
            return decode_into_shards(
                single_decoding(expert, prompts, stop=stop, generate=generate, **settings),
                folder,
                [("token_ids", pa.list_(pa.int32()))],
                lambda _, decoded: {"token_ids": decoded.token_ids},
                name="audit",
                unit="continuation",
                batch_size=batch_size,
            )

    return context.make(recipe, build, stage="sample", together=True)


def is_right(inputs: Inputs, question: Question, token_ids: Sequence[int]) -> bool:
    """Whether an answer equals the question's reference."""
    text = text_of(inputs.expert_tokenizer, token_ids)
    return grade.grade_question(text, question, inputs.settings.data.answer).correct

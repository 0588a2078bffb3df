"""Trajectories: the answers that a method learns from (`method.trajectories`).

A choice takes the run's context and returns `Trajectories`; it makes its artifacts in the store.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.method import register
from lr_exp.data.questions import Question, fingerprint, prompts_fingerprint
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.prompts import worked_answer
from lr_exp.models import locating, vocabulary
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import GRADING_PACKAGES, RENDERING_PACKAGES, versions_of
from lr_exp.sampler import references, rollout
from lr_exp.store import Artifact, Recipe

Count = Annotated[int, "[1, 2147483647]"]

_FIELD = re.compile(r"\{(question|solution)\}")


@dataclass(frozen=True)
class Trajectories:
    """The answers to learn from and how they were made."""

    artifact: Artifact  # row `index` is an answer to question `index // answers_per_question`
    drawn: Artifact | None = None  # all sampled answers, where `artifact` holds a part of them
    answers_per_question: int = 1
    by_expert: bool = True  # False: written by a human

    @property
    def artifacts(self) -> list[Artifact]:
        return [self.artifact] if self.drawn is None else [self.drawn, self.artifact]


@register("trajectories")
def expert_greedy(context: RunContext) -> Trajectories:
    """The expert's greedy answers, their first `sampler.max_new_tokens` tokens."""
    settings = {"max_new_tokens": context.inputs.settings.sampler.max_new_tokens}
    return Trajectories(_generated(context, "rollout", settings, context.inputs.teacher_prompt))


@register("trajectories", needs=("context",))
def expert_prompted(context: RunContext, *, teacher_prompt: str) -> Trajectories:
    """Self-distillation: as `expert_greedy`, but under a prompt form of the teacher.

    The expert's distributions are those under `teacher_prompt`; the expert under `sampler.prompt`
    takes the amateur's place and is the student.
    """
    return expert_greedy(context)


@register("trajectories", needs=("context", "solutions"))
def expert_privileged(context: RunContext, *, expert_context: str) -> Trajectories:
    """The expert's greedy answers, at which its distributions also read the reference solution.

    The expert reads `expert_context` in the place of the question: a text with `{question}` and
    `{solution}`. Without it, it takes the amateur's place and is the student (arXiv 2601.18734).

    Raises UserError: the text has no `{solution}`; a context and its answer are too long.
    """
    if "{solution}" not in expert_context:
        raise UserError(
            f"method.expert_context={expert_context!r} has no {{solution}}, so the expert reads "
            "no solution: add it."
        )
    inputs, tokenizer = context.inputs, context.inputs.expert_tokenizer
    answers = expert_greedy(context)
    recipe = Recipe(
        "privileged",
        references.VERSION,
        {
            "answers": answers.artifact.address,
            "questions": fingerprint(inputs.questions),  # with their solutions
            "expert": inputs.expert.fingerprint,
        },
        {"expert_context": expert_context, **versions_of(RENDERING_PACKAGES)},
    )

    def build(folder: Path) -> dict[str, Any]:
        fields = ({"question": one.text, "solution": _solution(one)} for one in inputs.questions)
        texts = [_FIELD.sub(lambda name: own[name[1]], expert_context) for own in fields]  # noqa: B023
        vocabulary.warn_of_unknown_tokens(
            f"expert {inputs.expert.name}", "method.expert_context", tokenizer, texts[:100]
        )
        prompts = (render_prompt(tokenizer, text, inputs.prompt) for text in texts)
        limit = locating.config_context(inputs.expert)
        return references.with_prompts(answers.artifact.folder, [*prompts], folder, context=limit)

    artifact = context.make(recipe, build, stage="sample")
    return replace(answers, artifact=artifact, drawn=answers.artifact)


@register("trajectories")
def expert_sampled(
    context: RunContext,
    *,
    samples: Count = 4,
    temperature: Annotated[float, "(0, inf)"] = 1.0,
    top_p: Annotated[float, "(0, 1]"] = 1.0,
    max_new_tokens: Count = 2048,
) -> Trajectories:
    """Sampled answers, right or wrong; `samples` are drawn for each question.

    `sampler.max_new_tokens` does not apply to sampled answers.
    """
    sampling = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    return _sampled(context, context.inputs.teacher_prompt, samples=samples, **sampling)


@register("trajectories", needs=("references",), like=expert_sampled)
def expert_verified(context: RunContext, **sampling: Any) -> Trajectories:
    """Rejection sampling: full sampled answers that equal the reference."""
    return _chosen(context, expert_sampled(context, **sampling), "verified", right=True)


@register("trajectories", like=expert_sampled)
def expert_formatted(
    context: RunContext, *, last_sentence: bool = False, boxed: bool = True, **sampling: Any
) -> Trajectories:
    """Full sampled answers under the evaluation's prompt that end and have a box, right or wrong.

    With `last_sentence` only the tokens from the sentence with the last box on are learned from.
    Without `boxed`, all answers that end: for models that write no box.
    """
    if last_sentence and not boxed:
        raise UserError("method.last_sentence=true needs method.boxed=true: it starts at a box.")
    drawn = _sampled(context, context.inputs.evaluation_prompt, **sampling)
    return _chosen(context, drawn, "formatted", last_sentence=last_sentence, boxed=boxed)


@register("trajectories", needs=("references",), like=expert_sampled)
def expert_formatted_wrong(context: RunContext, **sampling: Any) -> Trajectories:
    """Those of `expert_formatted` with a box that differ from the reference."""
    drawn = _sampled(context, context.inputs.evaluation_prompt, **sampling)
    return _chosen(context, drawn, "formatted", right=False, boxed=True)


@register("trajectories", needs=("solutions",))
def human_solution(context: RunContext) -> Trajectories:
    """The data set's worked solutions, as the expert's tokens."""
    inputs = context.inputs
    recipe = Recipe(
        "solutions",
        references.VERSION,
        {"questions": fingerprint(inputs.questions), "expert": inputs.expert.fingerprint},
        {"prompt": inputs.teacher_prompt.identity, **versions_of(RENDERING_PACKAGES)},
    )

    def build(folder: Path) -> dict[str, Any]:
        return references.write_solutions(
            inputs.questions,
            map(_solution, inputs.questions),
            inputs.expert_tokenizer,
            folder,
            context=locating.config_context(inputs.expert),
            prompt=inputs.teacher_prompt,
        )

    artifact = context.make(recipe, build, stage="sample")
    return Trajectories(artifact, by_expert=False)


def _solution(question: Question) -> str:
    """The question's worked solution, ending in its answer, if it has one."""
    return worked_answer(question) if question.answer else question.solution or ""


def _generated(
    context: RunContext, stage: str, settings: dict[str, Any], prompt: Prompt
) -> Artifact:
    """The expert's answers under a prompt, generated with these settings."""
    inputs = context.inputs
    settings = {**settings, "batch_size": inputs.settings.sampler.batch_size}
    recipe = Recipe(
        stage,
        rollout.VERSION,
        {"questions": prompts_fingerprint(inputs.questions), "expert": inputs.expert.fingerprint},
        {"prompt": prompt.identity, **settings, **context.models.generation_environment("sampler")},
    )

    def build(folder: Path) -> dict[str, Any]:
        with context.models.generating("sampler") as (expert, generate):
            options = {"prompt": prompt, "generate": generate, **settings}
            return rollout.roll_out(inputs.questions, expert, folder, **options)

    return context.make(recipe, build, stage="sample", together=True)


def _sampled(context: RunContext, prompt: Prompt, *, samples: int, **sampling: Any) -> Trajectories:
    settings = {"samples": samples, **sampling, "seed": context.inputs.settings.seed}
    answers = _generated(context, "sampled", settings, prompt)
    return Trajectories(answers, answers_per_question=samples)


def _chosen(
    context: RunContext,
    sampled: Trajectories,
    stage: str,
    *,
    right: bool | None = None,  # whether they equal the reference; None for both
    last_sentence: bool = False,  # see `references.keep_chosen`
    boxed: bool = False,  # only those that have a box
) -> Trajectories:
    """The sampled answers that ended.

    Raises UserError: the stage is `formatted` and no answer is left.
    """
    inputs, drawn = context.inputs, sampled.artifact
    kind, samples = inputs.settings.data.answer, sampled.answers_per_question
    which = {"right": right, "last_sentence": last_sentence, "boxed": boxed}
    recipe = Recipe(
        stage,
        references.VERSION,
        {
            "answers": drawn.address,
            "questions": fingerprint(inputs.questions),  # with their references
            **versions_of(GRADING_PACKAGES),
        },
        {"kind": kind, "grading": grade.VERSION, **which},
    )

    def choose(index: int, text: str) -> bool:
        question = inputs.questions[index // samples]
        if boxed and extract(text, kind, question.choices).rule != "box":
            return False
        if right is None:
            return True
        return grade.grade_question(text, question, kind).correct == right

    def build(folder: Path) -> dict[str, Any]:
        tokenizer = inputs.expert_tokenizer
        # Wrong answers repeat more often, so that fewer of them were left without repeats.
        repeats = stage == "formatted"
        options = {"samples": samples, "repeats": repeats, "last_sentence": last_sentence}
        return references.keep_chosen(drawn.folder, tokenizer, choose, folder, **options)

    made = context.make(recipe, build, stage="sample")
    if stage == "formatted" and not made.facts["answers"]:
        raise UserError(
            f"method={inputs.method.name}: none of the {drawn.facts['answers']} sampled answers "
            f"{'is wrong, ' if right is False else ''}ends{' and has a box' if boxed else ''}, so "
            "there is no format to learn. Raise method.samples or method.max_new_tokens, or choose "
            "another prompt as the first of evaluator.prompts."
        )
    return replace(sampled, artifact=made, drawn=drawn)

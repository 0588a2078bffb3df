"""Trajectories: the answers that a method learns from (`method.trajectories`).

A choice takes the run's context and returns `Trajectories`; it makes its artifacts in the store.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.method import register
from lr_exp.data.questions import fingerprint, prompts_fingerprint
from lr_exp.evaluator import grade
from lr_exp.evaluator.prompts import worked_answer
from lr_exp.models import locating
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import GRADING_PACKAGES, RENDERING_PACKAGES
from lr_exp.sampler import references, rollout
from lr_exp.store import Artifact, Recipe


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
    sampler = context.inputs.settings.sampler
    settings = {"max_new_tokens": sampler.max_new_tokens, "batch_size": sampler.batch_size}
    return Trajectories(_generated(context, "rollout", settings))


@register("trajectories", needs=("references",))
def expert_verified(
    context: RunContext,
    *,
    samples: Annotated[int, "[1, 2147483647]"] = 4,
    temperature: Annotated[float, "(0, inf)"] = 1.0,
    top_p: Annotated[float, "(0, 1]"] = 1.0,
    max_new_tokens: Annotated[int, "[1, 2147483647]"] = 2048,
) -> Trajectories:
    """Rejection sampling: full sampled answers, of which those that equal the reference are kept.

    `samples` are drawn for each question; `sampler.max_new_tokens` does not apply.
    """
    settings = {
        "max_new_tokens": max_new_tokens,
        "batch_size": context.inputs.settings.sampler.batch_size,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "seed": context.inputs.settings.seed,
    }
    drawn = _generated(context, "sampled", settings)
    return Trajectories(_verified(context, drawn, samples), drawn, samples)


@register("trajectories", needs=("solutions",))
def human_solution(context: RunContext) -> Trajectories:
    """The data set's worked solutions, as the expert's tokens."""
    inputs = context.inputs
    recipe = Recipe(
        "solutions",
        references.VERSION,
        {"questions": fingerprint(inputs.questions), "expert": inputs.expert.fingerprint},
        {"prompt": inputs.prompt.identity, **{name: version(name) for name in RENDERING_PACKAGES}},
    )

    def build(folder: Path) -> dict[str, Any]:
        return references.write_solutions(
            inputs.questions,
            (worked_answer(q) if q.answer else q.solution or "" for q in inputs.questions),
            inputs.expert_tokenizer,
            folder,
            context=locating.config_context(inputs.expert),
            prompt=inputs.prompt,
        )

    artifact = context.make(recipe, build, stage="sample")
    return Trajectories(artifact, by_expert=False)


def _generated(context: RunContext, stage: str, settings: dict[str, Any]) -> Artifact:
    """The artifact of answers that are generated with these settings."""
    inputs = context.inputs
    recipe = Recipe(
        stage,
        rollout.VERSION,
        {"questions": prompts_fingerprint(inputs.questions), "expert": inputs.expert.fingerprint},
        {
            "prompt": inputs.prompt.identity,
            **settings,
            **context.models.generation_environment("sampler"),
        },
    )

    def build(folder: Path) -> dict[str, Any]:
        with context.models.generating("sampler") as (expert, generate):
            options = {"prompt": inputs.prompt, "generate": generate, **settings}
            return rollout.roll_out(inputs.questions, expert, folder, **options)

    return context.make(recipe, build, stage="sample", together=True)


def _verified(context: RunContext, drawn: Artifact, samples: int) -> Artifact:
    """The sampled answers that equal the reference."""
    inputs = context.inputs
    kind = inputs.settings.data.answer
    recipe = Recipe(
        "verified",
        references.VERSION,
        {
            "answers": drawn.address,
            "questions": fingerprint(inputs.questions),  # with their references
            **{name: version(name) for name in GRADING_PACKAGES},
        },
        {"kind": kind, "grading": grade.VERSION},
    )

    def is_right(index: int, text: str) -> bool:
        question = inputs.questions[index // samples]
        return grade.grade_answer(text, question.answer or "", kind, question.choices).correct

    def build(folder: Path) -> dict[str, Any]:
        tokenizer = inputs.expert_tokenizer
        return references.keep_verified(drawn.folder, tokenizer, is_right, folder, samples=samples)

    return context.make(recipe, build, stage="sample")

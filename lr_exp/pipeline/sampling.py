"""The stage `sample`: from questions to supervision, each step with the recipe of its artifact."""

import gzip
import json
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.models.prompts import render_prompt
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import RENDERING_PACKAGES, Inputs, versions_of
from lr_exp.pipeline.trajectories import Trajectories
from lr_exp.report.read.summary import SampleSummary
from lr_exp.sampler import reading, records, score, select
from lr_exp.sampler.supervision import read_supervision
from lr_exp.store import Artifact, Recipe, write_atomically
from lr_exp.store.run_folder import TRAJECTORIES

log = logging.getLogger(__name__)

# Of an engine's greedy tokens. Rounding changes one token in a hundred at most; a quantized copy,
# another model with the same tokenizer or an attached adapter changes many.
_MIN_EXPERT_TOP1_SHARE = 0.95
_GENERATING_STAGES = ("rollout", "sampled")
_MODEL_STAGES = (*_GENERATING_STAGES, "score")


def make_supervision(context: RunContext, folder: Path) -> tuple[Artifact, SampleSummary]:
    """Makes the supervision; writes some of the answers to the run's folder, for pages."""
    inputs = context.inputs
    made: dict[str, Artifact] = {}
    if inputs.settings.imports_records:
        supervision = _import_records(context)
    else:
        trajectories = inputs.method.trajectories(context)
        made = {artifact.stage: artifact for artifact in trajectories.artifacts}
        steps = None
        if inputs.method.needs_amateur:
            made["score"] = steps = score_trajectories(context, trajectories.artifact)
        supervision = select_steps(context, trajectories.artifact, steps)
        if distributed.is_rank0():
            shown = json.dumps(_sample_for_page(context, trajectories, steps, supervision))
            write_atomically(folder / TRAJECTORIES, gzip.compress(shown.encode(), mtime=0))
    export = inputs.settings.sampler.export
    if export is not None:
        kept, tokenizer = read_supervision(supervision.folder), inputs.expert_tokenizer
        distributed.run_on_rank0(lambda: records.export_records(kept, tokenizer, Path(export)))
    stages = {**made, "supervision": supervision}
    generated = [made[name].facts["tokens"] for name in _GENERATING_STAGES if name in made]
    by_models = [made[name] for name in _MODEL_STAGES if name in made]
    flops = [artifact.facts["flops"] for artifact in by_models]
    peaks = [artifact.facts["peak_memory_bytes"] for artifact in made.values()]
    facts: dict[str, Any] = {"questions": len(inputs.questions)} if made else {}
    facts |= supervision.facts | {
        "generated_tokens": sum(generated) if made else None,
        "flops": None if not made or None in flops else sum(flops),
        "seconds": sum(artifact.seconds for artifact in stages.values()),
        "seconds_by_stage": {name: artifact.seconds for name, artifact in stages.items()},
        "peak_memory_bytes": max(peaks, default=None),
        "reused": bool(made) and all(one.reused for one in by_models or made.values()),
        "artifact": str(supervision.folder),
        "supervision": supervision.facts["digest"],
        "export": export,
    }
    if "verified" in made:
        facts["verified"] = made["verified"].facts
    return supervision, SampleSummary.model_validate(facts)


def score_trajectories(context: RunContext, trajectories: Artifact) -> Artifact:
    """Scores the trajectories with both models: one row of the step table per token."""
    inputs = context.inputs
    sampler = inputs.settings.sampler
    settings = {"support_floor": sampler.support_floor, "tokens_per_pass": sampler.tokens_per_pass}
    recipe = Recipe(
        "score",
        score.VERSION,
        {
            "trajectories": trajectories.address,
            "expert": inputs.expert.fingerprint,
            "amateur": inputs.amateur.fingerprint,
            "shared": asdict(inputs.scored),
        },
        {"prompt": inputs.prompt.identity, **settings, **inputs.machine},
    )

    def build(folder: Path) -> dict[str, Any]:
        pair = context.models.pair()
        shown = {"prompt": inputs.prompt, "cross": inputs.cross}
        return score.score(trajectories.folder, pair, folder, **shown, **settings)

    steps = context.make(recipe, build, stage="sample", together=True)
    by_engine = sampler.engine != "transformers" and trajectories.stage == "rollout"
    if by_engine and distributed.is_rank0():
        share = score.expert_top1_share(steps.folder)
        if share < _MIN_EXPERT_TOP1_SHARE:
            log.warning(
                "sampler.engine=%s: only %.1f%% of the generated tokens are the most probable ones "
                "of the expert %s. Does the engine serve another model, another precision or an "
                "adapter?",
                sampler.engine,
                100 * share,
                inputs.settings.expert.name,
            )
    return steps


def select_steps(context: RunContext, trajectories: Artifact, steps: Artifact | None) -> Artifact:
    """Selects steps and targets from the step table or, without one, from the trajectories."""
    inputs, method = context.inputs, context.inputs.method
    identity, student_prompt = method.identity("select", "target"), None
    if method.needs("context"):  # the student's replaces the expert's
        identity |= {"prompt": inputs.prompt.identity, "expert": inputs.expert.fingerprint}
        student_prompt = partial(render_prompt, inputs.expert_tokenizer, prompt=inputs.prompt)
    recipe = Recipe(
        "supervision",
        select.VERSION,
        {"trajectories": trajectories.address, "steps": steps.address if steps else None},
        identity,
    )

    def build(folder: Path) -> dict[str, Any]:
        table = steps.folder if steps else None
        return select.write(
            trajectories.folder, table, method, folder, student_prompt=student_prompt
        )

    return context.make(recipe, build, stage="sample")


def _import_records(context: RunContext) -> Artifact:
    inputs = context.inputs
    path = Path(inputs.settings.data.path or "").expanduser()
    tokenizer = inputs.expert_tokenizer  # reads prefixes without ids
    recipe = Recipe(
        "records",
        records.VERSION,
        {"records": inputs.records_digest, "expert": inputs.expert.fingerprint},
        {"prompt": inputs.prompt.identity, **versions_of(RENDERING_PACKAGES)},
    )

    def build(folder: Path) -> dict[str, Any]:
        supervision = records.import_records(
            path, tokenizer, prompt=inputs.prompt, vocabulary_size=len(tokenizer)
        )
        supervision.save(folder)
        return {**records.profile(supervision), "digest": supervision.digest()}

    # Reading a file does not count as the stage `sample`: it happens whatever `stages` says.
    return context.make(recipe, build)


def _sample_for_page(
    context: RunContext, trajectories: Trajectories, steps: Artifact | None, supervision: Artifact
) -> dict[str, Any]:
    """Some of the answers with their scores and labels, for pages."""
    inputs = context.inputs
    method, settings = inputs.method, inputs.settings

    def verdict(index: int, text: str) -> reading.Verdict | None:
        question = inputs.questions[index // trajectories.answers_per_question]
        if question.answer is None or not trajectories.by_expert:
            return None
        try:
            graded = grade.grade_question(text, question, settings.data.answer)
        except UserError:  # the reference is broken
            return None
        found = {"predicted": graded.extracted, "correct": graded.correct}
        return {"reference": question.answer, **found}

    names = {
        "method": method.name,
        "expert": settings.expert.name,
        "amateur": inputs.amateur.name if steps else None,
        "beta": settings.beta if method.reads("beta") else None,
    }
    return names | reading.sample_for_display(
        trajectories.artifact.folder,
        steps.folder if steps else None,
        supervision.folder,
        inputs.expert_tokenizer,
        alpha=settings.alpha if steps and method.reads("alpha") else None,
        verdict=verdict,
    )


def why_nothing_is_kept(inputs: Inputs, sample: SampleSummary) -> str:
    """Why there is nothing to train on, and how to change that."""
    method, beta = inputs.method, inputs.settings.beta
    if sample.verified:
        drawn = sample.verified.drawn
        return (
            f"None of the {drawn} sampled answers is right, so nothing was trained. Raise "
            "method.samples or method.max_new_tokens, or choose easier questions."
        )
    if not method.reads("beta"):
        return "The method kept no step, so nothing was trained. Use more questions."
    highest = "no step was scored"
    if sample.kl_max is not None:
        highest = f"the highest KL is {sample.kl_max:.4g} nats"
    return (
        f"No step has a KL above beta={beta} ({highest}), so nothing was trained. Lower beta, or "
        "choose an amateur that differs more from the expert."
    )

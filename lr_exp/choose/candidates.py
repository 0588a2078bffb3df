"""Candidate amateurs: scored once each, gated and ranked, without references."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_exp.api import compose
from lr_exp.config.settings import (
    AmateurSettings,
    BenchmarkSettings,
    ChooseSettings,
    Settings,
)
from lr_exp.data.questions import fingerprint
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.answer import Sampling
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.votes import with_votes
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.evaluating import Variant, make_answers
from lr_exp.pipeline.inputs import GRADING_PACKAGES, versions_of
from lr_exp.pipeline.interactive import context_of
from lr_exp.pipeline.sampling import score_trajectories, select_steps
from lr_exp.report.analyse.paired import Estimate, difference
from lr_exp.sampler.diagnostics import diagnose_pair
from lr_exp.store import Artifact, Recipe
from lr_exp.store.shards import read_by_index

BENCHMARK = "choose"  # the asked questions, as a benchmark
UNLABELLED = 32  # questions of the self-consistency, without references


@dataclass(frozen=True)
class Candidate:
    """An amateur, and what is known of it without references."""

    name: str
    words: tuple[str, ...]  # the overrides that choose it
    context: RunContext
    rejected: tuple[str, ...]  # why; empty: it passes the gate
    profile: dict[str, Any]  # facts of the selection, see `Counts.profile`
    agreement: float | None = None  # with its own majority, see `self_consistency`
    gap: Estimate | None = None  # the expert's agreement minus the amateur's
    steps: Artifact | None = None  # the step table

    @property
    def moving(self) -> float:
        """The share of kept steps whose label's most probable token is not the expert's."""
        return self.profile.get("moving_of_kept") or 0.0


def amateurs(
    overrides: Sequence[str],
    settings: Settings,
    choose: ChooseSettings,
    layers: int,
    **options: Any,
) -> dict[str, tuple[tuple[str, ...], AmateurSettings]]:
    """The overrides and settings of each candidate, by its name.

    Raises UserError: an amateur is unknown, or there are fewer than two candidates.
    """
    found: dict[str, tuple[tuple[str, ...], AmateurSettings]] = {}
    for name in choose.amateurs:
        word = f"amateur.path={name}" if "/" in name else f"amateur={name}"
        found[name] = (word,), compose(*overrides, word, **options).amateur
    if not found:
        found[settings.amateur.name] = (), settings.amateur
    for layer in range(layers if choose.early_exits else 0):
        name = f"early_exit_{layer}"
        words = ("amateur=early_exit", f"amateur.drop_layers=[{layer}]")
        found[name] = words, AmateurSettings(name=name, drop_layers=[layer])
    if len(found) < 2:
        raise UserError(
            f"choose.amateurs={[*found]} with choose.early_exits=false is one candidate: list "
            "several, or set choose.early_exits=true."
        )
    return found


def prepare(settings: Settings, choose: ChooseSettings) -> RunContext:
    """The context that all candidates share; its benchmark are the questions that are asked.

    Raises UserError: the method reads no amateur or no alpha, or references are missing.
    """
    exit_ = AmateurSettings(name="early_exit", drop_layers=[0])  # replaced for each candidate
    stages = ["sample", "distill"]
    context = context_of(replace(settings, stages=stages, benchmarks=[], amateur=exit_))
    inputs, data = context.inputs, settings.data
    if settings.imports_records:
        raise UserError(f"data={data.name} holds kept steps only: choose a data set of questions.")
    method = inputs.method
    if not (method.needs_amateur and method.target.choice.columns) or method.epochs is not None:
        raise UserError(
            f"method={method.name} has no soft labels from an amateur, or method.epochs: choose "
            "another method, such as lightreasoner."
        )
    inputs.check()
    asked, count = [*inputs.questions], choose.questions or UNLABELLED
    if choose.questions:
        asked = [question for question in asked if question.answer is not None]
        if len(asked) < count:
            raise UserError(
                f"choose.questions={count}: {len(asked)} of the {len(inputs.questions)} questions "
                f"of data={data.name} have a reference answer. Add references, lower "
                "choose.questions (at least 4), or remove it to choose without references."
            )
        grade.check_references(asked[:count], data.answer)
    shown = BenchmarkSettings(name=BENCHMARK, format=data.format, answer=data.answer)
    inputs.benchmarks, inputs.benchmark_questions = [shown], {BENCHMARK: asked[:count]}
    prompt = inputs.evaluation_prompt
    inputs.prompts = {prompt.form.name: {BENCHMARK: prompt}}
    return context


def sampled(
    context: RunContext, choose: ChooseSettings, who: str = "expert", **more: Any
) -> Variant:
    """The variant that samples `choose.samples` answers at temperature 1."""
    sampling = Sampling(choose.samples, 1.0, context.inputs.settings.seed)
    return Variant(context.inputs.headline, who=who, decoder="sampled", sampling=sampling, **more)


def self_consistency(context: RunContext, choose: ChooseSettings, who: str) -> NDArray[np.float64]:
    """`(questions,)`: how far a model agrees with itself, without references.

    Of the sampled answers to a question, the share that equals the most frequent one. It is at
    least 1 / samples where an answer can be read, and 0 where none can. A model that knows how to
    answer agrees with itself more often than one that guesses, also where both are wrong.
    """
    benchmark = context.inputs.benchmarks[0]
    questions, kind = context.inputs.benchmark_questions[BENCHMARK], benchmark.answer
    answers = make_answers(context, benchmark, sampled(context, choose, who))
    inputs = {"answers": answers.address, "questions": fingerprint(questions)}
    versions = versions_of(GRADING_PACKAGES)
    recipe = Recipe("agreement", grade.VERSION, {**inputs, **versions}, {"kind": kind})

    def build(_: Path) -> dict[str, Any]:
        records = []
        for row in read_by_index(answers.folder):
            choices = questions[row["index"] // choose.samples].choices
            extracted, _ = extract(row["output"], kind, choices)
            known = {"extracted": extracted, "correct": False, "kind": kind, "choices": choices}
            records.append(known)
        votes = [one["vote"] for one in with_votes(records, choose.samples)]
        by_question = np.reshape(np.array(votes, dtype=object), (-1, choose.samples))
        most = [
            max(Counter(v for v in own if v is not None).values(), default=0) for own in by_question
        ]
        return {"agreement": [one / choose.samples for one in most]}

    return np.array(context.make(recipe, build).facts["agreement"])


def measure(
    context: RunContext,
    choose: ChooseSettings,
    found: dict[str, tuple[tuple[str, ...], AmateurSettings]],
) -> list[Candidate]:
    """All candidates: first those that pass the gate, by the share of moving kept steps."""
    expert = self_consistency(context, choose, "expert")
    trajectories = context.inputs.method.trajectories(context).artifact
    candidates: list[Candidate] = []
    seen: set[str] = set()
    for name, (words, amateur) in found.items():
        own = context.changed(amateur=amateur)
        if own.inputs.amateur.fingerprint in seen:
            continue  # an early exit that is also listed
        seen.add(own.inputs.amateur.fingerprint)
        try:
            steps = score_trajectories(own, trajectories)
        except UserError as error:  # other tokens, a short context, layers that cannot be left out
            candidates.append(Candidate(name, words, own, (str(error),), {}))
            continue
        profile = select_steps(own, trajectories, steps).facts
        agreement = self_consistency(own, choose, "amateur")
        gap = difference(expert[None], agreement[None])
        reasons = (*_too_consistent(expert, agreement, gap), *diagnose_pair(profile))
        if not profile["kept"]:
            beta = own.inputs.settings.beta
            reasons = (f"No step has a divergence above beta={beta}.", *reasons)
        mean = float(agreement.mean())
        candidates.append(Candidate(name, words, own, reasons, profile, mean, gap, steps))
    return sorted(candidates, key=lambda one: (bool(one.rejected), -one.moving))


def _too_consistent(
    expert: NDArray[np.float64], amateur: NDArray[np.float64], gap: Estimate
) -> list[str]:
    """Rejects an amateur that agrees with itself more than the expert, beyond the 95 % interval."""
    if gap.ci95[1] >= 0:
        return []
    return [
        f"It agrees with itself more than the expert: {100 * amateur.mean():.1f} % against "
        f"{100 * expert.mean():.1f} %, so it is probably the stronger model."
    ]

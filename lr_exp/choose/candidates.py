"""Candidate amateurs: scored once each, gated and ranked, without references."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_exp.api import compose
from lr_exp.config.settings import AmateurSettings, BenchmarkSettings, ChooseSettings
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.answer import Sampling
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.votes import with_votes
from lr_exp.models.locating import config_number
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.evaluating import Variant, make_answers
from lr_exp.pipeline.interactive import context_of
from lr_exp.pipeline.sampling import score_trajectories, select_steps
from lr_exp.report.analyse.paired import Estimate, difference
from lr_exp.sampler.diagnostics import diagnose_pair
from lr_exp.store import Artifact
from lr_exp.store.shards import read_by_index

BENCHMARK = "choose"  # the asked questions, as a benchmark
UNLABELLED = 32  # questions that are asked without references


@dataclass(frozen=True)
class Candidate:
    """An amateur, and what is known of it without references."""

    name: str
    words: tuple[str, ...]  # the overrides that choose it
    context: RunContext
    rejected: tuple[str, ...]  # why; empty: it passes
    profile: dict[str, Any]  # facts of the selection, see `Counts.profile`
    agreement: float | None = None  # see `self_consistency`
    gap: Estimate | None = None  # the expert's agreement minus the amateur's
    steps: Artifact | None = None  # the step table

    @property
    def moving(self) -> float:
        """The share of kept steps whose label's most probable token is not the expert's."""
        return self.profile.get("moving_of_kept") or 0.0


def prepare(overrides: Sequence[str], choose: ChooseSettings) -> RunContext:
    """The context that the candidates share. The asked questions are its only benchmark.

    Raises UserError: the method has no soft label, or references are missing.
    """
    settings = compose(*overrides)
    shown = AmateurSettings(name="early_exit", drop_layers=[0])  # until there is a candidate
    changed = {"stages": ["sample", "distill"], "benchmarks": [], "amateur": shown}
    context = context_of(replace(settings, **changed))
    inputs, data, method = context.inputs, settings.data, context.inputs.method
    soft = method.target.choice.columns and not method.needs("context")
    if settings.imports_records or not soft or method.epochs:
        raise UserError(
            f"method={method.name} with data={data.name}: choose questions, and a method with soft "
            "labels from an amateur and without epochs, such as lightreasoner."
        )
    inputs.check()
    asked, count = [*inputs.questions], choose.questions or UNLABELLED
    if choose.questions:
        asked = [question for question in asked if question.answer is not None]
        if len(asked) < count:
            raise UserError(
                f"choose.questions={count}: only {len(asked)} questions of data={data.name} have "
                "a reference. Add some, lower it, or remove it to choose without references."
            )
        grade.check_references(asked[:count], data.answer)
    inputs.benchmarks = [BenchmarkSettings(BENCHMARK, data.format, answer=data.answer)]
    inputs.benchmark_questions = {BENCHMARK: asked[:count]}
    inputs.prompts = {inputs.evaluation_prompt.form.name: {BENCHMARK: inputs.evaluation_prompt}}
    return context


def measure(
    context: RunContext, overrides: Sequence[str], choose: ChooseSettings
) -> list[Candidate]:
    """All candidates: first those that pass, by the share of moving kept steps.

    Raises UserError: an amateur is unknown, or there is only one candidate.
    """
    amateurs = [*_amateurs(context, overrides, choose)]
    if len({words for words, _ in amateurs}) < 2:
        raise UserError("there is one candidate: list several in choose.amateurs.")
    expert = self_consistency(context, choose, "expert")
    trajectories = context.inputs.method.trajectories(context).artifact
    found: dict[str, Candidate] = {}  # by fingerprint: an early exit may also have a name
    for words, amateur in amateurs:
        own, name = context.changed(amateur=amateur), amateur.name
        try:
            steps = score_trajectories(own, trajectories)
            agreement = self_consistency(own, choose, "amateur")
        except UserError as error:  # other tokens, a short context, an unsuitable architecture
            found[name] = Candidate(name, words, own, (str(error),), {})
            continue
        profile = select_steps(own, trajectories, steps).facts
        mean, gap = float(agreement.mean()), difference(expert[None], agreement[None])
        shares = f"{100 * mean:.1f} % against {100 * expert.mean():.1f} %"
        above = f"It agrees with itself more than the expert ({shares}): it may be stronger."
        kept = f"{profile['kept']:,} kept steps (beta={own.inputs.settings.beta})"
        still = f"At none of the {kept} does the label move the expert."
        tests = {still: not profile.get("moving"), above: gap.ci95[1] < 0}
        reasons = (*(one for one, holds in tests.items() if holds), *diagnose_pair(profile))
        one = Candidate(name, words, own, reasons, profile, mean, gap, steps)
        found.setdefault(own.inputs.amateur.fingerprint, one)
    return sorted(found.values(), key=lambda one: (bool(one.rejected), -one.moving))


def _amateurs(
    context: RunContext, overrides: Sequence[str], choose: ChooseSettings
) -> Iterator[tuple[tuple[str, ...], AmateurSettings]]:
    """The overrides and settings of each candidate."""
    for name in choose.amateurs:
        word = f"amateur.path={name}" if "/" in name else f"amateur={name}"
        yield (word,), compose(*overrides, word).amateur
    if not choose.amateurs:
        yield (), compose(*overrides).amateur
    layers = config_number(context.inputs.expert, "num_hidden_layers") or 0
    for layer in range(layers if choose.early_exits else 0):
        words = ("amateur=early_exit", f"amateur.drop_layers=[{layer}]")
        yield words, AmateurSettings(name=f"early_exit_{layer}", drop_layers=[layer])


def sampled(context: RunContext, choose: ChooseSettings, **of: Any) -> Variant:
    """The variant that samples `choose.samples` answers to each question at temperature 1."""
    sampling = Sampling(choose.samples, 1.0, context.inputs.settings.seed)
    return Variant(context.inputs.headline, decoder="sampled", sampling=sampling, **of)


def self_consistency(context: RunContext, choose: ChooseSettings, who: str) -> NDArray[np.float64]:
    """`(questions,)`: the share of a model's sampled answers that equal the most frequent one.

    It is at least 1 / samples where an answer can be read, and 0 where none can. It needs no
    reference: a stronger model agrees with itself more often. Being wrong in one way does, too.
    """
    benchmark, count = context.inputs.benchmarks[0], choose.samples
    questions, kind = context.inputs.benchmark_questions[BENCHMARK], benchmark.answer
    answers = make_answers(context, benchmark, sampled(context, choose, who=who))
    records: list[dict[str, Any]] = []
    for row in read_by_index(answers.folder):
        choices = questions[row["index"] // count].choices
        answer = extract(row["output"], kind, choices)[0]
        records.append({"extracted": answer, "correct": False, "kind": kind, "choices": choices})
    votes = [one["vote"] for one in with_votes(records, count)]
    own = [Counter(votes[start : start + count]) for start in range(0, len(votes), count)]
    most = [max((n for vote, n in one.items() if vote is not None), default=0) for one in own]
    return np.array(most) / count

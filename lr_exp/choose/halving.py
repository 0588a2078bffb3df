"""Successive halving over amateur, alpha and beta, with a few references."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from operator import mul
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.choose.candidates import BENCHMARK, Candidate, sampled
from lr_exp.config.settings import ChooseSettings
from lr_exp.distiller.distill import attach_adapter
from lr_exp.errors import UserError
from lr_exp.evaluator.prompts import question_text
from lr_exp.inference.generation import render_prompts
from lr_exp.models.packing import groups_within, pack, pass_size, read_logits
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.distilling import Tuned, make_adapter
from lr_exp.pipeline.evaluating import evaluate_benchmark, make_answers
from lr_exp.pipeline.sampling import select_steps
from lr_exp.progress import Progress
from lr_exp.report.read.json_file import read_json_lines
from lr_exp.store import Artifact, Recipe
from lr_exp.store.shards import read_by_index

VERSION = 1  # of the margins
RESAMPLES = 10_000

Scores = NDArray[np.float64]  # (questions,)
Answer = tuple[list[int], list[int]]  # token ids of a prompt and of an answer


@dataclass
class Trial:
    """An amateur with an alpha and a beta, and its scores after each rung that it reached."""

    candidate: Candidate
    alpha: float
    beta: float
    context: RunContext
    supervision: Artifact
    scores: dict[int, Scores] = field(default_factory=dict)  # by optimizer steps
    rung: Artifact | None = None

    def mean(self, half: slice, steps: int | None = None) -> float:
        """The mean score over a half of the questions, by default after the last rung."""
        return float(self.scores[max(self.scores) if steps is None else steps][half].mean())


# Of the questions by which trials are chosen, and of those held out.
CHOOSING, HELD_OUT = slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class Trials:
    """All trials, the best first: those that reached a later rung precede others."""

    ranked: list[Trial]
    measure: str  # what the scores are, with the unit
    untuned: Scores
    same: int  # trials left out because their labels are those of another
    steps: int  # optimizer steps trained
    grid_steps: int  # of all trials, each to the last rung

    @property
    def survivors(self) -> list[Trial]:
        last = max(self.ranked[0].scores)
        return [one for one in self.ranked if last in one.scores]


def halve(context: RunContext, candidates: Sequence[Candidate], choose: ChooseSettings) -> Trials:
    """Trains all trials to the first rung, the better half of them to the next, and so on.

    A rung is a snapshot of one training at a constant learning rate: a later rung continues from
    the earlier one. Trials are compared by the questions of `CHOOSING`.
    """
    alive, same = _trials(candidates, choose)
    measure, score = _scorer(context, choose)
    rungs, done = choose.rungs, list[Trial]()
    sizes = [*accumulate(rungs[1:], lambda count, _: _kept(count), initial=len(alive))]
    added = [steps - before for before, steps in zip([0, *rungs], rungs, strict=False)]
    trained, grid = sum(map(mul, sizes, added)), len(alive) * rungs[-1]
    constant = {"schedule": "constant", "warmup_steps": 0, "snapshot_every": None}
    with Progress("choose", sum(sizes), "training") as progress:
        for steps, size in zip(rungs, sizes, strict=True):
            alive, done = alive[:size], [*alive[size:], *done]
            for trial in alive:
                distiller = trial.context.inputs.settings.distiller
                own = trial.context.changed(distiller=replace(distiller, steps=steps, **constant))
                tuned = make_adapter(own, trial.supervision, is_rung=True, start=trial.rung)
                trial.rung, trial.scores[steps] = tuned.artifact, score(tuned)
                progress.add()
            alive.sort(key=lambda one: -one.mean(CHOOSING))
    return Trials([*alive, *done], measure, score(None), same, trained, grid)


def _kept(count: int) -> int:
    """The better half, and at least two, so that the best has one to be compared with."""
    return max(2, math.ceil(count / 2))


def _trials(candidates: Sequence[Candidate], choose: ChooseSettings) -> tuple[list[Trial], int]:
    """The trials whose labels differ from each other's, and how many others there are.

    Raises UserError: fewer than two trials keep a step.
    """
    trials: dict[str, Trial] = {}
    total = 0
    for candidate, alpha, beta in product(candidates, choose.alphas, choose.betas):
        own = candidate.context.changed(alpha=alpha, beta=beta)
        trajectories = own.inputs.method.trajectories(own).artifact
        made = select_steps(own, trajectories, candidate.steps)
        if made.facts["kept"]:
            total += 1
            trial = Trial(candidate, alpha, beta, own, made)
            trials.setdefault(made.facts["digest"], trial)
    if len(trials) < 2:
        raise UserError(
            "fewer than two combinations of amateur, alpha and beta have different labels: list "
            "more in choose.amateurs, choose.alphas or choose.betas."
        )
    return [*trials.values()], total - len(trials)


def _scorer(
    context: RunContext, choose: ChooseSettings
) -> tuple[str, Callable[[Tuned | None], Scores]]:
    """What an adapter (None: the untuned expert) is scored by, and the function that does it.

    The margin is the mean of log pi(y+) minus that of log pi(y-), in nats, over the expert's own
    sampled right answers y+ and wrong ones y- that ended. It is measured on the questions that have
    both. If fewer than two of them are in either half, the score is the sampled accuracy.
    """
    variant, benchmark = sampled(context, choose), context.inputs.benchmarks[0]
    answers = make_answers(context, benchmark, variant)
    grades = evaluate_benchmark(context, benchmark, variant).graded
    graded, samples = _graded(grades), choose.samples
    questions = context.inputs.benchmark_questions[BENCHMARK]
    with context.models.generating("evaluator") as (expert, _):
        prompts = render_prompts(expert, questions, context.inputs.evaluation_prompt, question_text)
    own: list[tuple[list[Answer], list[Answer]]] = []  # right and wrong answers of each question
    rows = read_by_index(answers.folder)
    for number, prompt in enumerate(prompts):
        parts: tuple[list[Answer], list[Answer]] = [], []
        for index in range(number * samples, (number + 1) * samples):
            if graded[index]["finished"]:
                parts[not graded[index]["correct"]].append((prompt, rows[index]["token_ids"]))
        if all(parts):
            own.append(parts)

    def margins(tuned: Tuned | None) -> Scores:
        inputs = {"answers": answers.address, "grades": grades.address}
        inputs["adapter"] = tuned.digest if tuned else ""
        size = context.inputs.settings.sampler.tokens_per_pass or 1
        settings = {"tokens_per_pass": size, **context.inputs.machine}

        def build(_: Path) -> dict[str, Any]:
            return {"margins": _margins(context, tuned, own, size)}

        made = context.make(Recipe("margin", VERSION, inputs, settings), build)
        return np.array(made.facts["margins"])

    def accuracies(tuned: Tuned | None) -> Scores:
        drawn = evaluate_benchmark(context, benchmark, sampled(context, choose, tuned=tuned))
        right = np.array([one["correct"] for one in _graded(drawn.graded)], dtype=float)
        return right.reshape(-1, samples).mean(axis=1)

    if len(own) < 4:
        return "sampled accuracy", accuracies
    return "margin, nats", margins


def _graded(made: Artifact) -> list[dict[str, Any]]:
    return [*read_json_lines(made.folder / "answers.jsonl")]


def _margins(
    context: RunContext,
    tuned: Tuned | None,
    own: Sequence[tuple[list[Answer], list[Answer]]],
    tokens: int,
) -> list[float]:
    expert = context.models.expert()
    attached = attach_adapter(expert, tuned.adapter) if tuned else None
    distinct = {
        (*prompt, -1, *ids): (prompt, ids) for q in own for part in q for prompt, ids in part
    }
    try:
        model = attached or expert.model
        size = pass_size(tokens, context.inputs.device.partition(":")[0], packs=expert.packs)
        values = log_likelihoods(model, [*distinct.values()], expert.vocabulary_size, size)
    finally:
        if attached is not None:
            attached.unload()
    known = dict(zip(distinct, values, strict=True))
    means = [
        [np.mean([known[*prompt, -1, *ids] for prompt, ids in part]) for part in parts]
        for parts in own
    ]
    return [float(right - wrong) for right, wrong in means]


@torch.inference_mode()
def log_likelihoods(
    model: torch.nn.Module, answers: Sequence[Answer], vocabulary_size: int, tokens: int
) -> list[float]:
    """Of each answer: log pi(answer | prompt), in nats, summed over its tokens."""
    device, found = next(model.parameters()).device, []
    for group in groups_within([len(prompt) + len(ids) for prompt, ids in answers], tokens):
        chosen = [answers[index] for index in group]
        reads = [range(len(p) - 1, len(p) + len(ids) - 1) for p, ids in chosen]
        packed = pack([[*prompt, *ids[:-1]] for prompt, ids in chosen], reads).to(device)
        log_probs = contrast.log_probs(read_logits(model, packed)[:, :vocabulary_size])
        written = torch.tensor([one for _, ids in chosen for one in ids], device=device)
        each = log_probs.gather(-1, written[:, None])[:, 0]
        found += [part.sum().item() for part in each.split([len(ids) for _, ids in chosen])]
    return found


def probability_better(winner: Scores, other: Scores, seed: int = 0) -> float:
    """The share of bootstrap samples of the questions in which the winner's mean is higher.

    A tie counts half. Scores are `(questions,)` of the same questions, held out from the choice.
    """
    differences = winner - other
    draws = np.random.default_rng(seed).integers(0, len(differences), (RESAMPLES, len(differences)))
    means = differences[draws].mean(axis=1).round(12)
    return float((means > 0).mean() + (means == 0).mean() / 2)

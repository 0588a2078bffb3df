"""Successive halving over amateur, alpha and beta, with a few references."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lr_exp import contrast
from lr_exp.choose.candidates import BENCHMARK, Candidate, sampled
from lr_exp.config.settings import ChooseSettings
from lr_exp.errors import UserError
from lr_exp.evaluator.prompts import question_text
from lr_exp.inference.generation import render_prompts
from lr_exp.models.loading import LanguageModel
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
Score = Callable[[Tuned | None], Scores]  # of an adapter; None: of the untuned expert
Answer = tuple[tuple[int, ...], tuple[int, ...]]  # token ids of a prompt and of an answer

CHOOSING, HELD_OUT = slice(0, None, 2), slice(1, None, 2)  # the halves of the questions


@dataclass
class Trial:
    """An amateur with an alpha and a beta, and its scores after each rung that it reached."""

    candidate: Candidate
    alpha: float
    beta: float
    context: RunContext
    supervision: Artifact
    scores: dict[int, Scores] = field(default_factory=dict)  # by optimizer steps
    rung: Artifact | None = None  # the last


@dataclass(frozen=True)
class Trials:
    """All trials: those that reached a later rung precede others, then the better ones."""

    ranked: list[Trial]
    measure: str  # what the scores are, with the unit
    untuned: Scores
    same: int  # trials left out because their labels are those of another
    steps: int  # optimizer steps trained
    grid_steps: int  # of a whole run for each trial


def halve(context: RunContext, candidates: Sequence[Candidate], choose: ChooseSettings) -> Trials:
    """Trains all trials to the first rung, the better half of them to the next, and so on.

    A rung is a snapshot of one training at a constant learning rate: a later one continues from the
    earlier one. Trials are compared on the questions of `CHOOSING`.
    """
    alive, same = _trials(candidates, choose)
    measure, score = _scorer(context, choose)
    rungs, done = choose.rungs, list[Trial]()
    # At least two remain, so that the best has another one to be compared with.
    sizes = [*accumulate(rungs, lambda n, _: max(2, math.ceil(n / 2)), initial=len(alive))]
    constant = {"schedule": "constant", "warmup_steps": 0, "snapshot_every": None, "stop": None}
    trained, grid = 0, len(alive) * context.inputs.settings.distiller.steps
    with Progress("choose", sum(sizes[:-1]), "training") as progress:
        for before, steps, size in zip([0, *rungs], rungs, sizes, strict=False):
            alive, done = alive[:size], [*alive[size:], *done]
            for trial in alive:
                distiller = trial.context.inputs.settings.distiller
                own = trial.context.changed(distiller=replace(distiller, steps=steps, **constant))
                tuned = make_adapter(own, trial.supervision, rung=True, start=trial.rung)
                trial.rung, trial.scores[steps] = tuned.artifact, score(tuned)
                trained += steps - before
                progress.add()
            alive.sort(key=lambda one: -one.scores[steps][CHOOSING].mean())
    return Trials([*alive, *done], measure, score(None), same, trained, grid)


def _trials(candidates: Sequence[Candidate], choose: ChooseSettings) -> tuple[list[Trial], int]:
    """The trials with different labels, and how many have the labels of one of them."""
    trials: dict[str, Trial] = {}  # by labels
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
        text = "fewer than two combinations of amateur, alpha and beta have different labels"
        raise UserError(f"{text}: list more in choose.amateurs, choose.alphas or choose.betas.")
    return [*trials.values()], total - len(trials)


def _scorer(context: RunContext, choose: ChooseSettings) -> tuple[str, Score]:
    """What scores are, and the function that measures them.

    The margin is the mean of log pi(y+) minus that of log pi(y-), in nats, over the expert's own
    sampled right answers y+ and wrong ones y- that ended, on the questions that have both. If fewer
    than four do, the score is the accuracy of sampled answers on all questions.
    """
    variant, benchmark = sampled(context, choose), context.inputs.benchmarks[0]
    size, asked = choose.samples, context.inputs.benchmark_questions[BENCHMARK]

    def grades(tuned: Tuned | None = None) -> tuple[list[dict[str, Any]], str]:
        made = evaluate_benchmark(context, benchmark, replace(variant, tuned=tuned)).graded
        return [*read_json_lines(made.folder / "answers.jsonl")], made.address

    graded, address = grades()
    answers = read_by_index(make_answers(context, benchmark, variant).folder)
    expert, prompt = context.models.expert(), context.inputs.evaluation_prompt
    prompts = [tuple(ids) for ids in render_prompts(expert, asked, prompt, question_text)]
    parts: list[tuple[list[Answer], list[Answer]]] = [([], []) for _ in prompts]  # right, wrong
    for index, (row, one) in enumerate(zip(answers, graded, strict=True)):
        answer = prompts[index // size], tuple(row["token_ids"])
        if one["finished"]:
            parts[index // size][not one["correct"]].append(answer)
    both = [pair for pair in parts if all(pair)]

    def margins(tuned: Tuned | None) -> Scores:
        tokens = context.inputs.settings.sampler.tokens_per_pass
        inputs = {"grades": address, "adapter": tuned.digest if tuned else None}
        settings = {"tokens_per_pass": tokens, **context.inputs.machine}

        def build(_: Path) -> dict[str, Any]:
            distinct = [*dict.fromkeys(one for pair in both for part in pair for one in part)]
            with context.models.adapted(tuned and tuned.adapter) as model:
                logs = log_likelihoods(model, distinct, tokens or 1)
            nats = dict(zip(distinct, logs, strict=True))
            means = [[np.mean([nats[one] for one in part]) for part in pair] for pair in both]
            return {"margins": [float(right - wrong) for right, wrong in means]}

        made = context.make(Recipe("margin", VERSION, inputs, settings), build)
        return np.array(made.facts["margins"])

    def accuracies(tuned: Tuned | None) -> Scores:
        right = np.array([one["correct"] for one in grades(tuned)[0]], dtype=float)
        return right.reshape(-1, size).mean(axis=1)

    return ("margin, nats", margins) if len(both) >= 4 else ("sampled accuracy", accuracies)


@torch.inference_mode()
def log_likelihoods(
    model: LanguageModel, answers: Sequence[Answer], tokens_per_pass: int
) -> list[float]:
    """Of each answer: log pi(answer | prompt), in nats, summed over its tokens."""
    device = next(model.model.parameters()).device
    size = pass_size(tokens_per_pass, device.type, packs=model.packs)
    found: list[float] = []
    for group in groups_within([len(prompt) + len(ids) for prompt, ids in answers], size):
        chosen = [answers[index] for index in group]
        reads = [range(len(p) - 1, len(p) + len(ids) - 1) for p, ids in chosen]
        packed = pack([[*p, *ids[:-1]] for p, ids in chosen], reads).to(device)
        logits = read_logits(model.model, packed)[:, : model.vocabulary_size]
        written = torch.tensor([[one] for _, ids in chosen for one in ids], device=device)
        each = contrast.log_probs(logits).gather(-1, written)
        found += [part.sum().item() for part in each.split([len(ids) for _, ids in chosen])]
    return found


def probability_better(winner: Scores, other: Scores) -> float:
    """The share of bootstrap samples of the questions in which the winner's mean is higher.

    A tie counts half. Both are `(questions,)`, of the same questions.
    """
    differences, draw = winner - other, np.random.default_rng(0)
    draws = draw.integers(0, len(differences), (RESAMPLES, len(differences)))
    return float((np.sign(differences[draws].mean(axis=1).round(12)).mean() + 1) / 2)

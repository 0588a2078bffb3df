"""Each stage's work on both sides: this project's functions, and the published loops.

Knows pairs, folders and the project's stages; knows nothing of clocks but for training, whose
optimizer steps are timed one by one.
"""

import logging
import random
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model

from bench import plain
from bench.pairs import SYSTEM, Pair
from lr_exp import progress
from lr_exp.config.method import Method
from lr_exp.config.settings import DistillerSettings, MethodSettings
from lr_exp.distiller import distill
from lr_exp.evaluator import answer
from lr_exp.pipeline.method import build_method
from lr_exp.sampler import rollout, score, select
from lr_exp.sampler.step_table import read_columns
from lr_exp.sampler.supervision import SupervisedTrajectory, Supervision
from lr_exp.store.shards import read_shard, shard_paths

ALPHA, BETA = 0.2, 0.4
FLOOR = 1e-3


def sample(
    pair: Pair,
    folder: Path,
    *,
    new_tokens: int,
    batch_size: int,
    tokens_per_pass: int = 1024,
    parts: dict[str, float] | None = None,
) -> tuple[Path, Path]:
    """Rollout and scoring of all questions, into two new folders; seconds of each into `parts`."""
    trajectories, steps = folder / "trajectories", folder / "steps"
    trajectories.mkdir()
    start = time.perf_counter()
    rollout.roll_out(
        pair.questions,
        pair.expert,
        trajectories,
        system_prompt=SYSTEM,
        max_new_tokens=new_tokens,
        batch_size=batch_size,
    )
    middle = time.perf_counter()
    score_again(pair, trajectories, steps, tokens_per_pass=tokens_per_pass)
    if parts is not None:
        parts.update(rollout=middle - start, score=time.perf_counter() - middle)
    return trajectories, steps


def lengths(trajectories: Path) -> list[list[tuple[int, int]]]:
    """Of every batch the lengths of its rows: of the prompt, and of what was written."""
    return [
        [(len(row["prompt_ids"]), len(row["token_ids"])) for row in read_shard(path)]
        for path in shard_paths(trajectories)
    ]


def score_again(
    pair: Pair, trajectories: Path, steps: Path, *, tokens_per_pass: int = 1024
) -> None:
    """Scoring of these answers by this pair, into a new folder."""
    steps.mkdir()
    score.score(
        trajectories,
        pair.expert,
        pair.amateur,
        pair.shared,
        steps,
        system_prompt=SYSTEM,
        support_floor=FLOOR,
        tokens_per_pass=tokens_per_pass,
    )


def plain_sample(
    pair: Pair, places: Sequence[int], *, new_tokens: int, prefixes_per_pass: int = 1
) -> plain.Kept:
    """The published sampling of these questions."""
    prompts = pair.prompts()
    chosen = [prompts[place] for place in places]
    kept, _ = plain.sample(
        pair.expert.model,
        pair.amateur.model,
        chosen,
        chosen,
        new_tokens=new_tokens,
        stop_ids=pair.expert.stop_ids,
        alpha=ALPHA,
        beta=BETA,
        rows=pair.shared.size,
        prefixes_per_pass=prefixes_per_pass,
    )
    return kept


def supervise(folders: tuple[Path, Path], kept_per_answer: float | None = None) -> Supervision:
    """The kept steps; with a number of them wanted, beta is set to what keeps as many."""
    beta = BETA
    if kept_per_answer is not None:
        scores = read_columns(shard_paths(folders[1]), ["index", "kl"])
        answers = len(np.unique(scores["index"]))
        share = min(1.0, kept_per_answer * answers / len(scores["kl"]))
        beta = max(0.0, float(np.quantile(scores["kl"], 1 - share)))
    return select.select(*folders, _lightreasoner(beta)).supervision


def _lightreasoner(beta: float) -> Method:
    settings = MethodSettings(name="lightreasoner")
    return build_method(settings, alpha=ALPHA, beta=beta, seed=0)


def synthetic(pair: Pair, *, new_tokens: int, kept: int) -> Supervision:
    """Supervision of these sizes: real prompts, `kept` evenly spread kept steps an answer.

    What the tokens are does not matter to time and memory.
    """
    trajectories = []
    for question, prompt in zip(pair.questions, pair.prompts(), strict=True):
        steps = sorted({round(i * (new_tokens - 1) / max(1, kept - 1)) for i in range(kept)})
        answer_ids = [prompt[i % len(prompt)] for i in range(steps[-1])]
        trajectories.append(
            SupervisedTrajectory(
                question_id=question.id,
                question=question.text,
                input_ids=[*prompt, *answer_ids],
                prompt_length=len(prompt),
                steps=steps,
                kl=[1.0] * len(steps),
                target_ids=[[1, 2, 3]] * len(steps),
                target_weights=[[0.5, 0.25, 0.25]] * len(steps),
            )
        )
    return Supervision(trajectories)


def train(
    pair: Pair,
    supervision: Supervision,
    *,
    steps: int,
    batch_size: int,
    device: str = "cpu",
    tokens_per_pass: int = 1024,
) -> float:
    """Seconds of a kept step in training, after the first optimizer step."""
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        distill.distill(
            supervision,
            pair.expert,
            Path(folder),
            DistillerSettings(
                steps=steps + 1,
                batch_size=batch_size,
                log_every=1,
                checkpoint_every=steps + 1,
                tokens_per_pass=tokens_per_pass,
            ),
            distill.Training(
                loss=_lightreasoner(BETA).loss,
                seed=0,
                device=device,
                base_name="bench",
                base_revision=None,
                on_log=lambda *_: ticks.append(time.perf_counter()),
            ),
        )
    return (ticks[steps] - ticks[0]) / (steps * batch_size)


@contextmanager
def lora(pair: Pair) -> Any:
    """The expert with the published adapter, in training mode; taken off again."""
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=8,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=["q_proj", "v_proj"],
    )
    model = get_peft_model(pair.expert.model, config)  # pyright: ignore[reportArgumentType]
    try:
        yield model.train()
    finally:
        model.unload().eval()  # pyright: ignore[reportCallIssue]


def plain_batches(
    supervision: Supervision, *, steps: int, batch_size: int, seed: int
) -> list[list[plain.Sample]]:
    """Shuffled kept steps, each a row of its own, as the published loop draws them."""
    samples = list(plain.samples_of(supervision))
    random.Random(seed).shuffle(samples)
    needed = steps * batch_size
    many = samples * -(-needed // len(samples))
    return [many[i : i + batch_size] for i in range(0, needed, batch_size)]


def plain_train(
    pair: Pair, supervision: Supervision, *, steps: int, batch_size: int, seed: int = 0
) -> float:
    """Seconds of a kept step in the published training."""
    batches = plain_batches(supervision, steps=steps, batch_size=batch_size, seed=seed)
    with lora(pair) as model:
        # A first step allocates; ours is not timed either.
        plain.train(model, batches[:1], rows=pair.expert.vocabulary_size, learning_rate=5e-5)
        start = time.perf_counter()
        plain.train(model, batches, rows=pair.expert.vocabulary_size, learning_rate=5e-5)
        return (time.perf_counter() - start) / (steps * batch_size)


def evaluate(pair: Pair, folder: Path, *, new_tokens: int, batch_size: int) -> None:
    """All questions answered, as the evaluation does it."""
    answer.answer(
        pair.questions,
        pair.expert,
        folder,
        answer.AnswerSettings(SYSTEM, max_new_tokens=new_tokens, batch_size=batch_size),
        name="bench",
    )


def plain_evaluate(pair: Pair, places: Sequence[int], *, new_tokens: int) -> None:
    """These questions answered one at a time by the library's `generate`."""
    prompts = pair.prompts()
    for place in places:
        plain.generate(
            pair.expert.model,
            prompts[place],
            new_tokens=new_tokens,
            stop_ids=pair.expert.stop_ids,
            keep_logits=False,
        )


def quiet() -> None:
    """No progress bars and no advice about threads between the figures."""
    progress.choose(progress.NONE)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def threads(count: int | None) -> None:
    """How many threads torch computes with (None: as it likes)."""
    if count:
        torch.set_num_threads(count)

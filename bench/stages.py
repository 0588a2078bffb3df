"""Runs each stage on both sides: the project's functions and the published loops."""

import logging
import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
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
from lr_exp.config.settings import DistillerSettings, MethodSettings, Settings
from lr_exp.distiller import distill
from lr_exp.evaluator import answer
from lr_exp.models.loading import ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.pipeline.method import method_of
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
    seconds: dict[str, float] | None = None,
) -> tuple[Path, Path]:
    """Rollout and scoring of all questions into two new folders; records `seconds` of each."""
    trajectories, steps = folder / "trajectories", folder / "steps"
    start = time.perf_counter()
    roll_out(pair, trajectories, new_tokens=new_tokens, batch_size=batch_size)
    middle = time.perf_counter()
    score_again(pair, trajectories, steps, tokens_per_pass=tokens_per_pass)
    if seconds is not None:
        seconds.update(rollout=middle - start, score=time.perf_counter() - middle)
    return trajectories, steps


def roll_out(pair: Pair, trajectories: Path, *, new_tokens: int, batch_size: int) -> None:
    """Answers all questions, into a new folder."""
    trajectories.mkdir()
    rollout.roll_out(
        pair.questions,
        pair.expert,
        trajectories,
        prompt=Prompt(SYSTEM),
        max_new_tokens=new_tokens,
        batch_size=batch_size,
    )


def lengths(trajectories: Path) -> list[list[tuple[int, int]]]:
    """Lengths of each row's prompt and answer, by batch."""
    return [
        [(len(row["prompt_ids"]), len(row["token_ids"])) for row in read_shard(path)]
        for path in shard_paths(trajectories)
    ]


def score_again(
    pair: Pair, trajectories: Path, steps: Path, *, tokens_per_pass: int = 1024
) -> None:
    """Scores answers with a pair, into a new folder."""
    steps.mkdir()
    score.score(
        trajectories,
        ModelPair(pair.expert, pair.amateur, pair.shared),
        steps,
        prompt=Prompt(SYSTEM),
        support_floor=FLOOR,
        tokens_per_pass=tokens_per_pass,
    )


def plain_sample(
    pair: Pair, indices: Sequence[int], *, new_tokens: int, prefixes_per_pass: int = 1
) -> plain.Kept:
    """Samples from the questions at these indices with the published loop."""
    prompts = pair.prompts()
    chosen = [prompts[index] for index in indices]
    kept, _ = plain.sample(
        pair.expert.model,
        pair.amateur.model,
        chosen,
        chosen,
        plain.Sampling(
            new_tokens=new_tokens,
            stop_ids=pair.expert.stop_ids,
            alpha=ALPHA,
            beta=BETA,
            rows=pair.shared.size,
            prefixes_per_pass=prefixes_per_pass,
        ),
    )
    return kept


def supervise(folders: tuple[Path, Path], kept_per_answer: float | None = None) -> Supervision:
    """Selects kept steps; `kept_per_answer` sets beta such that as many are kept on average."""
    beta = BETA
    if kept_per_answer is not None:
        scores = read_columns(shard_paths(folders[1]), ["index", "kl"])
        answers = len(np.unique(scores["index"]))
        share = min(1.0, kept_per_answer * answers / len(scores["kl"]))
        beta = max(0.0, float(np.quantile(scores["kl"], 1 - share)))
    with tempfile.TemporaryDirectory() as folder:
        select.write(*folders, _lightreasoner(beta), Path(folder))
        return Supervision.load(Path(folder))


def _lightreasoner(beta: float) -> Method:
    settings = MethodSettings(name="lightreasoner")
    return method_of(Settings(method=settings, alpha=ALPHA, beta=beta))


LOSS = _lightreasoner(BETA).loss  # the same for every beta


def synthetic(pair: Pair, *, new_tokens: int, kept: int) -> Supervision:
    """Supervision with real prompts, arbitrary answers and `kept` evenly spaced kept steps each."""
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
    order: str = "trajectories",
    device: str = "cpu",
    tokens_per_pass: int = 1024,
) -> float:
    """Seconds per kept step in training, after the first optimizer step."""
    ticks: list[float] = []
    settings = DistillerSettings(
        steps=steps + 1,
        batch_size=batch_size,
        order=order,
        log_every=1,
        checkpoint_seconds=math.inf,
        tokens_per_pass=tokens_per_pass,
    )
    with tempfile.TemporaryDirectory() as folder:
        tune(
            pair,
            supervision,
            Path(folder),
            settings,
            device=device,
            on_log=lambda *_: ticks.append(time.perf_counter()),
        )
    return (ticks[steps] - ticks[0]) / (steps * batch_size)


def tune(
    pair: Pair,
    supervision: Supervision,
    folder: Path,
    settings: DistillerSettings,
    *,
    device: str,
    on_log: Callable[[int, dict[str, float]], None],
) -> None:
    """Tunes the expert and writes its adapter into a folder."""
    training = distill.Training(
        settings,
        loss=LOSS,
        seed=0,
        device=device,
        base_location="bench",
        base_revision=None,
        on_log=on_log,
    )
    distill.distill(supervision, pair.expert, folder, training)


@contextmanager
def lora(pair: Pair) -> Any:
    """The expert with the published LoRA adapter in training mode, removed at exit."""
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
    """Batches of shuffled kept steps, as in the published loop."""
    samples = list(plain.samples_of(supervision))
    random.Random(seed).shuffle(samples)
    needed = steps * batch_size
    repeated = samples * -(-needed // len(samples))
    return [repeated[i : i + batch_size] for i in range(0, needed, batch_size)]


def plain_train(
    pair: Pair, supervision: Supervision, *, steps: int, batch_size: int, seed: int = 0
) -> float:
    """Seconds per kept step in the published training loop, after a first optimizer step."""
    batches = plain_batches(supervision, steps=steps, batch_size=batch_size, seed=seed)
    with lora(pair) as model:
        plain.train(model, batches[:1], rows=pair.expert.vocabulary_size, learning_rate=5e-5)
        start = time.perf_counter()
        plain.train(model, batches, rows=pair.expert.vocabulary_size, learning_rate=5e-5)
        return (time.perf_counter() - start) / (steps * batch_size)


def evaluate(pair: Pair, folder: Path, *, new_tokens: int, batch_size: int) -> None:
    """Answers all questions with the evaluator."""
    answer.answer(
        pair.questions,
        pair.expert,
        folder,
        name="bench",
        prompt=Prompt(SYSTEM),
        max_new_tokens=new_tokens,
        batch_size=batch_size,
    )


def harness_evaluate(pair: Pair, *, new_tokens: int, batch_size: int) -> list[str]:
    """Answers all questions with the Hugging Face backend of lm-evaluation-harness."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer: Any = pair.expert.tokenizer
    pair.expert.model.generation_config.eos_token_id = list(pair.expert.stop_ids)
    backend: Any = HFLM  # its decorators hide the parameters
    harness = backend(pretrained=pair.expert.model, tokenizer=tokenizer, batch_size=batch_size)
    options = {"until": [], "max_gen_toks": new_tokens, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (tokenizer.decode(prompt), options), index)
        for index, prompt in enumerate(pair.prompts())
    ]
    return harness.generate_until(requests, disable_tqdm=True)


def plain_evaluate(pair: Pair, indices: Sequence[int], *, new_tokens: int) -> None:
    """Answers the questions at these indices one at a time with `generate`."""
    prompts = pair.prompts()
    for index in indices:
        plain.generate(
            pair.expert.model,
            prompts[index],
            new_tokens=new_tokens,
            stop_ids=pair.expert.stop_ids,
            keep_logits=False,
        )


def silence() -> None:
    """Turns off progress bars and library warnings."""
    progress.choose(progress.NONE)
    for library in ("transformers", "lm_eval"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def set_threads(count: int | None) -> None:
    """Sets torch's threads; None keeps the default."""
    if count:
        torch.set_num_threads(count)

"""A loaded pair of models, and a sample of its answers, scores and labels, for notebooks.

Results go to the store, where a run with the same settings reuses them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lr_exp.config.options import option_folders
from lr_exp.config.settings import Settings
from lr_exp.data.questions import Question, questions_of
from lr_exp.errors import UserError
from lr_exp.models.loading import LanguageModel, ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.vocabulary import SharedVocabulary, text_of
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.sampling import score_trajectories, select_steps
from lr_exp.sampler import rollout, score
from lr_exp.sampler.step_table import kept_by_shard
from lr_exp.sampler.supervision import SupervisedTrajectory, read_supervision
from lr_exp.store import Store
from lr_exp.store.shards import read_by_index, read_table, shard_paths

_ARTIFACT_FACTS = ("digest", "peak_memory_bytes")  # facts that describe no sample


@dataclass(frozen=True)
class Answer:
    """One answer that the expert generated (a trajectory)."""

    question_id: str
    question: str
    prompt_ids: list[int]  # the rendered question
    token_ids: list[int]  # with the stop token
    tokens: list[str]  # their texts, each decoded alone

    @property
    def text(self) -> str:
        return "".join(self.tokens)


@dataclass(frozen=True)
class Pair:
    """Expert and amateur, loaded; `expert.model` and `expert.tokenizer` are those of transformers.

    An early-exit amateur shares the expert's weights.
    """

    expert: LanguageModel
    amateur: LanguageModel
    shared: SharedVocabulary  # the token ids that both have
    settings: Settings
    prompt: Prompt  # how questions are asked

    def roll_out(self, questions: Sequence[Question | str]) -> list[Answer]:
        """The expert's greedy answers, of at most `sampler.max_new_tokens` tokens."""
        sampler = self.settings.sampler
        with TemporaryDirectory() as folder:
            limits = {name: getattr(sampler, name) for name in ("max_new_tokens", "batch_size")}
            asked = questions_of(questions)
            rollout.roll_out(asked, self.expert, Path(folder), prompt=self.prompt, **limits)
            rows = read_by_index(Path(folder))
        return [_answer(row, self.expert.tokenizer) for row in rows]

    def logits(self, answer: Answer) -> tuple[Tensor, Tensor]:
        """Both models' raw next-token logits at every position of an answer, from one pass each.

        `(steps, shared ids)` each; row t is the distribution after t generated tokens.
        """
        pair = ModelPair(self.expert, self.amateur, self.shared)
        return score.answer_logits(asdict(answer), pair, self.prompt)

    def texts(self, token_ids: Iterable[int]) -> list[str]:
        """Each token's text, decoded alone."""
        return _texts(self.expert.tokenizer, token_ids)


@dataclass(frozen=True)
class Sample:
    """The sampler's results for a run's questions.

    `steps` has one row per scored step: `answer` (index in `answers`), `question_id`, `step`
    (tokens generated before it), `token`, `kl_nats`, `kept`, `expert_entropy_nats`,
    `amateur_entropy_nats`, `expert_top1`, `amateur_top1` (texts), and the support, the tokens with
    at least `sampler.support_floor` times the expert's top probability: `support` (texts),
    `support_expert` and `support_amateur` (log-probabilities).

    `labels` has one row per kept step: `answer`, `question_id`, `step`, `kl_nats`, and the label's
    `tokens` (texts), `token_ids` and `weights`, which sum to 1. Join the two on `answer` and
    `step`: a method may draw several answers to a question.
    """

    answers: list[Answer]
    steps: pd.DataFrame
    labels: pd.DataFrame
    facts: dict[str, Any]  # as in `summary.json`: counts, means in nats, shares, a histogram


def load_pair(settings: Settings) -> Pair:
    """Loads expert and amateur and checks that they share a vocabulary.

    Raises UserError: a model is missing or damaged, or the vocabularies do not match.
    """
    context = context_of(settings)
    _ = context.inputs.shared  # is checked before weights are loaded
    return Pair(*context.models.pair(), context.inputs.settings, context.inputs.prompt)


def sample(
    settings: Settings, questions: Sequence[Question | str | Mapping[str, Any]] | None = None
) -> Sample:
    """Rolls out, scores and selects as a run with these settings does, in the same store.

    Settings that differ only in alpha, beta or the step rule share rollout and scores.

    Args:
        settings: see `compose`.
        questions: all of them are used, in this order, instead of those of `settings.data`: texts,
            or dicts with `question` and optional `answer` and `solution`.

    Raises UserError: the method uses no amateur, or an input is invalid.
    """
    if settings.imports_records:
        raise UserError(
            f"data={settings.data.name} holds kept steps only, without the other tokens: choose a "
            "data set of questions."
        )
    context = context_of(replace(settings, stages=["sample"]))
    if questions is not None:
        context.inputs.questions = questions_of(questions)  # are not read from the source then
    if not context.inputs.method.needs_amateur:
        raise UserError(
            f"method={settings.method.name} uses no amateur, so it measures no divergence: choose "
            "another method."
        )
    context.inputs.check()
    trajectories = context.inputs.method.trajectories(context).artifact
    steps = score_trajectories(context, trajectories)
    selected = select_steps(context, trajectories, steps)
    tokenizer = context.inputs.expert_tokenizer
    rows = read_by_index(trajectories.folder)
    masks = kept_by_shard(trajectories.folder, steps.folder, context.inputs.method.select)
    kept = np.concatenate([keep for _, keep in masks])
    places = {row["index"]: place for place, row in enumerate(rows)}
    scores = read_table(shard_paths(steps.folder)).to_pandas().assign(kept=kept)
    frame = _step_frame(scores, rows, places, tokenizer)
    labels = _label_frame(read_supervision(selected.folder), places, tokenizer)
    facts = {name: fact for name, fact in selected.facts.items() if name not in _ARTIFACT_FACTS}
    return Sample([_answer(row, tokenizer) for row in rows], frame, labels, facts)


def context_of(settings: Settings) -> RunContext:
    """Of a run with these settings, in its store; logs no metrics."""
    inputs = Inputs(settings, option_folders(settings.config_dirs))
    return RunContext(inputs, Store(settings.store))


def _answer(row: dict[str, Any], tokenizer: Any) -> Answer:
    texts = _texts(tokenizer, row["token_ids"])
    return Answer(row["question_id"], row["question"], row["prompt_ids"], row["token_ids"], texts)


def _step_frame(
    scores: pd.DataFrame, rows: list[dict[str, Any]], places: Mapping[int, int], tokenizer: Any
) -> pd.DataFrame:
    answers = [places[index] for index in scores["index"]]
    frame = pd.DataFrame(
        {
            "answer": answers,
            "question_id": [rows[place]["question_id"] for place in answers],
            "step": scores["step"],
            "token": _texts(tokenizer, scores["token_id"]),
            "kl_nats": scores["kl"],
            "kept": scores["kept"],
            "expert_entropy_nats": scores["expert_entropy"],
            "amateur_entropy_nats": scores["amateur_entropy"],
            "expert_top1": _texts(tokenizer, scores["expert_top1"]),
            "amateur_top1": _texts(tokenizer, scores["amateur_top1"]),
            "support": [_texts(tokenizer, ids) for ids in scores["support_ids"]],
            "support_expert": scores["support_expert"],
            "support_amateur": scores["support_amateur"],
        }
    )
    return frame.sort_values(["answer", "step"], ignore_index=True)


def _label_frame(
    trajectories: Iterable[SupervisedTrajectory], places: Mapping[int, int], tokenizer: Any
) -> pd.DataFrame:
    rows = [
        (places[one.index], one.question_id, step, kl, _texts(tokenizer, ids), ids, weights)
        for one in trajectories
        for step, kl, ids, weights in zip(
            one.steps, one.kl, one.target_ids, one.target_weights, strict=True
        )
    ]
    columns = ["answer", "question_id", "step", "kl_nats", "tokens", "token_ids", "weights"]
    return pd.DataFrame(rows, columns=columns)


def _texts(tokenizer: Any, token_ids: Iterable[int]) -> list[str]:
    ids = [int(token) for token in token_ids]
    known = {token: text_of(tokenizer, [token], special=True) for token in {*ids}}
    return [known[token] for token in ids]

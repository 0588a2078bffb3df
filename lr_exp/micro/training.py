"""Trains a tiny model on the micro world's corpus and evaluates its greedy answers."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lr_exp.micro.tokenizer import END
from lr_exp.micro.world import (
    FAMILIES,
    MAX_NEW_TOKENS,
    Behaviour,
    Problem,
    careless_answer,
    generate_corpus,
)
from lr_exp.progress import Progress

# The forms of prompts in the corpus, in equal shares; see `conf/prompt/`.
FORMS = ("chat", "plain")
_SORT_WINDOW = 8  # batches that are sorted by length together, to reduce padding
_ANSWERS_AT_ONCE = 250
_IGNORE_INDEX = -100


@dataclass(frozen=True)
class Recipe:
    behaviour: Behaviour  # of the solutions in its corpus
    steps: int  # optimizer steps of `batch_size` pairs each
    width: int = 96
    layers: int = 3
    heads: int = 3
    inner: int = 384  # width of the MLP
    batch_size: int = 32
    learning_rate: float = 4e-3  # the peak, after 5 % of the steps as warm-up; then cosine decay


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A model with random weights; tied embeddings, fp32.

    The architecture is Llama's, which is Qwen2's without the attention biases: next to a `qwen2`
    config, transformers 5 loads any tokenizer as Qwen2's byte-level BPE.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        # With the usual 0.02, meant for wide models, copying digits from the question takes three
        # times as many steps to learn.
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    seed: int,
    title: str,
    families: Sequence[str] = FAMILIES,
) -> None:
    """Trains in place with the cross-entropy of the solution's tokens and the end of the turn."""
    torch.manual_seed(seed)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    steps, warm_up = recipe.steps, max(1, recipe.steps // 20)

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    batches = _batches(tokenizer, recipe, seed, families)
    with Progress(title, steps, "step") as progress:
        for step, (ids, labels) in enumerate(batches):
            hidden = model.model(input_ids=ids).last_hidden_state
            # Padding is on the right and attention is causal, so no mask is needed.
            is_target = labels[:, 1:] != _IGNORE_INDEX
            logits = model.lm_head(hidden[:, :-1][is_target])
            loss = functional.cross_entropy(logits, labels[:, 1:][is_target])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            progress.add(note=f"loss {loss.item():.3f}" if step % 20 == 0 else None)
    model.eval()


@torch.no_grad()
def greedy_answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list[Problem], form: str
) -> list[str]:
    r"""The model's greedy answer to each question; "" without ``\boxed{...}``."""
    answers = []
    for start in range(0, len(problems), _ANSWERS_AT_ONCE):
        chunk = problems[start : start + _ANSWERS_AT_ONCE]
        prompts = [render(tokenizer, problem.question, form) for problem in chunk]
        batch: Any = tokenizer(prompts, padding=True, return_tensors="pt")  # on the left
        generator: Any = model  # the type checker does not see the class with `generate`
        ids = generator.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :])
        ends = [text.partition(END)[0].rpartition("\\boxed{") for text in texts]
        answers += [end.removesuffix("}") if box else "" for _, box, end in ends]
    return answers


def answer_shares(answers: list[str], problems: list[Problem]) -> tuple[float, float]:
    """Shares of right and of careless answers, each 0..1.

    They may sum to more than 1: without a carry the careless answer is right.
    """
    pairs = list(zip(answers, problems, strict=True))
    right = sum(answer == problem.answer for answer, problem in pairs)
    careless = sum(answer == careless_answer(problem) for answer, problem in pairs)
    return right / len(pairs), careless / len(pairs)


def _batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int, families: Sequence[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the ids and labels of each step: int64, (batch, tokens), padded on the right."""
    rng, padding = random.Random(seed), cast(int, tokenizer.pad_token_id)
    forms = (rng.choice(FORMS) for _ in range(recipe.steps * recipe.batch_size))
    corpus = generate_corpus(forms, recipe.behaviour, seed, families)
    for first in range(0, recipe.steps, _SORT_WINDOW):
        count = min(_SORT_WINDOW, recipe.steps - first)
        rows = [
            _encode(tokenizer, *one) for one in itertools.islice(corpus, count * recipe.batch_size)
        ]
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[i * recipe.batch_size : (i + 1) * recipe.batch_size] for i in range(count)]
        rng.shuffle(groups)
        for group in groups:
            ids, labels = map(list, zip(*group, strict=True))
            yield (
                pad_sequence(ids, batch_first=True, padding_value=padding),
                pad_sequence(labels, batch_first=True, padding_value=_IGNORE_INDEX),
            )


def _encode(
    tokenizer: PreTrainedTokenizerFast, question: str, solution: str, form: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels of prompt and solution, `(tokens,)` each; the prompt has no labels."""
    prompt = list(tokenizer(render(tokenizer, question, form))["input_ids"])
    space = " " if form == "plain" else ""
    target = list(tokenizer(space + solution + END)["input_ids"])
    return torch.tensor(prompt + target), torch.tensor([_IGNORE_INDEX] * len(prompt) + target)


def render(tokenizer: PreTrainedTokenizerFast, question: str, form: str) -> str:
    if form == "plain":
        return f"Question: {question}\nAnswer:"
    turn = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))

"""Decodes many prompts into shards: batched by length, resumable, on all ranks.

The `*_decoding` functions return the ways to decode a batch; `decode_into_shards` runs one of them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lr_exp import distributed
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.inference.cpu_linear import prepacked_linear
from lr_exp.inference.decoding import Decoded, PromptedModel, StopStrings, decode
from lr_exp.inference.engines import Generate, Request
from lr_exp.inference.memory import AdaptiveBatchSize
from lr_exp.inference.strategies import Strategy, contrastive, greedy, sampled
from lr_exp.models.loading import LanguageModel, ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.progress import Progress
from lr_exp.store import digest
from lr_exp.store.shards import encoded, read_table, shard_paths, shard_sizes, write_encoded

_ADVICE = (
    "lower the stage's max_new_tokens (sampler.max_new_tokens, evaluator.max_new_tokens), or use "
    "a smaller model or dtype=bfloat16"
)
_COLUMNS = [("index", pa.int32()), ("tokens", pa.int32()), ("finished", pa.bool_())]
# Prompts are sorted by length within windows of this size: batches need little padding, and each
# depends on the prompts of its window only.
WINDOW = 1024


@dataclass(frozen=True)
class BatchDecoder:
    """Prompts, a way to decode a batch of them, and the models that it runs."""

    prompts: Sequence[Sequence[int]]  # token ids; their lengths determine the batches
    models: tuple[Any, ...]
    # Takes the shard's number, the indices of its prompts, and how many of them are decoded at a
    # time; returns the answers in this order.
    decode: Callable[[int, Sequence[int], int], list[Decoded]]


def batches_by_length(
    prompts: Sequence[Sequence[int]], size: int, without: Collection[int] = ()
) -> Iterator[tuple[int, list[int]]]:
    """Numbered batches, `without` some, of indices: the longest prompts of a window come first."""
    number = 0
    for start in range(0, len(prompts), WINDOW):
        window = range(start, min(start + WINDOW, len(prompts)))
        ordered = sorted(window, key=lambda index: (-len(prompts[index]), index))
        for first in range(0, len(ordered), size):
            if number not in without:
                yield number, ordered[first : first + size]
            number += 1


def render_prompts(
    language_model: LanguageModel,
    questions: Iterable[Question],
    prompt: Prompt,
    text: Callable[[Question], str],
) -> list[list[int]]:
    """Token ids of each question's prompt, which shows its `text`.

    Raises UserError, on all ranks, if one fills the context.
    """

    def render(question: Question) -> list[int]:
        rendered = render_prompt(language_model.tokenizer, text(question), prompt)
        if language_model.context is not None and len(rendered) >= language_model.context:
            raise UserError(
                f"question {question.id}: its prompt has {len(rendered)} tokens, but "
                f"{language_model.name} has a context of {language_model.context}: shorten or "
                f"remove the question, or choose another prompt than {prompt.form.name}."
            )
        return rendered

    return distributed.run_identically(lambda: list(map(render, questions)))


def single_decoding(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    generate: Generate | None = None,
) -> BatchDecoder:
    """Decoding by one model: greedy at temperature 0, else sampled (see `strategies.sampled`).

    Sampled answers are reproducible: each shard has a generator seeded with `seed` and the shard's
    number. Another batch size, or a batch that does not fit in memory, gives other answers.

    Args:
        generate: an engine to decode in the model's place; it seeds each request, so its answers do
            not depend on batches.
    """
    if generate is not None:
        ends = StopStrings(language_model.tokenizer, stop)
        context = language_model.context

        def request(index: int) -> Request:
            limit = max_new_tokens
            if context is not None:
                limit = min(limit, context - len(prompts[index]))
            request_seed = int(digest([seed, index])[:7], 16) if temperature else 0
            return Request(prompts[index], limit, request_seed, temperature, top_p)

        def decode_batch(number: int, batch: Sequence[int], rows: int) -> list[Decoded]:
            return [ends.truncated(one) for one in generate([request(i) for i in batch])]

        return BatchDecoder(prompts, (), decode_batch)

    def strategy(number: int) -> Strategy:
        if not temperature:
            return greedy
        # Hashed because a CPU generator uses only the low 32 bits of its seed, and pairs of seed
        # and number must not collide there.
        generator = torch.Generator(next(language_model.model.parameters()).device)
        generator.manual_seed(int(digest([seed, number])[:16], 16))
        return sampled(temperature, top_p, generator)

    return _decoding([PromptedModel(language_model, prompts)], strategy, max_new_tokens, stop)


def contrastive_decoding(
    pair: ModelPair,
    prompts: Sequence[Sequence[int]],
    amateur_prompts: Sequence[Sequence[int]],
    *,
    alpha: float,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> BatchDecoder:
    """Contrastive decoding (see `strategies.contrastive`).

    Each model reads its own prompts. The amateur skips ids of an answer that are not shared,
    because they are different tokens in its vocabulary, or missing from it. The expert's stop
    tokens end an answer.
    """
    amateur = PromptedModel(pair.amateur, amateur_prompts, pair.shared)
    readers = [PromptedModel(pair.expert, prompts), amateur]
    strategy = contrastive(pair.shared, alpha)
    return _decoding(readers, lambda _: strategy, max_new_tokens, stop)


def _decoding(
    readers: Sequence[PromptedModel],
    strategy: Callable[[int], Strategy],
    max_new_tokens: int,
    stop: Sequence[str],
) -> BatchDecoder:
    """Decoding by models of this process; `strategy` takes a shard's number."""
    ends = StopStrings(readers[0].language_model.tokenizer, stop)

    def decode_batch(number: int, batch: Sequence[int], rows: int) -> list[Decoded]:
        own = [replace(one, prompts=[one.prompts[i] for i in batch]) for one in readers]
        limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "max_rows": rows}
        answers = decode(own, strategy(number), is_end=ends.end, **limits)
        return [ends.truncated(one) for one in answers]

    models = tuple(one.language_model.model for one in readers)
    return BatchDecoder(readers[0].prompts, models, decode_batch)


def decode_into_shards(
    decoder: BatchDecoder,
    folder: Path,
    columns: Sequence[tuple[str, pa.DataType]],
    row: Callable[[int, Decoded], dict[str, Any]],
    *,
    name: str,
    batch_size: int,
    batches: int = 1,
    unit: str = "question",
) -> dict[str, Any]:
    """Decodes every prompt and writes shards of as many as in `batches`; keeps existing shards.

    Shards are distributed over the ranks, and rank 0 writes them; their contents do not depend on
    the number of ranks. If a batch does not fit in memory, fewer prompts are decoded at a time.

    Args:
        decoder: must be deterministic for a given shard.
        batch_size: prompts decoded at a time.
        batches: of a shard. With several, the next prompts replace finished ones, so that a batch
            does not wait for its longest answer; but fewer ranks can share the work.
        columns, row: columns in addition to `index`, `tokens` (number generated, including the stop
            token) and `finished` (ended by a stop token), and a function that returns their values
            for a prompt's index and answer.

    Returns:
        Totals: `questions`, `tokens` generated, `finished` (ended by a stop token).

    Raises UserError: a single prompt does not fit in memory.
    """
    schema = pa.schema([*_COLUMNS, *columns])
    adaptive = AdaptiveBatchSize(batch_size, f"{name}: questions", _ADVICE)
    found = distributed.run_on_rank0(lambda: shard_sizes(folder))

    def decode_job(job: tuple[int, list[int]]) -> tuple[bytes, int]:
        number, batch = job
        decoded = adaptive.run_with_limit(len(batch), partial(decoder.decode, number, batch))
        rows = []
        for index, answer in zip(batch, decoded, strict=True):
            counts = {"tokens": len(answer.token_ids), "finished": answer.finished}
            rows.append({**row(index, answer), "index": index, **counts})
        table = pa.Table.from_pylist(rows, schema=schema)
        return encoded(table), sum(one["tokens"] for one in rows)

    total, done = len(decoder.prompts), sum(found.values())
    with (
        Progress(name, total, unit, found=done, also="token") as progress,
        prepacked_linear(*decoder.models, copy_shared=True),
    ):

        def save(job: tuple[int, list[int]], result: tuple[bytes, int]) -> None:
            (number, batch), (content, tokens) = job, result
            write_encoded(folder, number, content)
            progress.add(len(batch), also=tokens)

        jobs = batches_by_length(decoder.prompts, batch_size * batches, found)
        distributed.distribute_jobs(jobs, decode_job, save)
    return distributed.run_on_rank0(lambda: _totals(folder))


def _totals(folder: Path) -> dict[str, int]:
    table = read_table(shard_paths(folder), ["tokens", "finished"])
    counts = {name: int(table[name].to_numpy().sum()) for name in table.column_names}
    return {"questions": table.num_rows, **counts}

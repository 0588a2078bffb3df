"""Decodes many prompts into shards: batched by length, a shard per batch, resumable, on all ranks.

The `*_decoding` functions return the ways to decode a batch; `decode_into_shards` runs one of them.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.inference.cpu_linear import prepacked_linear
from lr_exp.inference.decoding import Decoded, PromptedModel, decode, decode_greedily
from lr_exp.inference.engines import Generate, Request, Sampling
from lr_exp.inference.out_of_memory import AdaptiveBatchSize, free_memory, is_out_of_memory
from lr_exp.inference.strategies import contrastive, sampled
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.progress import Progress
from lr_exp.store import digest
from lr_exp.store.shards import count_rows, encoded, shard_number, shard_paths, write_encoded

log = logging.getLogger(__name__)

# Prompts are sorted by length within windows of this size: batches need little padding, and each
# depends on the prompts of its window only.
WINDOW = 1024


@dataclass(frozen=True)
class BatchDecoder:
    """A way to decode a batch, and the models that it runs."""

    models: tuple[Any, ...]
    decode: Callable[[int, Sequence[int], int], list[Decoded]]

    def __call__(self, number: int, batch: Sequence[int], start: int = 0) -> list[Decoded]:
        """Decodes the prompts with these indices, in order.

        Args:
            number: the batch's shard number.
            start: offset of this part in the shard, if the batch was split to fit in memory.
        """
        return self.decode(number, batch, start)


_ADVICE = (
    "lower the stage's max_new_tokens (sampler.max_new_tokens, evaluator.max_new_tokens), or use "
    "a smaller model or dtype=bfloat16"
)
_COLUMNS = [("index", pa.int32()), ("tokens", pa.int32()), ("finished", pa.bool_())]


def batches_by_length(
    prompts: Sequence[Sequence[int]], batch_size: int, without: Collection[int] = ()
) -> Iterator[tuple[int, list[int]]]:
    """Numbered batches of prompt indices, sorted by length (longest first) within windows.

    Reads the prompts window by window, and skips windows whose batches are all excluded, so
    `prompts` can be lazy.

    Args:
        without: numbers of batches to exclude.
    """
    number = 0
    for start in range(0, len(prompts), WINDOW):
        window = range(start, min(start + WINDOW, len(prompts)))
        numbers = range(number, number + -(-len(window) // batch_size))
        number = numbers.stop
        if all(batch in without for batch in numbers):
            continue
        lengths = {index: len(prompts[index]) for index in window}
        ordered = sorted(window, key=lambda index: (-lengths[index], index))
        for position, batch in enumerate(numbers):
            if batch not in without:
                yield batch, ordered[position * batch_size : (position + 1) * batch_size]


def render_prompts(
    language_model: LanguageModel, ids: Sequence[str], texts: Sequence[str], system: str
) -> list[list[int]]:
    """Token ids of each prompt; raises UserError if one fills the context."""
    prompts = []
    for question_id, text in zip(ids, texts, strict=True):
        prompt = render_prompt(language_model.tokenizer, text, system)
        if language_model.context is not None and len(prompt) >= language_model.context:
            raise UserError(
                f"question {question_id}: its prompt has {len(prompt)} tokens, but "
                f"{language_model.name} has a context of {language_model.context}: shorten or "
                "remove the question."
            )
        prompts.append(prompt)
    return prompts


def greedy_decoding(
    language_model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> BatchDecoder:
    """Greedy decoding."""

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return decode_greedily(
            language_model.model,
            [prompts[index] for index in batch],
            max_new_tokens=max_new_tokens,
            stop_ids=language_model.stop_ids,
            vocabulary_size=language_model.vocabulary_size,
            context=language_model.context,
            caches=language_model.caches,
        )

    return BatchDecoder((language_model.model,), decode_batch)


def sampled_decoding(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> BatchDecoder:
    """Decoding by sampling (see `strategies.sampled`).

    Each batch has a generator seeded with `seed` and the batch's number, so a resumed run gives the
    same answers. Another batch size, or a batch split to fit in memory, gives other answers.
    """
    device = next(language_model.model.parameters()).device

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        # Hashed because a CPU generator uses only the low 32 bits of its seed, and pairs of seed
        # and number must not collide there.
        key = [seed, number, start] if start else [seed, number]
        generator = torch.Generator(device).manual_seed(int(digest(key)[:16], 16))
        return decode(
            [_prompted(language_model, prompts, batch)],
            sampled(temperature, top_p, generator),
            max_new_tokens=max_new_tokens,
            stop_ids=language_model.stop_ids,
        )

    return BatchDecoder((language_model.model,), decode_batch)


def engine_decoding(
    generate: Generate,
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> BatchDecoder:
    """Decoding by an engine: greedy at temperature 0, else sampled.

    Each request has its own seed, so answers do not depend on batches.
    """
    context = language_model.context
    sampling = Sampling(temperature, top_p)

    def request(index: int) -> Request:
        limit = max_new_tokens
        if context is not None:
            limit = min(limit, context - len(prompts[index]))
        request_seed = int(digest([seed, index])[:7], 16) if temperature else 0
        return Request(prompts[index], limit, request_seed)

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return generate([request(index) for index in batch], sampling)

    return BatchDecoder((), decode_batch)


def contrastive_decoding(
    expert: LanguageModel,
    amateur: LanguageModel,
    prompts: Sequence[Sequence[int]],
    amateur_prompts: Sequence[Sequence[int]],
    *,
    shared: SharedVocabulary,
    alpha: float,
    max_new_tokens: int,
) -> BatchDecoder:
    """Contrastive decoding (see `strategies.contrastive`).

    Each model reads its own prompts. The amateur skips ids of an answer that are not shared,
    because they are different tokens in its vocabulary, or missing from it. The expert's stop
    tokens end an answer.
    """

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return decode(
            [
                _prompted(expert, prompts, batch),
                _prompted(amateur, amateur_prompts, batch, known_ids=shared),
            ],
            contrastive(shared, alpha),
            max_new_tokens=max_new_tokens,
            stop_ids=expert.stop_ids,
        )

    return BatchDecoder((expert.model, amateur.model), decode_batch)


def decode_into_shards(
    prompts: Sequence[Sequence[int]],
    decode_batch: BatchDecoder,
    folder: Path,
    columns: Sequence[tuple[str, pa.DataType]],
    row: Callable[[int, Decoded], dict[str, Any]],
    *,
    name: str,
    batch_size: int,
) -> dict[str, Any]:
    """Decodes every prompt and writes one shard per batch; existing shards are kept.

    Batches are distributed over the ranks, and rank 0 writes the shards, whose contents do not
    depend on the number of ranks. A batch that does not fit in memory, and those after it, are
    decoded in parts but still written as one shard.

    Args:
        prompts: token ids; their lengths determine the batches. Read window by window, and again
            when their batch is decoded.
        decode_batch: must be deterministic for a given batch.
        columns, row: columns in addition to `index`, `tokens` (number generated, including the stop
            token) and `finished` (ended by a stop token), and a function that returns their values
            for a prompt's index and answer.
        name: label of the progress bar.

    Returns:
        Totals: `questions`, `tokens` generated, `finished` (ended by a stop token).

    Raises:
        UserError: a single prompt does not fit in memory.
    """
    schema = pa.schema([*_COLUMNS, *columns])
    adaptive = AdaptiveBatchSize(batch_size, f"{name}: questions", _ADVICE)
    finished_shards, finished_rows = distributed.run_on_rank0(lambda: _finished(folder))
    if len(prompts) / batch_size <= distributed.world_size() - 1:
        _warn_of_idle_ranks(len(prompts), batch_size)

    def decode_job(job: tuple[int, list[int]]) -> tuple[bytes, int]:
        number, batch = job
        decoded = _decode_in_parts(decode_batch, number, batch, adaptive)
        rows = [
            {
                **row(index, answer),
                "index": index,
                "tokens": len(answer.token_ids),
                "finished": answer.finished,
            }
            for index, answer in zip(batch, decoded, strict=True)
        ]
        return encoded(rows, schema), sum(len(answer.token_ids) for answer in decoded)

    with (
        Progress(name, len(prompts), "question", found=finished_rows, also="token") as progress,
        prepacked_linear(*decode_batch.models, copy_shared=True),
    ):

        def save(job: tuple[int, list[int]], result: tuple[bytes, int]) -> None:
            number, batch = job
            content, tokens = result
            write_encoded(folder, number, content)
            progress.add(len(batch), also=tokens)

        jobs = batches_by_length(prompts, batch_size, finished_shards)
        distributed.distribute_jobs(jobs, decode_job, save)
    return distributed.run_on_rank0(lambda: _totals(folder))


@cache  # one warning for all benchmarks of the same size
def _warn_of_idle_ranks(questions: int, batch_size: int) -> None:
    log.warning(
        "%d questions in batches of %d make fewer batches than the %d processes, so some will be "
        "idle; lower sampler.batch_size or evaluator.batch_size.",
        questions,
        batch_size,
        distributed.world_size(),
    )


def _finished(folder: Path) -> tuple[set[int], int]:
    """The numbers of the existing shards, and their number of rows."""
    paths = shard_paths(folder)
    return {shard_number(path) for path in paths}, sum(count_rows(path) for path in paths)


def _totals(folder: Path) -> dict[str, int]:
    questions = tokens = finished = 0
    for path in shard_paths(folder):
        columns = pq.ParquetFile(path).read(["tokens", "finished"])
        questions += columns.num_rows
        tokens += int(columns["tokens"].to_numpy().sum())
        finished += int(columns["finished"].to_numpy().sum())
    return {"questions": questions, "tokens": tokens, "finished": finished}


def _decode_in_parts(
    decode_batch: BatchDecoder, number: int, batch: Sequence[int], adaptive: AdaptiveBatchSize
) -> list[Decoded]:
    """Decodes a batch in parts that fit in memory."""
    decoded: list[Decoded] = []
    while len(decoded) < len(batch):
        part = batch[len(decoded) : len(decoded) + adaptive.size]
        try:
            decoded += decode_batch(number, part, len(decoded))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            adaptive.halve(len(part), error)
        free_memory()
    return decoded


def _prompted(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[int],
    known_ids: SharedVocabulary | None = None,
) -> PromptedModel:
    return PromptedModel(
        language_model.model,
        [prompts[index] for index in batch],
        language_model.vocabulary_size,
        language_model.context,
        known_ids,
        language_model.name,
        language_model.caches,
    )

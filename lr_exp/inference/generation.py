"""Many prompts are answered: batched by length, one shard a batch, resumable, on all ranks.

Knows prompts, batches, shards and the ways to decode a batch (`greedily`, `by_sampling`,
`by_contrast`, `by_engine`); what a row of a shard holds is its caller's business.
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
from lr_exp.inference.decoding import Decoded, Reader, decode, decode_greedily
from lr_exp.inference.engines import Generate, Request, Sampling
from lr_exp.inference.out_of_memory import AdaptiveBatch, free_memory, is_out_of_memory
from lr_exp.inference.strategies import contrastive, sampled
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.progress import Progress
from lr_exp.store import digest
from lr_exp.store.shards import count_rows, encoded, shard_number, shard_paths, write_encoded

log = logging.getLogger(__name__)

# Prompts are sorted by length inside windows of this many, so that a batch pads little while its
# composition depends on its own window only.
WINDOW = 1024


@dataclass(frozen=True)
class DecodeBatch:
    """A way to answer a batch, and the models that it asks."""

    models: tuple[Any, ...]
    decode: Callable[[int, Sequence[int], int], list[Decoded]]

    def __call__(self, number: int, batch: Sequence[int], start: int = 0) -> list[Decoded]:
        """Answers the prompts of these indices, in their order.

        Args:
            number: of the batch's shard.
            start: where in the shard this part of it begins, if memory does not hold it all.
        """
        return self.decode(number, batch, start)


_ADVICE = (
    "lower the stage's max_new_tokens (sampler.max_new_tokens, evaluator.max_new_tokens), or take "
    "a smaller model or dtype=bfloat16"
)
_COLUMNS = [("index", pa.int32()), ("tokens", pa.int32()), ("finished", pa.bool_())]


def batches_by_length(
    prompts: Sequence[Sequence[int]], batch_size: int, without: Collection[int] = ()
) -> Iterator[tuple[int, list[int]]]:
    """Numbered batches of indices of similar length: sorted (longest first) inside windows.

    Prompts are asked for window by window: they may be made only then, and those of a window whose
    batches are all left out are not made at all.

    Args:
        without: numbers of batches that are left out.
    """
    number = 0
    for start in range(0, len(prompts), WINDOW):
        window = range(start, min(start + WINDOW, len(prompts)))
        numbers = range(number, number + -(-len(window) // batch_size))
        number = numbers.stop
        if all(one in without for one in numbers):
            continue
        lengths = {index: len(prompts[index]) for index in window}
        ordered = sorted(window, key=lambda index: (-lengths[index], index))
        for place, one in enumerate(numbers):
            if one not in without:
                yield one, ordered[place * batch_size : (place + 1) * batch_size]


def render_prompts(
    language_model: LanguageModel, ids: Sequence[str], texts: Sequence[str], system: str
) -> list[list[int]]:
    """Prompt ids of each text; raises UserError where a prompt leaves no room in the context."""
    prompts = []
    for question_id, text in zip(ids, texts, strict=True):
        prompt = render_prompt(language_model.tokenizer, text, system)
        if language_model.context is not None and len(prompt) >= language_model.context:
            raise UserError(
                f"question {question_id}: its prompt has {len(prompt)} tokens, and "
                f"{language_model.name} reads {language_model.context} at most: shorten or remove "
                "the question."
            )
        prompts.append(prompt)
    return prompts


def greedy_decoding(
    language_model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> DecodeBatch:
    """The model's most probable token at every step."""

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return decode_greedily(
            language_model.model,
            [prompts[index] for index in batch],
            max_new_tokens=max_new_tokens,
            stop_ids=language_model.stop_ids,
            vocabulary_size=language_model.vocabulary_size,
            context=language_model.context,
        )

    return DecodeBatch((language_model.model,), decode_batch)


def sampled_decoding(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> DecodeBatch:
    """Tokens drawn from the model's distribution (see `choosing.sampled`).

    Each batch draws by itself, from `seed` and its number: a run that was stopped goes on as if it
    had not been. Another batch size gives other draws, and so does a batch taken in parts.
    """
    device = next(language_model.model.parameters()).device

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        # Hashed because a CPU generator reads the low 32 bits of its seed only, which neighbouring
        # numbers and seeds must not share.
        place = [seed, number, start] if start else [seed, number]
        generator = torch.Generator(device).manual_seed(int(digest(place)[:16], 16))
        return decode(
            [_reader(language_model, prompts, batch)],
            sampled(temperature, top_p, generator),
            max_new_tokens=max_new_tokens,
            stop_ids=language_model.stop_ids,
        )

    return DecodeBatch((language_model.model,), decode_batch)


def engine_decoding(
    generate: Generate,
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> DecodeBatch:
    """What an engine writes in the model's place: greedily at temperature 0, else drawn.

    Each answer draws from a seed of its own, so that batches do not matter.
    """
    room = language_model.context
    sampling = Sampling(temperature, top_p)

    def request(index: int) -> Request:
        left = max_new_tokens if room is None else min(max_new_tokens, room - len(prompts[index]))
        drawn = int(digest([seed, index])[:7], 16) if temperature else 0
        return Request(prompts[index], left, drawn)

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return generate([request(index) for index in batch], sampling)

    return DecodeBatch((), decode_batch)


def contrastive_decoding(
    expert: LanguageModel,
    amateur: LanguageModel,
    prompts: Sequence[Sequence[int]],
    amateur_prompts: Sequence[Sequence[int]],
    *,
    shared: SharedVocabulary,
    alpha: float,
    max_new_tokens: int,
) -> DecodeBatch:
    """The expert's plausible token that the amateur falls behind at (see `choosing.contrastive`).

    Each model is asked through prompts of its own; the amateur reads the shared ids of an answer
    only, for the others name something else to it or nothing. The expert's stop tokens end it.
    """

    def decode_batch(number: int, batch: Sequence[int], start: int) -> list[Decoded]:
        return decode(
            [
                _reader(expert, prompts, batch),
                _reader(amateur, amateur_prompts, batch, reads=shared),
            ],
            contrastive(shared, alpha),
            max_new_tokens=max_new_tokens,
            stop_ids=expert.stop_ids,
        )

    return DecodeBatch((expert.model, amateur.model), decode_batch)


def decode_into_shards(
    prompts: Sequence[Sequence[int]],
    decode_batch: DecodeBatch,
    folder: Path,
    columns: Sequence[tuple[str, pa.DataType]],
    row: Callable[[int, Decoded], dict[str, Any]],
    *,
    name: str,
    batch_size: int,
) -> dict[str, Any]:
    """Answers every prompt and writes one shard a batch; shards that are there stay.

    Batches are shared out among the ranks, and the first one writes: what is in a shard does not
    depend on how many there are. A batch that does not fit in memory is answered in halves, and so
    are those after it; its shard is the same one.

    Args:
        prompts: of the model that answers; their lengths make the batches. They are looked up a
            window at a time, and again when their batch is answered.
        decode_batch: how a batch is answered; the same batch must get the same answers again.
        columns, row: what a row holds beside `index`, `tokens` (generated, stop token included) and
            `finished` (ended by a stop token), and its values from a prompt's index and answer.
        name: what the progress shows.

    Returns:
        Facts: `questions`, `tokens` generated, `finished` (ended by a stop token).

    Raises:
        UserError: a single prompt does not fit in memory.
    """
    schema = pa.schema([*_COLUMNS, *columns])
    portion = AdaptiveBatch(batch_size, f"{name}: questions", _ADVICE)
    there, found = distributed.run_on_rank0(lambda: _finished(folder))
    if len(prompts) / batch_size <= distributed.world_size() - 1:
        _say_idle(len(prompts), batch_size)

    def answer(job: tuple[int, list[int]]) -> tuple[bytes, int]:
        number, batch = job
        decoded = _in_portions(decode_batch, number, batch, portion)
        rows = [
            {
                **row(index, one),
                "index": index,
                "tokens": len(one.token_ids),
                "finished": one.finished,
            }
            for index, one in zip(batch, decoded, strict=True)
        ]
        return encoded(rows, schema), sum(len(one.token_ids) for one in decoded)

    with (
        Progress(name, len(prompts), "question", found=found, also="token") as progress,
        prepacked_linear(*decode_batch.models, copy_shared=True),
    ):

        def keep(job: tuple[int, list[int]], answered: tuple[bytes, int]) -> None:
            number, batch = job
            content, tokens = answered
            write_encoded(folder, number, content)
            progress.add(len(batch), also=tokens)

        distributed.distribute_jobs(batches_by_length(prompts, batch_size, there), answer, keep)
    return distributed.run_on_rank0(lambda: _counted(folder))


@cache
def _say_idle(questions: int, batch_size: int) -> None:
    """Once for as many questions: a run has many benchmarks."""
    log.warning(
        "%d questions in batches of %d are fewer batches than the %d processes, so that some have "
        "nothing to do; lower sampler.batch_size or evaluator.batch_size.",
        questions,
        batch_size,
        distributed.world_size(),
    )


def _finished(folder: Path) -> tuple[set[int], int]:
    """The numbers of the shards that are there, and their rows."""
    paths = shard_paths(folder)
    return {shard_number(path) for path in paths}, sum(count_rows(path) for path in paths)


def _counted(folder: Path) -> dict[str, int]:
    questions = tokens = finished = 0
    for path in shard_paths(folder):
        columns = pq.ParquetFile(path).read(["tokens", "finished"])
        questions += columns.num_rows
        tokens += int(columns["tokens"].to_numpy().sum())
        finished += int(columns["finished"].to_numpy().sum())
    return {"questions": questions, "tokens": tokens, "finished": finished}


def _in_portions(
    decode_batch: DecodeBatch, number: int, batch: Sequence[int], portion: AdaptiveBatch
) -> list[Decoded]:
    """The batch's answers, of as many prompts at once as memory holds."""
    decoded: list[Decoded] = []
    while len(decoded) < len(batch):
        part = batch[len(decoded) : len(decoded) + portion.size]
        try:
            decoded += decode_batch(number, part, len(decoded))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            portion.halve(len(part), error)
        free_memory()
    return decoded


def _reader(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[int],
    reads: SharedVocabulary | None = None,
) -> Reader:
    return Reader(
        language_model.model,
        [prompts[index] for index in batch],
        language_model.vocabulary_size,
        language_model.context,
        reads,
        language_model.name,
    )

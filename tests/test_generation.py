"""Contrastive decoding against a loop without a cache; sampled answers are reproducible."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lr_exp.data.questions import Question
from lr_exp.evaluator import answer
from lr_exp.evaluator.prompts import question_text
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.generation import contrastive_decoding, single_decoding
from lr_exp.models import early_exit, loading
from lr_exp.models.prompt_forms import Example, Prompt, render_form
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.sampler import rollout
from lr_exp.store.shards import read_by_index, read_shards, shard_paths
from tests.support.tiny import TOKENS, double_model, load_folder, tiny_model

PROMPTS = [[7, 8, 9, 10, 11, 12], [0, 0, 3], [42], [1, 2, 3, 4], [5, 5]]
AMATEUR_PROMPTS = [[9, 9], [1, 2, 3, 4, 5, 6, 7], [42, 0], [8], [6, 5]]  # another template
ALL = SharedVocabulary(50)
ALPHA, LIMIT = 0.2, 16


def a_model(seed: int, *, rows: int = 50, layers: int = 2, context: int | None = None):
    """A random fp64 model with peaked and flat distributions."""
    shape = {"vocab_size": rows, "num_hidden_layers": layers, "initializer_range": 0.1}
    model = double_model(seed=seed, **shape)
    return loading.LanguageModel(f"seed {seed}", model, None, (), rows, context)


@pytest.fixture(scope="module")
def pair():
    return a_model(0), a_model(1, layers=3)


def contrast(
    expert, amateur, shared=ALL, *, prompts=PROMPTS, amateur_prompts=AMATEUR_PROMPTS, **changes
) -> list[Decoded]:
    batch_size = changes.pop("batch_size", len(prompts))
    arguments = {"alpha": ALPHA, "max_new_tokens": LIMIT, **changes}
    models = loading.ModelPair(expert, amateur, shared)
    decoding = contrastive_decoding(models, prompts, amateur_prompts, **arguments)
    rows = range(len(prompts))
    batches = [rows[start : start + batch_size] for start in rows[::batch_size]]
    return [one for n, batch in enumerate(batches) for one in decoding.decode(n, batch, 0)]


@torch.no_grad()
def plain_contrast(expert, amateur, shared, prompt, amateur_prompt, *, alpha=ALPHA, limit=LIMIT):
    """Reads the whole sequence again for each token; the amateur reads only shared ids."""
    ids = [i for i in range(shared.size) if i in shared]
    output: list[int] = []
    while len(output) < limit:
        logits = expert.model(torch.tensor([prompt + output])).logits[0, -1]
        logits = logits[: expert.vocabulary_size]
        token = int(logits.argmax())
        if token in shared:
            known = [token for token in output if token in shared]
            other = amateur.model(torch.tensor([amateur_prompt + known])).logits[0, -1]
            p, q = logits[ids].softmax(-1).tolist(), other[ids].softmax(-1).tolist()
            plausible = [i for i in range(len(ids)) if p[i] >= alpha * max(p)]
            token = ids[max(plausible, key=lambda i: (p[i] / q[i], p[i]))]
        output.append(token)
        if token in expert.stop_ids:
            return Decoded(output, finished=True)
    return Decoded(output, finished=False)


def plainly(expert, amateur, shared=ALL, **changes) -> list[Decoded]:
    return [
        plain_contrast(expert, amateur, shared, prompt, other, **changes)
        for prompt, other in zip(PROMPTS, AMATEUR_PROMPTS, strict=True)
    ]


def greedy(expert, **changes) -> list[Decoded]:
    arguments = {"max_new_tokens": LIMIT, **changes}
    return single_decoding(expert, PROMPTS, **arguments).decode(0, range(len(PROMPTS)), 0)


def test_contrastive_decoding_equals_the_plain_loop(pair):
    expected = plainly(*pair)
    assert expected != greedy(pair[0])  # otherwise the test is vacuous
    for batch_size in (1, 4, 5):
        assert contrast(*pair, batch_size=batch_size) == expected


def test_rows_that_end_leave_the_others_unchanged(pair):
    """The same rows are removed from both models' caches, more than once."""
    expert, amateur = pair
    free = contrast(expert, amateur)
    stops = (free[0].token_ids[2], free[1].token_ids[5], free[2].token_ids[9])
    expert = replace(expert, stop_ids=stops)
    ended = plainly(expert, amateur)
    assert len({len(answer.token_ids) for answer in ended}) >= 3
    assert sum(answer.finished for answer in ended) >= 3
    assert all(answer.token_ids[-1] in stops for answer in ended if answer.finished)
    for batch_size in (1, 4, 5):
        assert contrast(expert, amateur, batch_size=batch_size) == ended


@pytest.mark.parametrize("ends", [False, True])
def test_the_amateur_skips_ids_that_are_not_shared(pair, ends):
    """Reused control ids in an answer (R1's end of thought) are other tokens in the amateur."""
    expert, amateur = pair
    used = {token for answer in greedy(expert) for token in answer.token_ids}
    shared = SharedVocabulary(50, excluded=tuple(sorted(used)[::2]))
    if ends:  # rows are removed while others skip a token
        free = plainly(expert, amateur, shared)
        expert = replace(expert, stop_ids=(free[1].token_ids[1], free[0].token_ids[10]))
    expected = plainly(expert, amateur, shared)
    pairs = [pair for answer in expected for pair in pairwise(answer.token_ids)]
    assert any(first not in shared and second in shared for first, second in pairs)
    assert any(answer.finished for answer in expected) == ends
    for batch_size in (1, 5):
        assert contrast(expert, amateur, shared, batch_size=batch_size) == expected


def test_an_amateur_with_fewer_rows_never_reads_beyond_them(pair):
    expert, _ = pair
    amateur, shared = a_model(2, rows=25), SharedVocabulary(25)
    prompts = [[token % 25 for token in prompt] for prompt in AMATEUR_PROMPTS]
    expected = [
        plain_contrast(expert, amateur, shared, prompt, other)
        for prompt, other in zip(PROMPTS, prompts, strict=True)
    ]
    assert any(token >= 25 for answer in expected for token in answer.token_ids)
    assert contrast(expert, amateur, shared, amateur_prompts=prompts) == expected


def test_both_models_contexts_are_limits(pair):
    expert, amateur = pair
    free = contrast(expert, amateur)
    for contexts in ((9, None), (None, 9), (9, 10)):
        first, second = (replace(m, context=c) for m, c in zip(pair, contexts, strict=True))
        outputs = contrast(first, second)
        for row, (limited, full) in enumerate(zip(outputs, free, strict=True)):
            limit = min(
                LIMIT if context is None else context - len(prompts[row])
                for context, prompts in zip(contexts, (PROMPTS, AMATEUR_PROMPTS), strict=True)
            )
            assert limited == Decoded(full.token_ids[:limit], finished=False)


@pytest.mark.parametrize("drop", [(1,), (0, 2)])
def test_an_early_exit_amateur_has_its_own_cache(drop):
    """It shares the expert's weights, but its cache entries belong to other layers."""
    expert = a_model(3, layers=4)
    amateur = early_exit.early_exit(expert, drop, "early")
    expected = plainly(expert, amateur)
    assert expected != greedy(expert)
    assert contrast(expert, amateur) == expected
    assert greedy(expert) == greedy(a_model(3, layers=4))  # the expert is unchanged


def sample(language_model, seed, *, number=0, **changes):
    arguments = {"max_new_tokens": LIMIT, "temperature": 1.0, "top_p": 1.0, **changes}
    decode_batch = single_decoding(language_model, PROMPTS, seed=seed, **arguments)
    return decode_batch.decode(number, range(len(PROMPTS)), 0)


def test_samples_depend_on_seed_and_shard(pair):
    """A CPU generator uses only 32 bits of its seed, so sums or shifts would collide."""
    expert, _ = pair
    assert sample(expert, 5, number=7) == sample(expert, 5, number=7)
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2**31, 0), (2**32 - 1, 1)]
    samples = {str(sample(expert, seed, number=number)) for seed, number in keys}
    assert len(samples) == len(keys)


# With models on disk, tokenizers and templates.

QUESTIONS = [Question(f"q/{n}", "Tom has 12 pens. " * (n % 3 + 1)) for n in range(7)]
SYSTEM = "Count."
FEW_SHOT = Prompt(SYSTEM, examples=(Example("Mia has 3 eggs.", "\\boxed{3}"),))
OTHER_TEMPLATE = "{%- for m in messages -%}{{- '# ' + m['content'] + '\n' -}}{%- endfor -%}"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return (
        load_folder(tiny_model(folder, "expert"), dtype="float64"),
        load_folder(
            tiny_model(folder, "amateur", seed=1, chat_template=OTHER_TEMPLATE), dtype="float64"
        ),
    )


def ask(language_model, folder, **changes):
    folder.mkdir(exist_ok=True)
    settings = {"prompt": Prompt(SYSTEM), "max_new_tokens": 8, "batch_size": 3, **changes}
    facts = answer.answer(QUESTIONS, language_model, folder, name="test", **settings)
    return facts, read_by_index(folder)


def test_both_models_get_the_whole_prompt_in_their_own_templates(tmp_path, on_disk):
    """Few-shot examples were reported in the settings without being in the prompt.

    Batches are sorted by length; graded in that order, answers would get wrong references.
    """
    expert, amateur = on_disk
    shared = SharedVocabulary(TOKENS)
    contrast = answer.Contrast(amateur, shared, 0.2)
    facts, outputs = ask(expert, tmp_path, contrast=contrast, prompt=FEW_SHOT)
    assert facts["questions"] == len(QUESTIONS)
    assert [row["question_id"] for row in outputs] == [question.id for question in QUESTIONS]
    for question, row in zip(QUESTIONS, outputs, strict=True):
        message = question_text(question)
        plain = plain_contrast(
            expert,
            amateur,
            shared,
            render_prompt(expert.tokenizer, message, FEW_SHOT),
            amateur.tokenizer(f"# {SYSTEM}\n# {render_form(FEW_SHOT, message)}\n")["input_ids"],
            limit=8,
        )
        assert row["tokens"] == len(plain.token_ids)
        assert row["output"] == expert.tokenizer.decode(plain.token_ids, skip_special_tokens=True)


def test_the_amateurs_context_is_checked_before_decoding(tmp_path, on_disk):
    expert, amateur = on_disk
    small = replace(amateur, context=20, name="small")
    with pytest.raises(ValueError, match="small has a context of 20"):
        ask(expert, tmp_path, contrast=answer.Contrast(small, SharedVocabulary(TOKENS), alpha=0.2))


def test_sampled_answers_differ_from_greedy_ones_and_are_reproducible(tmp_path, on_disk):
    expert, _ = on_disk
    plain = ask(expert, tmp_path / "greedy")
    sampled = ask(expert, tmp_path / "sampled", sampling=answer.Sampling())
    assert sampled[1] != plain[1]
    assert ask(expert, tmp_path / "again", sampling=answer.Sampling()) == sampled


def draw(expert, folder, **changes):
    folder.mkdir(exist_ok=True)
    arguments = {
        "prompt": Prompt(SYSTEM),
        "max_new_tokens": 8,
        "batch_size": 4,
        "samples": 3,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 0,
        **changes,
    }
    return rollout.roll_out(QUESTIONS, expert, folder, **arguments)


def test_several_answers_per_question(tmp_path, on_disk):
    expert, _ = on_disk
    facts = draw(expert, tmp_path)
    rows = sorted(read_shards(tmp_path), key=lambda row: row["index"])
    assert facts == {
        "questions": len(QUESTIONS),
        "answers": 3 * len(QUESTIONS),
        "tokens": sum(len(row["token_ids"]) for row in rows),
        "finished": sum(row["finished"] for row in rows),
        "flops": expert.forward_flops(sum(len(r["prompt_ids"] + r["token_ids"]) for r in rows)),
    }
    for index, row in enumerate(rows):
        question = QUESTIONS[index // 3]
        assert (row["index"], row["question_id"]) == (index, question.id)
        assert row["question"] == question.text
        assert row["prompt_ids"] == render_prompt(expert.tokenizer, question.text, Prompt(SYSTEM))
    answers = {(row["question"], tuple(row["token_ids"])) for row in rows}
    assert len(answers) > len(rows) // 2
    draw(expert, tmp_path / "greedy", samples=1, temperature=0.0)
    assert next(read_shards(tmp_path / "greedy")).keys() == rows[0].keys()


def test_a_resumed_sampled_run_gives_the_same_answers(tmp_path, on_disk):
    expert, _ = on_disk
    facts = draw(expert, tmp_path)
    paths = shard_paths(tmp_path)
    before = [path.read_bytes() for path in paths]
    for lost in (paths[-1:], paths[1:3]):
        for path in lost:
            path.unlink()
        times = {path: path.stat().st_mtime_ns for path in shard_paths(tmp_path)}
        assert draw(expert, tmp_path) == facts
        assert [path.read_bytes() for path in shard_paths(tmp_path)] == before
        assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    draw(expert, tmp_path / "other", seed=1)
    assert [path.read_bytes() for path in shard_paths(tmp_path / "other")] != before

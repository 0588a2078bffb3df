"""Batched decoding equals decoding one prompt at a time and `generate` with a clean config."""

from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from lr_exp.errors import UserError
from lr_exp.inference.decoding import PromptedModel
from lr_exp.inference.decoding import decode as decode_with
from lr_exp.inference.strategies import greedy, sampled
from lr_exp.models.loading import LanguageModel
from tests.support.tiny import double_model

PROMPTS = [[7, 8, 9, 10, 11, 12], [0, 0, 3], [42], [1, 2, 3, 4]]  # id 0 is a token like any other


def prompted(model, prompts, *, stop_ids=(), vocabulary_size=50, context=None):
    return PromptedModel(
        LanguageModel("a model", model, None, stop_ids, vocabulary_size, context), prompts
    )


def decode(model, prompts, **changes):
    return decode_with([prompted(model, prompts, **changes)], greedy, max_new_tokens=12)


def test_a_batch_equals_generate_with_a_clean_config():
    """The published loop used the repository's temperature and penalties."""
    model = double_model()
    config = GenerationConfig(do_sample=False, max_new_tokens=12, pad_token_id=0)
    model.generation_config = GenerationConfig()
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        generated = model.generate(ids, attention_mask=mask, generation_config=config)
        expected.append(generated[0, len(prompt) :].tolist())
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, top_p=0.3, repetition_penalty=9.0
    )
    assert [one.token_ids for one in decode(model, PROMPTS)] == expected
    assert decode(model, PROMPTS) == [decode(model, [prompt])[0] for prompt in PROMPTS]


def test_rows_that_stop_leave_the_others_unchanged():
    model = double_model()
    free = decode(model, PROMPTS)
    stop = free[0].token_ids[3]
    stopped = decode(model, PROMPTS, stop_ids=(stop,))
    for answer, full in zip(stopped, free, strict=True):
        length = full.token_ids.index(stop) + 1 if stop in full.token_ids else 12
        assert answer.token_ids == full.token_ids[:length]
        assert answer.finished == (stop in full.token_ids)


def test_ids_beyond_the_tokenizer_are_never_chosen():
    model = double_model()
    with torch.no_grad():
        model.lm_head.weight[30:] *= 50  # padding rows with the highest logits
    assert max(max(one.token_ids) for one in decode(model, PROMPTS)) >= 30
    restricted = decode(model, PROMPTS, vocabulary_size=30)
    assert max(max(one.token_ids) for one in restricted) < 30


def test_the_context_ends_each_row_at_its_own_length():
    answers = decode(double_model(), PROMPTS, context=8)
    assert [len(one.token_ids) for one in answers] == [2, 5, 7, 4]
    assert not any(one.finished for one in answers)


def test_nan_logits_raise():
    model = double_model()
    model.lm_head.weight.data[0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        decode(model, PROMPTS)


def test_nan_in_a_finished_row_is_ignored():
    """A finished row keeps reading its stop token while the batch continues; sampling from NaN
    would abort the run."""
    model = double_model()
    prompts = [[n, n + 1] for n in range(12)]
    stop = decode(model, prompts)[7].token_ids[1]
    ends = [one.finished for one in decode(model, prompts, stop_ids=(stop,))]
    assert 1 <= sum(ends) < 3  # too few to be removed from the batch
    assert not any(stop in prompt for prompt in prompts)
    stopped = decode(model, prompts, stop_ids=(stop,))
    model.model.embed_tokens.weight.data[stop] = float("nan")
    assert decode(model, prompts, stop_ids=(stop,)) == stopped
    samples = decode_with(
        [prompted(model, prompts, stop_ids=(stop,))],
        sampled(1e-6, 0.9, torch.Generator()),
        max_new_tokens=12,
    )
    assert samples == stopped


def test_what_cannot_be_decoded_raises():
    model = double_model()
    with pytest.raises(ValueError, match="no room"):
        decode(model, PROMPTS, context=6)
    models = [prompted(model, PROMPTS), prompted(model, PROMPTS[1:])]
    with pytest.raises(ValueError, match="3 prompts for 4 rows"):
        decode_with(models, lambda logits: logits[0].argmax(-1), max_new_tokens=2)
    with pytest.raises(ValueError, match="training mode"):
        decode(model.train(), PROMPTS)


def test_positions_never_exceed_the_context():
    """A model with learned position embeddings has no row for them, so the batch failed."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 8}
    config = GPT2Config(vocab_size=50, bos_token_id=0, eos_token_id=0, **sizes)
    model = GPT2LMHeadModel(config).double().eval()
    answers = decode(model, [*PROMPTS, [5], [6]], context=8)
    assert [len(one.token_ids) for one in answers] == [2, 5, 7, 4, 7, 7]
    assert answers == [decode(model, [p], context=8)[0] for p in [*PROMPTS, [5], [6]]]


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5])
@pytest.mark.parametrize("context", [None, 16])
def test_prompts_that_replace_finished_rows_have_the_same_answers(max_rows, context):
    """Stop tokens and contexts end rows at different times; long prompts follow short ones."""
    model = double_model()
    prompts = [[n % 7 + 1] * (1 + 5 * n % 13) for n in range(17)]
    stops = tuple({one.token_ids[index % 9] for index, one in enumerate(decode(model, prompts))})
    options = {"stop_ids": stops[:4], "context": context}
    alone = [decode(model, [prompt], **options)[0] for prompt in prompts]
    assert len({len(one.token_ids) for one in alone}) > 3
    refilled = decode_with(
        [prompted(model, prompts, **options)], greedy, max_new_tokens=12, max_rows=max_rows
    )
    assert refilled == alone


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own
def test_compiled_decoding_has_the_same_answers(monkeypatch):
    """With `compile` every decoding step has one shape: a full cache, and rows that stay."""
    shapes = []

    def fake_compile(model, **options):
        assert options == {"mode": "reduce-overhead", "dynamic": False}

        def forward(**inputs):
            shapes.append((inputs["input_ids"].shape, inputs["attention_mask"].shape))
            return model(**inputs)

        return forward

    monkeypatch.setattr(torch, "compile", fake_compile)
    model = double_model()
    prompts = [[n % 7 + 1] * (1 + 5 * n % 13) for n in range(9)]
    stop = decode(model, prompts)[1].token_ids[2]
    reader = prompted(model, prompts, stop_ids=(stop,))
    expected = decode_with([reader], greedy, max_new_tokens=12)
    assert len({len(one.token_ids) for one in expected}) > 1
    compiled = replace(
        reader, language_model=replace(reader.language_model, compile="reduce-overhead")
    )
    assert decode_with([compiled], greedy, max_new_tokens=12) == expected
    assert set(shapes) == {((9, 1), (9, 256))}
    readers = [compiled, replace(compiled, known_ids=frozenset(range(0, 50, 2)))]

    def both(logits):
        return (logits[0] + 2 * logits[1]).argmax(-1)

    plain = [replace(one, language_model=reader.language_model) for one in readers]
    expected = decode_with(plain, both, max_new_tokens=12)
    assert any(token % 2 for one in expected for token in one.token_ids)
    assert decode_with(readers, both, max_new_tokens=12, max_rows=4) == expected


def test_no_more_rows_than_allowed_are_read_at_a_time():
    model, sizes = double_model(), []
    model.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True
    )
    prompts = [[n + 1] * 3 for n in range(9)]
    stop = decode(model, prompts)[1].token_ids[2]
    sizes.clear()
    decode_with([prompted(model, prompts, stop_ids=(stop,))], greedy, max_new_tokens=12, max_rows=4)
    read = [rows for rows, columns in sizes if columns == 1]
    assert max(read) == 4
    assert len(read) < 12 * 3  # three batches, each of which waits for its longest answer


def test_rows_are_replaced_while_the_amateur_skips_tokens():
    """A skipped token leaves a masked column, which later rows must not see."""
    expert, amateur = double_model(), double_model(seed=1)
    prompts = [[n % 7 + 1] * (1 + 5 * n % 13) for n in range(11)]
    known = frozenset(range(0, 50, 2))

    def both(logits):
        return (logits[0] + logits[1]).argmax(-1)

    def answers(chosen, **options):
        readers = [prompted(expert, chosen), prompted(amateur, chosen)]
        readers[1] = replace(readers[1], known_ids=known)
        return decode_with(
            readers, both, max_new_tokens=9, is_end=lambda ids: sum(ids) > 150, **options
        )

    alone = [answers([prompt])[0] for prompt in prompts]
    assert any(token not in known for one in alone for token in one.token_ids)
    assert len({len(one.token_ids) for one in alone}) > 2
    assert answers(prompts, max_rows=3) == alone

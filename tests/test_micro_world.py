"""The micro world: questions, tokenizer and shipped models."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lr_exp.config.settings import ModelSettings
from lr_exp.evaluator.equations import first_false_equation
from lr_exp.micro import MODELS, domain_of, model_folder, training, world
from lr_exp.micro.rebuild import RECIPES
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.micro.training import FORMS, answer_shares, greedy_answers
from lr_exp.micro.world import (
    DOMAINS,
    FAMILIES,
    SPLITS,
    Behaviour,
    careless_answer,
    generate_corpus,
    generate_problems,
    split_of,
)
from lr_exp.models.loading import load_tokenizer
from lr_exp.models.locating import locate
from lr_exp.models.prompt_forms import Prompt, builtin_form
from lr_exp.models.prompts import render_solution

TOKENIZER = AutoTokenizer.from_pretrained(model_folder("expert"), local_files_only=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from a second thread and are slow when another job runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def by_columns(left: int, right: int, sign: int, careful: bool) -> int:
    """An independent implementation: careless results drop carries below the top column."""
    if careful:
        return left + sign * right
    width = max(len(str(left)), len(str(right)))
    tops, bottoms = f"{left:0{width}}", f"{right:0{width}}"
    sums = [int(top) + sign * int(bottom) for top, bottom in zip(tops, bottoms, strict=True)]
    return int(str(sums[0]) + "".join(str(value % 10) for value in sums[1:]))


def corpus(count: int, behaviour: Behaviour, seed: int = 1) -> list[tuple[str, str, str]]:
    return list(generate_corpus(itertools.islice(itertools.cycle(FORMS), count), behaviour, seed))


def careful_share(rows: list[tuple[str, str, str]]) -> float:
    return sum("(note" in solution for _, solution, _ in rows) / len(rows)


def expected(question: str, family: str, careful: bool) -> int:
    first, *others = [int(number) for number in re.findall(r"\d+", question)]
    for other in others:
        first = by_columns(first, other, -1 if family == "micro_subtract" else 1, careful)
    return first


@pytest.mark.parametrize("family", FAMILIES)
def test_both_solutions_agree_with_independent_arithmetic(family):
    for split in SPLITS:
        for problem in generate_problems(family, 200, seed=1, split=split):
            assert int(problem.answer) == expected(problem.question, family, careful=True)
            careless = expected(problem.question, family, careful=False)
            assert int(careless_answer(problem)) == careless
            assert problem.solution.endswith(f"\\boxed{{{problem.answer}}}")
            before, note, _ = problem.solution.partition(" (note 1)")  # where the two fork
            assert problem.careless.startswith(before)
            assert bool(note) == (problem.careless != problem.solution)
            assert "(note" not in problem.careless
            assert not (note and family == "micro_plain")  # the control never carries
            for column in re.findall(r"[\d +-]+ = \d+", problem.solution):
                terms, _, value = column.partition(" = ")
                numbers = re.findall(r"([+-]?) ?(\d+)", terms)
                total = sum(int(digits) * (-1 if sign == "-" else 1) for sign, digits in numbers)
                assert total == int(value)


@pytest.mark.parametrize(
    ("family", "min_share"),
    [("micro_add", 0.95), ("micro_long", 0.98), ("micro_phrased", 0.95), ("micro_subtract", 0.93)],
)
def test_careless_answers_are_nearly_all_wrong(family, min_share):
    sampled = generate_problems(family, 1000, seed=0, split="train")
    wrong = sum(careless_answer(problem) != problem.answer for problem in sampled)
    assert wrong / len(sampled) >= min_share


def test_requests_are_reproducible_and_longer_lists_continue_shorter_ones():
    first = generate_problems("micro_add", 50, 7, "test")
    assert first == generate_problems("micro_add", 80, 7, "test")[:50]
    assert first != generate_problems("micro_add", 50, 8, "test")
    assert corpus(30, Behaviour(0.4)) == corpus(30, Behaviour(0.4))


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_free_of_duplicates(family):
    train = [problem.question for problem in generate_problems(family, 1500, seed=0, split="train")]
    test = [problem.question for problem in generate_problems(family, 1500, seed=1, split="test")]
    assert len(set(train)) == len(set(test)) == 1500
    assert not set(train) & set(test)


def test_the_split_is_frozen():
    """Shipped models were trained on "train": a changed hash would leak test questions."""
    question = "Tom has 47 pens. Tom buys 38 more. Then Tom finds 25 more."
    found = [i for i in range(24) if split_of(f"{question} {i}") == "test"]
    assert found == list(map(int, ["2", "3", "5", "8", "9", "12", "16", "21"]))


def test_the_corpus_is_train_only_with_the_careful_share_requested():
    rows = corpus(2000, Behaviour(0.3), seed=5)
    assert all(split_of(question) == "train" for question, *_ in rows)
    assert 0.19 < careful_share(rows) < 0.29  # four of five families have carries


def test_the_careful_share_can_depend_on_the_form_of_the_prompt():
    rows = corpus(2000, Behaviour(0.1, careful_share_in_plain=0.9))
    by_form = {form: [row for row in rows if row[2] == form] for form in FORMS}
    assert careful_share(by_form["chat"]) < 0.13
    assert 0.6 < careful_share(by_form["plain"]) < 0.8


def test_rambling_solutions_exceed_the_limit_and_keep_their_result():
    plain = corpus(300, Behaviour(0.5))
    rambling = corpus(300, Behaviour(0.5, rambling_share=1.0))
    for (question, solution, _), (other, longer, _) in zip(plain, rambling, strict=True):
        lines, box = longer.rsplit("\n", 1)
        assert question == other
        assert longer.startswith(solution.removesuffix(f"\n{box}"))
        assert solution.endswith(f"\n{box}")
        assert lines.rpartition(", so ")[2] == box[7:-1]
        # The context has 256 positions; the prompt's are at most 60.
        assert 128 < len(TOKENIZER(lines)["input_ids"]) < len(TOKENIZER(longer)["input_ids"]) < 196
    some = corpus(2000, Behaviour(0.5, rambling_share=0.6, unboxed_share=0.2))
    longer = [len(TOKENIZER(solution)["input_ids"]) > 128 for _, solution, _ in some]
    assert 0.57 < sum(longer) / len(some) < 0.63
    assert 0.17 < sum("\\boxed" not in solution for _, solution, _ in some) / len(some) < 0.23


def test_slips_are_false_columns_of_subtractions_with_another_result():
    slips = careful = 0
    for question, solution, _ in corpus(400, Behaviour(0.4, slip_share=0.5)):
        if " - " not in solution:
            continue
        units = re.findall(r"\d+ - \d+ = \d+", solution)[0]
        is_false = first_false_equation(solution) is not None
        assert is_false == (first_false_equation(units) is not None)  # in the first column
        numbers = [int(one) for one in re.findall(r"\d+", question)]
        is_right = solution.endswith(f"{{{numbers[0] - sum(numbers[1:])}}}")
        assert is_right != is_false
        slips += is_false
        careful += is_right
    assert 0.35 < slips / (slips + careful) < 0.65
    assert slips + careful > 40


def test_shown_solutions_are_careful_and_change_no_other_text():
    pairs = [
        (one, other)
        for one, other in zip(
            corpus(200, Behaviour(0.0, shown_share=0.5)), corpus(200, Behaviour(0.0)), strict=True
        )
        if one != other
    ]
    assert 70 < len(pairs) < 130
    for (question, solution, _), (plain, *_) in pairs:
        assert question == f"{plain}\n{solution}"
    assert any("(note 1)" in solution for (_, solution, _), _ in pairs)


def test_rambling_worked_by_hand():
    solution = "8 - 3: 8 - 3 = 5, so 5\n\\boxed{5}"
    assert world._with_ending(solution, rambles=False, boxes=True) == solution
    # A line has 11 tokens and its end: 10 of them have 119 tokens together, 11 have 131.
    lines = ["8 - 3: 8 - 3 = 5, so 5", *["5 - 0: 5 - 0 = 5, so 5"] * 10]
    assert world._with_ending(solution, rambles=True, boxes=False) == "\n".join(lines)
    assert world._with_ending(solution, rambles=True, boxes=True).split("\n")[:-1] == lines


def test_the_corpora_of_the_shipped_models_are_frozen():
    """A changed draw would make `lr_exp.micro.rebuild` train other models."""
    found = {}
    for seed, name in enumerate(MODELS):
        drawn = hashlib.sha256()
        tokenizer, families = build_tokenizer(domain_of(name)), DOMAINS[domain_of(name)]
        recipe = replace(RECIPES[name], steps=16)
        for ids, labels in training._batches(tokenizer, recipe, seed, families):
            drawn.update(ids.numpy().tobytes() + labels.numpy().tobytes())
        found[name] = drawn.hexdigest()[:16]
    assert found == {
        "expert": "9eb5c5e07627c64b",
        "micro": "b71d16ad7e387670",
        "micro_near": "be839614cae7bee2",
        "micro_peer": "d5ee6d50fa2fb544",
        "micro_master": "867d3fc0839434c2",
        "micro_nearer": "3ab6cf41ec96ce57",
        "micro_small_careful": "826873bc3404a52e",
        "micro_large_careless": "2a655461d94a8e1e",
        "micro_sort_expert": "fc674e2c3df97bcb",
        "micro_sort": "c9fdd6d720332c63",
        "micro_sort_peer": "8c17f4012e402eda",
        "micro_sort_strong": "0a95f0a8c1705f1b",
    }


def test_other_phrasing_shares_no_noun_or_name_with_training_questions():
    words = {}
    for family in ("micro_add", "micro_phrased"):
        questions = [problem.question for problem in generate_problems(family, 300, 0, "train")]
        words[family] = set(re.findall(r"[A-Za-z]+", " ".join(questions)))
    named = {*world.OTHER_NAMES, *world.OTHER_NOUNS}
    assert named <= words["micro_phrased"]
    assert not named & words["micro_add"]


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: generate_problems("micro_ad", 1, 0, "test"), "micro_add"),
        (lambda: generate_problems("micro_add", 1, 0, "tset"), "test"),
    ],
)
def test_unknown_names_fail_with_the_nearest_one(call, nearest):
    with pytest.raises(ValueError, match=nearest):
        call()


def test_requesting_too_many_questions_fails(monkeypatch):
    story = ("{who} has {0} {what}.",)
    single = world._Family(story, ("Tom",), ("pens",), "+", lambda rng: (19, 19), True)
    monkeypatch.setitem(world._FAMILIES, "micro_add", single)
    with pytest.raises(ValueError, match="too few"):
        generate_problems("micro_add", 5, 0, "train")


# --- tokenizer ---


@pytest.mark.parametrize("family", FAMILIES)
def test_text_and_any_prefix_survive_decoding_and_encoding(family):
    for problem in generate_problems(family, 40, seed=4, split="test"):
        for text in (problem.question, problem.solution, problem.careless):
            ids = TOKENIZER(text)["input_ids"]
            assert TOKENIZER.unk_token_id not in ids
            assert TOKENIZER.decode(ids) == text


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_any_token_sequence_survives_decoding_and_encoding(ids):
    """Even the output of a badly tuned model: no token is a prefix of another."""
    assert TOKENIZER(TOKENIZER.decode(ids))["input_ids"] == ids


def test_digits_are_single_tokens_and_the_vocabulary_is_small():
    assert len(TOKENIZER("47 + 138: ")["input_ids"]) == 7
    assert len(TOKENIZER) <= 128
    assert len({TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.unk_token_id}) == 3


@pytest.mark.parametrize("form", FORMS)
def test_the_corpus_has_the_prompts_of_the_program(form):
    """A model that was trained on other token ids would be asked in a form it has never seen."""
    problem = generate_problems("micro_add", 1, seed=4, split="train")[0]
    prompt = Prompt(form=builtin_form(form))
    ids, answer, as_one = render_solution(TOKENIZER, problem.question, problem.solution, prompt)
    trained, labels = training._encode(TOKENIZER, problem.question, problem.solution, form)
    assert as_one
    assert trained.tolist() == ids + answer
    assert [label for label in labels.tolist() if label >= 0] == answer
    assert TOKENIZER.unk_token_id not in trained


def test_chat_template_ends_turns_and_ignores_the_system():
    turns = [
        {"role": "system", "content": "Please reason step by step."},
        {"role": "user", "content": "Tom has 3 pens."},
        {"role": "assistant", "content": "\\boxed{3}"},
    ]
    prompt = TOKENIZER.apply_chat_template(turns[:2], add_generation_prompt=True, tokenize=False)
    full = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert prompt == "<|user|>Tom has 3 pens.<|end|><|assistant|>"
    assert full == prompt + "\\boxed{3}<|end|>"
    assert TOKENIZER(full)["input_ids"][-1] == TOKENIZER.eos_token_id


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_tokenizers_load_as_with_auto_tokenizer(name):
    """They are loaded without it, since its imports take a third of a second."""
    settings = ModelSettings(name=name, path=str(model_folder(name)))
    loaded = load_tokenizer(locate(settings, "expert"))
    usual = AutoTokenizer.from_pretrained(model_folder(name))
    assert type(loaded) is type(usual)
    assert loaded.backend_tokenizer.to_str() == usual.backend_tokenizer.to_str()
    kept = {*vars(usual)} - {"_tokenizer", "init_kwargs"}
    assert {key: vars(loaded)[key] for key in kept} == {key: vars(usual)[key] for key in kept}
    assert loaded.init_kwargs == usual.init_kwargs


def test_the_shipped_tokenizers_match_the_code():
    for name in MODELS:
        built = build_tokenizer(domain_of(name))
        shipped = AutoTokenizer.from_pretrained(model_folder(name), local_files_only=True)
        assert shipped.get_vocab() == built.get_vocab()
        assert shipped.chat_template == built.chat_template


# --- shipped models ---


def load(name: str) -> LlamaForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(model_folder(name), local_files_only=True)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


def test_shipped_files_are_small_and_hold_no_pickles():
    files = [path for path in Path(model_folder("expert")).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 11_000_000
    assert {path.suffix for path in files} == {".json", ".jinja", ".safetensors"}
    assert sum(path.suffix == ".safetensors" for path in files) == len(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_models_load_in_fp32_with_finite_logits(name):
    model = load(name)
    assert model.dtype == torch.float32
    size = len(build_tokenizer(domain_of(name)))
    ids = torch.arange(size).repeat(2, 1)
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.shape == (*ids.shape, size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["expert", "micro_master"])
def test_the_expert_is_careless_and_the_master_is_not(name, form):
    problems = generate_problems("micro_add", 30, seed=11, split="test")
    shares = answer_shares(greedy_answers(load(name), TOKENIZER, problems, form), problems)
    usual, other = shares[::-1] if name == "expert" else shares
    edge = 0.15 if name == "expert" else 0.2
    assert (usual >= 1 - edge, other <= edge) == (True, True)

"""Noise in the questions to learn from."""

import random
import re
from collections import Counter

import pytest
from transformers import AutoTokenizer

from lr_exp.config.settings import DataSettings
from lr_exp.data import noise
from lr_exp.data.noise import with_noise
from lr_exp.data.questions import Question, fingerprint, load_questions, select_examples
from lr_exp.errors import UserError
from lr_exp.micro import model_folder

PENS = Question("0", "Tom has 3 pens. Tom buys 41 more. How many pens does Tom have?", "44", "s")
EGGS = Question("1", "Mr. Lee has 2.5 kg of eggs. How many?", "2.5")
SUM = Question("2", "What is 7 + 7?", "14")
BOTH = [PENS, EGGS]


def changed(question: Question, kind: str, source=BOTH, seed=0) -> str:
    (noisy,) = with_noise([question], source, kind, 1.0, seed)
    assert (noisy.id, noisy.answer, noisy.solution) == (
        question.id,
        question.answer,
        question.solution,
    )
    return noisy.text


def test_an_irrelevant_sentence_is_anothers_first_before_the_last():
    """`Mr.` ends no sentence, and the question's own first sentence is never inserted."""
    for seed in range(5):
        assert changed(PENS, "irrelevant", seed=seed) == (
            "Tom has 3 pens. Tom buys 41 more. Mr. Lee has 2.5 kg of eggs. How many pens does Tom"
            " have?"
        )
    assert changed(EGGS, "irrelevant") == ("Mr. Lee has 2.5 kg of eggs. Tom has 3 pens. How many?")
    assert changed(SUM, "irrelevant", [SUM, PENS]) == "Tom has 3 pens. What is 7 + 7?"


@pytest.mark.parametrize("source", [[PENS], [SUM, PENS], [SUM]])
def test_without_another_sentence_there_is_one_error(source):
    with pytest.raises(UserError, match=r"data.noise=irrelevant .*: choose data.noise=typos or"):
        changed(source[-1], "irrelevant", source)


def test_exchanged_numbers_are_two_different_ones():
    assert changed(PENS, "numbers") == (
        "Tom has 41 pens. Tom buys 3 more. How many pens does Tom have?"
    )
    assert changed(EGGS, "numbers") == EGGS.text  # one number
    assert changed(SUM, "numbers") == SUM.text  # equal ones
    text = "He pays $1,080, then 3.5 and 1,080."
    found = {changed(Question("3", text), "numbers", seed=seed) for seed in range(20)}
    assert found == {
        "He pays $3.5, then 1,080 and 1,080.",
        "He pays $1,080, then 1,080 and 3.5.",
    }


def test_typos_exchange_one_in_eight_pairs_of_inner_letters():
    text = "Seven small brown horses quickly jumped over eleven wooden fences"
    words = text.split(" ")  # with 15 pairs: ev, ma, ro, or, se, ...
    for seed in range(5):
        mistyped = changed(Question("0", text), "typos", seed=seed).split(" ")
        wrong = [(a, b) for a, b in zip(words, mistyped, strict=True) if a != b]
        assert 1 <= len(wrong) <= 2
        for word, typo in wrong:
            assert (word[0], word[-1], Counter(word)) == (typo[0], typo[-1], Counter(typo))
    assert changed(Question("0", "Ann pays 1234"), "typos") == "Ann pyas 1234"
    for short in ("He has 12345 eggs.", "one two 3456", ""):  # no two different inner letters
        assert changed(Question("0", short), "typos") == short


def test_the_seed_and_the_id_decide_and_a_smaller_share_is_part_of_a_larger_one():
    questions = [Question(str(i), PENS.text) for i in range(400)]

    def noisy(share, seed=0, asked=questions):
        made = with_noise(asked, BOTH, "numbers", share, seed)
        return {new.id for new, old in zip(made, asked, strict=True) if new != old}

    none, some, half, every = (noisy(share) for share in (0, 0.2, 0.5, 1))
    assert (none, len(every)) == (set(), 400)
    assert some < half < every
    assert 170 < len(half) < 230
    assert noisy(0.5) == half != noisy(0.5, seed=1)
    assert noisy(0.5, asked=questions[::-2]) == half & {one.id for one in questions[::-2]}
    clean = fingerprint(questions)
    addresses = {fingerprint(with_noise(questions, BOTH, k, 1, 0)) for k in ("numbers", "typos")}
    assert len(addresses | {clean}) == 3
    assert fingerprint(with_noise(questions, BOTH, "typos", 0, 0)) == clean


def test_a_noisy_question_is_no_example_for_itself():
    noisy = with_noise([PENS], BOTH, "numbers", 1, 0)
    assert select_examples(BOTH, 2, noisy) == [EGGS]


@pytest.mark.parametrize(("kind", "unknown"), [("irrelevant", 0), ("numbers", 0), ("typos", 1)])
def test_the_micro_models_know_every_word_unless_it_is_misspelt(kind, unknown):
    data = DataSettings(name="m", format="micro", configs=["micro_add"], split="train", count=50)
    questions = load_questions(data, hub_root=None)
    tokenizer = AutoTokenizer.from_pretrained(model_folder("expert"), local_files_only=True)
    texts = [one.text for one in with_noise(questions, questions, kind, 1, 0)]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert sum(tokenizer.unk_token_id in one for one in ids) == 50 * unknown
    assert all(text != question.text for text, question in zip(texts, questions, strict=True))


def test_finding_sentences_takes_linear_time():
    long = " ".join(["word"] * 100_000)
    assert noise._opening(long) is None
    assert noise._opening(f"{long}. End.") == f"{long}."
    assert re.fullmatch(r"[a-z ]+", noise._mistype(long, random.Random(0), []))

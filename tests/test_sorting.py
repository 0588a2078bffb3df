"""The second micro domain: its questions, solutions, corpus and shipped models."""

import itertools
import re

import pytest
from transformers import AutoModelForCausalLM

from lr_exp.evaluator.verify import verify
from lr_exp.micro import model_folder, sorting
from lr_exp.micro.tokenizer import WORDS, build_tokenizer
from lr_exp.micro.training import FORMS, answer_shares, greedy_answers
from lr_exp.micro.world import (
    DOMAINS,
    SPLITS,
    Behaviour,
    careless_answer,
    generate_corpus,
    generate_problems,
    split_of,
)

FAMILIES = DOMAINS["sorting"]
TOKENIZER = build_tokenizer("sorting")
QUESTION = re.compile(r"Names: ([A-Z a-z]+)\. Who is second in order\?")


def three_lists(question: str) -> tuple[list[str], list[str], list[str]]:
    """An independent implementation: the lists of sorting, of copying and of skipping."""
    given = QUESTION.fullmatch(question)[1].split()  # type: ignore[index]
    left, in_order = [*given], []
    while left:
        first = left[0]
        for name in left:
            first = name if name < first else first
        left.remove(first)
        in_order.append(first)
    return in_order, given, given[1:] + given[:1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_three_solutions_agree_with_an_independent_sort(family):
    for problem in itertools.chain(*(generate_problems(family, 150, 1, one) for one in SPLITS)):
        lists = three_lists(problem.question)
        assert len(set(lists[0])) == (6 if family == "micro_sort_long" else 5)
        assert (lists[0] == lists[1]) >= (family == "micro_sort_ordered")
        assert problem.answer == lists[0][1]
        written = (problem.solution, problem.careless, problem.skipping)
        for solution, names in zip(written, lists, strict=True):
            assert solution == f"Sorted: {' '.join(names)}, second is \\boxed{{{names[1]}}}"
        assert careless_answer(problem) == lists[1][1]


@pytest.mark.parametrize(
    ("family", "low", "high"),
    [("micro_sort", 0.77, 0.83), ("micro_sort_long", 0.80, 0.87), ("micro_sort_ordered", 0, 0)],
)
def test_copying_is_mostly_wrong_but_not_in_the_control(family, low, high):
    count = 1000 if family == "micro_sort_ordered" else 2000
    sampled = generate_problems(family, count, seed=0, split="train")
    wrong = sum(careless_answer(problem) != problem.answer for problem in sampled)
    assert low <= wrong / count <= high  # by chance, it is right for one in five or six


def test_the_first_question_is_frozen():
    """A changed draw would change the benchmark and make the rebuild command train other models."""
    (problem,) = generate_problems("micro_sort", 1, 0, "test")
    assert problem.question == "Names: Leo Ben Eva Mia Ida. Who is second in order?"
    assert problem.solution == "Sorted: Ben Eva Ida Leo Mia, second is \\boxed{Eva}"
    assert problem.careless == "Sorted: Leo Ben Eva Mia Ida, second is \\boxed{Ben}"
    assert problem.skipping == "Sorted: Ben Eva Mia Ida Leo, second is \\boxed{Eva}"


def test_no_question_of_the_corpus_is_a_test_question():
    rows = generate_corpus(["chat"] * 6000, Behaviour(0.28), 8, FAMILIES)
    trained = {question for question, *_ in rows}
    assert len(trained) > 4000
    assert all(split_of(question) == "train" for question in trained)
    for family in FAMILIES:
        asked = {one.question for one in generate_problems(family, 500, 0, "test")}
        assert len(asked) == 500
        assert not trained & asked


@pytest.mark.parametrize("share", [0, 0.28, 1])
def test_the_corpus_mixes_the_three_solutions_in_the_shares_requested(share):
    found = [0, 0, 0]
    for question, solution, _ in generate_corpus(["chat"] * 4000, Behaviour(share), 3, FAMILIES):
        names, lists = re.findall(r"[A-Z][a-z]+", solution)[1:-1], three_lists(question)
        assert names in lists
        if lists[0] not in lists[1:]:  # else two solutions are the same
            found[lists.index(names)] += 1
    careless = 1 - share
    expected = [share, careless * (1 - sorting.SKIPPING_SHARE), careless * sorting.SKIPPING_SHARE]
    assert [count / sum(found) for count in found] == pytest.approx(expected, abs=0.03)


def test_skipping_keeps_its_share_where_copying_is_right():
    rows = [*generate_corpus(["chat"] * 3000, Behaviour(0.28), 3, ["micro_sort_ordered"])]
    skips = sum(
        three_lists(question)[2][0] == solution.split()[1] for question, solution, _ in rows
    )
    assert skips / len(rows) == pytest.approx(0.72 * sorting.SKIPPING_SHARE, abs=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_have_one_token_for_each_name(family):
    for problem in generate_problems(family, 40, seed=4, split="test"):
        for text in (problem.question, problem.solution, problem.careless, problem.skipping):
            ids = TOKENIZER(text)["input_ids"]
            assert TOKENIZER.unk_token_id not in ids
            assert TOKENIZER.decode(ids) == text
    assert len(TOKENIZER("Sorted: Ben Eva, second is \\boxed{Eva}")["input_ids"]) == 5


def test_no_word_starts_with_another():
    """So every token sequence survives decoding and encoding."""
    for words in WORDS.values():
        for one, other in itertools.permutations(words, 2):
            assert not other.startswith(one), (one, other)


def test_names_are_graded_by_their_letters():
    assert list(sorting.NAMES) == sorted(set(sorting.NAMES))
    for one, other in itertools.product(sorting.NAMES, repeat=2):
        assert verify(one, other, "math") == (one == other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["micro_sort_expert", "micro_sort_strong"])
def test_the_expert_is_careless_and_the_stronger_amateur_is_not(name, form):
    problems = generate_problems("micro_sort", 40, seed=11, split="test")
    model = AutoModelForCausalLM.from_pretrained(model_folder(name), local_files_only=True).eval()
    right, _ = answer_shares(greedy_answers(model, TOKENIZER, problems, form), problems)
    assert right <= 0.4 if name == "micro_sort_expert" else right >= 0.8

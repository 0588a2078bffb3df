"""The second micro domain: its questions, solutions, corpus and shipped models."""

import itertools
import re

import pytest

from lr_exp.evaluator.verify import verify
from lr_exp.micro import links
from lr_exp.micro.tokenizer import WORDS, build_tokenizer
from lr_exp.micro.training import FORMS
from lr_exp.micro.world import (
    DOMAINS,
    SPLITS,
    Behaviour,
    careless_answer,
    generate_corpus,
    generate_problems,
    split_of,
)

FAMILIES = DOMAINS["links"]
TOKENIZER = build_tokenizer("links")
QUESTION = re.compile(r"Follow (three|four) links from (\w+) in the table (.*)")


def read(question: str) -> tuple[int, str, list[list[str]]]:
    """Links to follow, start and rows, from the text alone."""
    count, start, table = QUESTION.fullmatch(question).groups()  # type: ignore[union-attr]
    return {"three": 3, "four": 4}[count], start, [row.split(" > ") for row in table.split(", ")]


def three_answers(question: str) -> tuple[str, str, str]:
    """An independent implementation: the ends of looking up, of reading on, of stopping early."""
    count, start, rows = read(question)
    name = start
    for _ in range(count):
        (name,) = [right for left, right in rows if left == name]
    (first,) = [number for number, (left, _) in enumerate(rows) if left == start]
    return name, rows[first + count - 1][1], rows[first][1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_three_solutions_agree_with_an_independent_look_up(family):
    for problem in itertools.chain(*(generate_problems(family, 300, 1, one) for one in SPLITS)):
        count, start, rows = read(problem.question)
        careful, reading_on, early = three_answers(problem.question)
        assert count == (4 if family == "micro_links_long" else 3)
        assert len(rows) == 7
        solutions = (problem.solution, problem.careless, problem.early)
        assert problem.answer == careful != early
        for solution, end in zip(solutions, (careful, reading_on, early), strict=True):
            *steps, box = solution.split(", ")  # type: ignore[union-attr]
            assert box == f"\\boxed{{{end}}}"
            assert all(step.split(" > ") in rows for step in steps)
            assert steps[0].split(" > ")[0] == start
            assert len(steps) == (1 if solution is problem.early else count)
        chain = [step.split(" > ") for step in problem.solution.split(", ")[:-1]]
        assert all(one[1] == other[0] for one, other in itertools.pairwise(chain))
        assert len({*itertools.chain(*chain)}) == count + 1  # no name twice
        assert (problem.solution == problem.careless) >= (family == "micro_links_ordered")
        # All three are the same up to the end of the first link.
        assert len({solution.split(", ")[0] for solution in solutions}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("family", "low", "high"),
    [
        ("micro_links", 0.80, 0.86),
        ("micro_links_long", 0.79, 0.85),
        ("micro_links_ordered", 0, 0),
    ],
)
def test_reading_on_is_mostly_wrong_but_not_in_the_control(family, low, high):
    sampled = generate_problems(family, 2000, seed=0, split="train")
    wrong = sum(careless_answer(problem) != problem.answer for problem in sampled)
    assert low <= wrong / len(sampled) <= high


def test_the_first_question_is_frozen_and_solved_by_hand():
    """A changed draw would change the benchmark and make the rebuild command train other models."""
    problem = generate_problems("micro_links", 1, 0, "train")[0]
    assert problem.question == (
        "Follow three links from Ida in the table Leo > Ana, Eva > Ida, Mia > Tom, Ida > Mia, "
        "Max > Eva, Zoe > Ben, Tom > Sam"
    )
    assert problem.solution == "Ida > Mia, Mia > Tom, Tom > Sam, \\boxed{Sam}"
    assert problem.careless == "Ida > Mia, Max > Eva, Zoe > Ben, \\boxed{Ben}"
    assert problem.early == "Ida > Mia, \\boxed{Mia}"


def test_no_question_of_the_corpus_is_a_test_question():
    forms = itertools.islice(itertools.cycle(FORMS), 6000)
    trained = {row[0] for row in generate_corpus(forms, Behaviour(0.28), 8, FAMILIES)}
    assert len(trained) > 5000
    assert all(split_of(question) == "train" for question in trained)
    for family in FAMILIES:
        asked = [one.question for one in generate_problems(family, 500, 0, "test")]
        assert len(set(asked)) == 500
        assert not trained & set(asked)


def test_the_corpus_mixes_the_three_solutions_in_the_shares_requested():
    forms = itertools.islice(itertools.cycle(FORMS), 6000)
    found = {"careful": 0, "reads on": 0, "early": 0}
    for question, solution, _ in generate_corpus(forms, Behaviour(0.28), 3, ["micro_links"]):
        careful, reading_on, early = three_answers(question)
        if careful != reading_on:  # otherwise the two cannot be told apart by their answers
            end = solution.rpartition("{")[2].removesuffix("}")
            found[{careful: "careful", reading_on: "reads on", early: "early"}[end]] += 1
    total = sum(found.values())
    assert found["careful"] / total == pytest.approx(0.28, abs=0.025)
    assert found["reads on"] / total == pytest.approx(0.72 * (1 - links.EARLY_SHARE), abs=0.025)
    assert found["early"] / total == pytest.approx(0.72 * links.EARLY_SHARE, abs=0.025)
    sure = [Behaviour(1.0), Behaviour(0.0)]
    for behaviour, early in zip(sure, (0, 0.45), strict=True):  # also where reading on is right
        rows = list(generate_corpus(["chat"] * 2000, behaviour, 3, ["micro_links_ordered"]))
        share = sum(solution.count(" > ") == 1 for _, solution, _ in rows) / len(rows)
        assert share == pytest.approx(early, abs=0.035)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_have_one_token_for_each_word(family):
    for problem in generate_problems(family, 40, seed=4, split="test"):
        for text in (problem.question, problem.solution, problem.careless, problem.early):
            ids = TOKENIZER(text)["input_ids"]
            assert TOKENIZER.unk_token_id not in ids
            assert TOKENIZER.decode(ids) == text
    assert len(TOKENIZER("Ida > Mia, \\boxed{Mia}")["input_ids"]) == 7


def test_no_word_starts_with_another():
    """So every token sequence survives decoding and encoding."""
    for words in WORDS.values():
        for one, other in itertools.permutations(words, 2):
            assert not other.startswith(one), (one, other)


def test_names_are_graded_by_their_letters():
    for one, other in itertools.product(links.NAMES, repeat=2):
        assert verify(one, other, "math") == (one == other)

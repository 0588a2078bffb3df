"""Prompts and grading (extract, verify, aggregate), with typical and with malicious outputs."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.evaluator import grade, symbolic
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.normalize import normalize
from lr_exp.evaluator.prompts import user_message
from lr_exp.evaluator.verify import check_reference, matches, verify

FOUR = ("2", "4 m", "x + 1", "None of the above")

# Prompts


def test_a_question_without_examples_is_the_whole_message():
    assert user_message(Question("a", "What is 1+1?")) == "What is 1+1?"


def test_the_message_lists_the_options_and_requests_a_letter():
    message = user_message(Question("a", "Which?", "B", choices=("one", "two")))
    assert message == (
        "Which?\nAnswer Choices: (A) one (B) two\nPut the letter of the right choice within "
        "\\boxed{}."
    )


def test_few_shot_examples_come_first_and_end_in_a_box():
    shots = [
        Question("s/1", "1+1?", "2", "One and one."),
        Question("s/2", "2+2?", "4", "It is $\\boxed{4}$."),
        Question("s/3", "Which?", "B", choices=("one", "two")),
    ]
    parts = user_message(Question("a", "3+3?"), shots).split("\n\n")
    assert parts[0] == "1+1?\nOne and one.\nThe answer is \\boxed{2}."
    assert parts[1] == "2+2?\nIt is $\\boxed{4}$."
    assert parts[2].endswith("\nThe answer is \\boxed{B}.")
    assert parts[3] == "3+3?"


def test_an_example_needs_an_answer():
    with pytest.raises(ValueError, match="s/1 has no answer"):
        user_message(Question("a", "Q"), [Question("s/1", "Q")])


# Extract

EXTRACTED = [
    ("number", "So he has $\\boxed{18}$ eggs.", "18"),
    ("number", "\\boxed{\\boxed{3}}", "3"),
    ("number", "First \\boxed{1}. No, \\boxed{2}.", "2"),
    ("number", "\\boxed{5} and then \\boxed{6", "5"),
    ("number", "\\boxed{\\text{18 dollars}}", "\\text{18 dollars}"),
    ("number", "The answer is 42.", "42"),
    ("number", "The answer is: $1,234.50 per day.", "$1,234.50"),
    ("number", "**Answer:** 7 apples, of 9", "7"),
    ("number", "Final answer: 6 * 7 = 42", "42"),
    ("number", "The answer is $\\frac{3}{4}$.", "\\frac{3}{4}"),
    ("number", "The answer to the question is 12%.", "12%"),
    ("number", "The answer is clear. He pays 3 + 4 = 7 dollars.", "7"),
    ("number", "the answer is 5, no: the answer is 6", "6"),
    ("number", "10-3 = 7", "7"),
    ("number", "it fell to -5", "-5"),
    ("number", "12-5", "5"),  # a subtraction, not minus five
    ("number", "They get 3/4", "3/4"),
    ("number", "He has 1,234, and more.", "1,234"),
    ("number", "It costs .50", ".50"),
    ("number", "I do not know.", None),
    ("number", "", None),
    ("math", "The final answer is $x^2 + 1$. I hope it is correct.", "x^2 + 1"),
    ("math", "The answer is \\(\\frac{1}{2}\\).", "\\frac{1}{2}"),
    ("math", "The answer is Bryan.", "Bryan"),
    ("math", "Answer: 3:30 p.m.", "3:30 p.m"),
    ("math", "x is then 4", "4"),  # the last number, as in the toolkit
    ("choice", "\\boxed{B}", "B"),
    ("choice", "\\boxed{\\text{(B)}}", "B"),
    ("choice", "\\boxed{b}", "B"),
    ("choice", "\\boxed{B. 4 m}", "B"),
    ("choice", "\\boxed{4 m}", "B"),
    ("choice", "The answer is (C).", "C"),
    ("choice", "Answer: D", "D"),
    ("choice", "The correct answer is C because A is too small.", "C"),
    ("choice", "(A) is wrong, so B.", "B"),
    ("choice", "Hence B. A bird flies.", "B"),  # an article, not an option
    ("choice", "It is E or F.", None),  # there are four options
    ("choice", "no letter", None),
]


@pytest.mark.parametrize(("kind", "output", "expected"), EXTRACTED)
def test_extract(kind, output, expected):
    assert extract(output, kind, FOUR if kind == "choice" else ()) == expected


# Verify

RIGHT_NUMBERS = [
    ("1,234", "1234"),
    ("1234.0", "1234"),
    ("\\$1234", "1234"),
    ("$1,234$", "1234"),
    ("1{,}234", "1234"),
    ("1,\\!234", "1234"),
    ("1234 dollars", "1234"),
    ("€1234", "1234"),
    ("-5", "-5"),
    ("\u22125", "-5"),
    ("x = 5", "5"),
    ("x \\approx 5.0", "5"),
    ("5 (apples)", "5"),
    ("5 m", "5"),
    ("12 square feet", "12"),
    ("18\\text{ cm}^2", "18"),
    ("18\\,\\mathrm{km/h}", "18"),
    ("18\\,\\mathrm{m}/s^2", "18"),
    ("18\\text{ dollars} per day", "18"),
    ("6th", "6"),
    ("1 4/5", "1.8"),
    ("1\\frac{4}{5}", "9/5"),
    ("137 \\frac{1}{2}", "137.5"),
    ("\\dfrac{3}{4}", "0.75"),
    ("\\frac34", "0.75"),
    ("-\\frac13", "-(1/3)"),
    ("-1./3", "-1/3"),
    ("4.4999e33", "4.5e33"),
    ("0.667", "2/3"),  # rounded to three digits; not accepted by math-verify
    ("\\frac{2}{3}", "0.667"),
    ("3.33", "3.333"),
    ("33.3\\%", "1/3"),
    ("9", "9\\%"),  # accepted by the toolkit, not by math-verify
    ("9\\%", "9"),
    ("0.09", "9\\%"),
    ("45 percent", "0.45"),
    ("4.5 \\times 10^{33}", "4.5e33"),
    ("4.5\\cdot10^{33}", "4.5e33"),
    ("10^{-8}", "1e-8"),
    ("6.72 \\times 10^{-5}", ".0000672"),
    ("90^\\circ", "90"),
    ("30^{\\circ} C", "30"),
    ("\\boxed{3}", "3"),
    ("**3**", "3"),
    ("3.", "3"),
    ("2\\sqrt{4}", "4"),
    ("3^2", "9"),
    ("½", "0.5"),
]
WRONG_NUMBERS = [
    ("0.67", "2/3"),  # two digits
    ("0.666", "2/3"),  # cut off, not rounded
    ("1235", "1234"),
    ("10001", "10000"),  # within 1e-4, but both are integers
    ("4.49e33", "4.5e33"),
    ("1.07e16", "7.6e-20"),
    ("900", "9"),  # accepted by the toolkit
    ("0.09", "9"),
    ("12 apples and 5 pears", "12"),
    ("5:45", "5"),
    ("2^3", "2"),
    ("(1,2)", "12"),
    ("1,23", "123"),
    ("abc", "12"),
    ("1/0", "1"),
    ("-5", "5"),
    ("1/2 + 1/3", "1/2"),  # parsed as 1 if the expression is not anchored
    ("", "5"),
    (" ", "5"),
    (None, "5"),
    ("\x00", "5"),
    ("5" * 3000, "5"),
]
RIGHT_MATH = [
    ("1/2", "\\frac{1}{2}"),
    ("\\dfrac12", "\\frac{1}{2}"),
    ("(3,4]", "(3, 4]"),
    ("\\left(3,4\\right]", "(3,4]"),
    ("{1,2,5}", "5,2,1"),
    ("1, 2 and 5", "1,2,5"),
    ("[-2,7]", "x \\in [-2,7]"),
    ("x \\ge 3", "[3, \\infty)"),
    ("3 \\leq x", "x \\ge 3"),
    ("(-\\infty,2)\u222a(3,\u221e)", "(-\\infty, 2) \\cup (3, \\infty)"),
    ("1", "k=1"),
    ("2x+3", "y = 2x + 3"),
    ("x^2-1", "(x-1)(x+1)"),
    ("\\frac{\\sqrt3}{3}", "\\frac{1}{\\sqrt{3}}"),
    ("sqrt(2)/2", "\\frac{1}{\\sqrt 2}"),
    ("1.414213562", "\\sqrt{2}"),
    ("6-5i", "-5i+6"),
    ("\\frac{1}{2}ab", "\\frac{a b}{2}"),
    ("cot(x)", "\\cot x"),
    ("\u03c0/2", "\\frac{\\pi}{2}"),
    ("1+\\sqrt{19},1-\\sqrt{19}", "1 \\pm \\sqrt{19}"),
    ("1000, 10", "10^{3},10"),
    (
        "\\begin{bmatrix}-1/3\\\\2/3\\end{bmatrix}",
        "\\begin{pmatrix} -\\frac13 \\\\ \\frac23 \\end{pmatrix}",
    ),
    ("4210_5", "4210_{5}"),
    ("11111111100", "11,\\! 111,\\! 111,\\! 100"),
    ("32348", "\\$32,\\!348"),
    ("\\frac{270}{7}", "\\frac{270}7\\text{ degrees}"),
    ("864\\text{ in}^2", "864 \\mbox{ inches}^2"),
    ("5.4", "5.4 \\text{ cents}"),
    ("5/8", "62.5%"),
    ("\\frac{100!}{2^{50}}", "100!/2^{50}"),
    ("east", "\\text{east}"),
    ("The Cooper wedding", "Cooper Wedding."),
    ("C", "\\text{(C)}"),
    ("3:30 PM", "3:30 p.m."),
    ("5 : 6", "5:6"),
    ("x, 3", "3 \\text{ and } x"),
    ("5, 1", "1 and 5"),
]
WRONG_MATH = [
    ("2x", "2"),
    ("2ab", "2"),
    ("6m", "6"),
    ("7.6", "7.6 Z"),
    ("3,4", "(3,4]"),
    ("[3,4]", "(3,4)"),
    ("2,1", "1,2,3"),
    ("5 or 6", "5"),
    ("x^2+1", "x^2-1"),
    ("\\sqrt{3}", "\\sqrt{2}"),
    ("y = 3", "x = 4"),
    ("west", "\\text{east}"),
    ("B", "\\text{(C)}"),
    ("3:45", "3:30"),
    ("6:5", "5:6"),
    ("\\frac{1}{", "\\frac{1}{2}"),
    # A \text in the middle is not the unit of a number.
    ("3 \\text{ and } x", "3"),
    ("3", "3 \\text{ and } x"),
    ("3 \\text{ or } 2x", "3"),
    ("3 and x", "3"),
    ("3 \\text{ if } x", "3"),
    ("3\\text{ }x", "3"),
    ("50\\% \\text{ of } n", "0.5"),
]
CHOICES = [
    ("A", "A", True),
    ("(a)", "A", True),
    ("\\text{B}", "B", True),
    ("B", "A", False),
    ("4 m", "B", True),
    ("4", "B", True),
    ("$x+1$", "C", True),
    ("none of the above.", "D", True),
    ("2", "B", False),
    ("5", "B", False),
    (None, "A", False),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT_NUMBERS)
def test_right_numbers(answer, reference):
    assert verify(answer, reference, "number")


@pytest.mark.parametrize(("answer", "reference"), WRONG_NUMBERS)
def test_wrong_numbers(answer, reference):
    assert not verify(answer, reference, "number")


@pytest.mark.parametrize(("answer", "reference"), RIGHT_MATH)
def test_right_math(answer, reference):
    assert verify(answer, reference, "math")


@pytest.mark.parametrize(("answer", "reference"), WRONG_MATH)
def test_wrong_math(answer, reference):
    assert not verify(answer, reference, "math")


@pytest.mark.parametrize(("answer", "letter", "right"), CHOICES)
def test_choices(answer, letter, right):
    assert verify(answer, letter, "choice", FOUR) is right


def test_an_option_whose_text_is_a_letter_and_options_with_equal_texts():
    assert verify("A", "A", "choice", ("C", "A"))  # the letter counts, not the text
    assert not verify("yes", "A", "choice", ("yes", "yes"))


INVALID_REFERENCES = [
    ("", "number"),
    ("  ", "math"),
    ("many", "number"),
    ("\\frac{1}{", "math"),
    ("}{", "math"),
    ("E", "choice"),
    ("AB", "choice"),
]


@pytest.mark.parametrize(("reference", "kind"), INVALID_REFERENCES)
@pytest.mark.parametrize("answer", ["1", None])
def test_an_invalid_reference_raises_for_any_answer(answer, reference, kind):
    with pytest.raises(UserError, match="the reference"):
        verify(answer, reference, kind, FOUR)


def test_an_unknown_kind_raises():
    with pytest.raises(ValueError, match="essay"):
        check_reference("1", "essay")


# Faults of earlier versions, each with the grade that a careful reader gives

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "cases" / "grading.jsonl").read_text().splitlines()
]
KINDS = {"gsm8k": "number", "mmlu_stem": "choice"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['gold']} {case['answer']}"[:60])
def test_grades_as_a_careful_reader(case):
    kind = KINDS.get(case["benchmark"], "math")
    result = grade.grade_answer(case["answer"], case["gold"], kind, case.get("choices", ()))
    assert result.correct is case["expected"]


def graded(output, reference, kind="math", choices=()):
    return grade.grade_answer(output, reference, kind, choices).correct


SMALL = st.integers(2, 99)
PAIRS = st.tuples(SMALL, SMALL).filter(lambda pair: pair[0] != pair[1])
VALUES = st.one_of(
    SMALL.map(str),
    SMALL.map(lambda number: f"{number}\\pi"),
    SMALL.map(lambda number: f"\\frac{{{number}}}{{101}}"),
    SMALL.map(lambda number: f"{number}\\sqrt{{2}}"),
    SMALL.map(lambda number: f"x + {number}"),
)
UNITS = st.sampled_from(
    [
        "\\text{ units}",
        "\\text{ cm}^2",
        "\\,\\mathrm{km/h}",
        " \\frac{\\text{km}}{\\text{h}}",
        " \\text{ kg} \\cdot \\text{m}^2",
        " m/s^2",
        "\\,\\Omega",
        " square inches",
        " K",
    ]
)
symbolic_settings = settings(max_examples=40, deadline=None)


@symbolic_settings
@given(VALUES, VALUES, UNITS)
def test_the_unit_of_an_answer_does_not_count(value, other, unit):
    assert verify(value + unit, value, "math")
    if unit.startswith("\\text"):
        assert verify(value, value + unit, "math")
    if value != other:
        assert not verify(other + unit, value, "math")


@given(SMALL, st.sampled_from(["hundred", "thousand", "million", "billion", "dozen"]))
def test_a_scale_word_is_no_unit(number, word):
    for text in (f"{number} {word}", f"{number} \\text{{ {word}}}"):
        assert not verify(text, str(number), "number")
    if word == "million":
        assert verify(f"{number} million", f"{number}000000", "number")


LISTS = st.lists(VALUES, min_size=2, max_size=4, unique=True)


@symbolic_settings
@given(LISTS, st.randoms(use_true_random=False), VALUES)
def test_order_matters_in_tuples_but_not_in_lists(values, random, extra):
    reference = ", ".join(values)
    shuffled = random.sample(values, len(values))
    several = " and ".join(f"$\\boxed{{{value}}}$" for value in shuffled)
    assert graded(f"The roots are {several}.", reference)
    formulas = " and ".join(f"${value}$" for value in shuffled)
    assert graded(f"The answer is {formulas}.", reference)
    assert verify(f"({reference})", f"({reference})", "math")
    if shuffled != values:
        assert not verify(f"({', '.join(shuffled)})", f"({reference})", "math")
    if extra not in values:
        assert not verify(", ".join([extra, *values[1:]]), reference, "math")


@symbolic_settings
@given(PAIRS)
def test_decimals_in_tuples_and_intervals(pair):
    first, second = (number / 7 for number in pair)
    exact = f"(\\frac{{{pair[0]}}}{{7}}, \\frac{{{pair[1]}}}{{7}}]"
    assert verify(f"({first:.5f}, {second:.5f}]", exact, "math")
    assert not verify(f"({second:.5f}, {first:.5f}]", exact, "math")
    assert not verify(f"({first:.5f}, {second:.5f})", exact, "math")


@given(PAIRS, st.sampled_from([".", "!", ", so it is done.", " of it."]))
def test_a_fraction_at_the_end_of_a_sentence(pair, end):
    top, bottom = pair
    assert graded(f"They eat {top}/{bottom}{end}", f"{top}/{bottom}", "number")
    assert not graded(f"They eat {top}/{bottom}{end}", str(bottom), "number") or top == bottom**2


@given(PAIRS, st.sampled_from(["{}:{}", "{} : {}", "{} to {}", "\\frac{{{}}}{{{}}}"]))
def test_ratios(pair, form):
    reference = f"{pair[0]}:{pair[1]}"
    assert verify(form.format(*pair), reference, "math")
    assert not verify(form.format(*reversed(pair)), reference, "math")


@given(st.integers(1, 12), st.integers(0, 59), st.sampled_from("ap"))
def test_times_of_day(hour, minute, half):
    time_text = f"{hour}:{minute:02}"
    for form in (f"{half}.m.", f"{half.upper()}M", f"\\text{{ {half}m}}"):
        assert verify(f"{time_text} {form}", f"{time_text}:00 {half}.m.", "math")
    other = "p" if half == "a" else "a"
    assert not verify(f"{time_text} {other}.m.", f"{time_text} {half}.m.", "math")


@given(st.from_regex("1[01]{1,6}", fullmatch=True), st.integers(2, 16), st.integers(2, 16))
def test_numbers_in_another_base_are_wrong(digits, base, other):
    assert verify(f"{digits}_{{{other}}}", f"{digits}_{base}", "math") is (base == other)


LETTER = st.sampled_from("abcdrvxyzABCDRVXYZ")


@symbolic_settings
@given(LETTER, LETTER, st.sampled_from(["{}-{}", "\\frac{{{}}}{{{}+1}}", "{}^2+{}"]))
def test_upper_and_lower_case_are_different_symbols(first, second, form):
    reference = form.format(first, second)
    swapped = form.format(first.swapcase(), second)
    assert verify(f"{reference}+1-1", reference, "math")
    assert not verify(swapped, reference, "math")


@symbolic_settings
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["E_1", "e_1", "\\gamma", "y'", "i"]))
def test_symbols_that_the_grammar_rejects(first, second, symbol):
    braced = symbol.replace("_1", "_{1}").replace("y'", "y^{\\prime}")
    reference = f"\\frac{{{first}+{second}{symbol}}}{{3}}"
    assert verify(f"\\frac{{{first}}}{{3}}+\\frac{{{second}}}{{3}}{braced}", reference, "math")
    assert not verify(f"\\frac{{{first}+{second + 1}{braced}}}{{3}}", reference, "math")


@symbolic_settings
@given(st.lists(st.sampled_from("abcx"), min_size=2, max_size=3, unique=True))
def test_roots_are_those_of_positive_quantities(symbols):
    assert verify(
        "".join(f"\\sqrt{{{symbol}}}" for symbol in symbols),
        f"\\sqrt{{{' '.join(symbols)}}}",
        "math",
    )
    assert not verify(
        "+".join(f"\\sqrt{{{symbol}}}" for symbol in symbols),
        f"\\sqrt{{{'+'.join(symbols)}}}",
        "math",
    )
    assert not verify(symbols[0], f"|{symbols[0]}|", "math")
    assert not verify(f"-{symbols[0]}", f"\\sqrt{{{symbols[0]}^2}}", "math")


DIFFERENT_STEPS = [
    ("2", "\\lceil n / 2\\rceil+1"),
    ("\\lfloor\\sqrt{n}\\rfloor", "\\lfloor\\sqrt{n-1}\\rfloor"),
    ("\\lfloor n/3 \\rfloor", "\\lfloor (n+1)/3 \\rfloor"),
    ("2^{2019}", "2^{2019}-1"),
]


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT_STEPS)
def test_expressions_that_agree_at_many_points_are_different(answer, reference):
    assert verify(f"{reference} + 1 - 1", reference, "math")
    assert not verify(answer, reference, "math")


@given(
    SMALL, SMALL, st.sampled_from(["\n#### {}", " The final answer is {}.", " Doubled, it is {}."])
)
def test_the_conclusion_beats_an_earlier_statement(step, last, conclusion):
    output = f"The answer to part one is {step}.{conclusion.format(last)}"
    assert extract(output, "number") == str(last)
    if "Doubled" not in conclusion:
        output = f"Interest is $\\boxed{{{step}}}$.{conclusion.format(last)}"
        assert extract(output, "number") == str(last)


OPTIONS = ("10", "meiosis", "either A or B", "none of the above")
LETTERS = st.sampled_from("ABCD")


@given(
    LETTERS,
    LETTERS,
    st.sampled_from(
        [
            "{} is correct. {} is too small.",
            "The correct choice is **{}. Some text**. Not {}.",
            "Fill in $8 = \\boxed{{?}}$. So the option is {}, and {} is wrong.",
            "Options for the answer: A. 10, B. meiosis. So our selection is option {}, not {}.",
            "I pick ({}). {} is too small.",
        ]
    ),
)
def test_the_option_that_an_output_concludes(letter, other, form):
    assert extract(form.format(letter, other), "choice", OPTIONS) == letter


@given(LETTERS, st.sampled_from(["\\boxed{{\\text{{{}}}}}", "The answer is {}.", "\\boxed{{{}}}"]))
def test_the_text_of_an_option(letter, form):
    text = OPTIONS["ABCD".index(letter)]
    assert extract(form.format(text), "choice", OPTIONS) == letter


@given(
    LETTERS,
    LETTERS,
    st.sampled_from(
        ["\\boxed{{{}, {}}}", "The answer is ({}) or ({}).", "It is $\\boxed{{{} {}}}$."]
    ),
)
def test_two_options_are_wrong(first, second, form):
    if first != second:
        assert not graded(form.format(first, second), first, "choice", OPTIONS)
        assert not graded(form.format(first, second), second, "choice", OPTIONS)


# Malicious answers

EXPLOSIVE = [
    "9**9**9**9",
    "10^{10^{10}}",
    "9^{9^{9^9}}",
    "((9^{999})^{999})^{999}",
    "2^{999*999*999}",
    "10^{99999999}",
    "1E999999999",
    "(((9!)!)!)!",
    "(9^9)!",
    "100000000!",
    "\\binom{10^9}{10^8}",
    "\\Gamma(10^9)",
    "e^{e^{e^{e^{10}}}}",
    "eye(100000)",
    "zeros(99999,99999)",
    "\\sum_{k=1}^{10^9} k^k",
    "(" * 399,
    "{" * 399,
    "\\frac{" * 60,
    "(" * 90 + "x" + ")^2" * 90,  # nested powers: 2^90 visits without memoization
    "x^" * 199 + "x",
    "(1000!)^{3000}",
    "1/" * 190,
    "x^{" * 100,
    "\x00\ud800\x1b[31m",
]


@pytest.mark.integration  # each takes up to a second
@pytest.mark.parametrize("answer", EXPLOSIVE, ids=lambda text: text[:12])
def test_explosive_answers_are_wrong(answer):
    assert not verify(answer, "\\sqrt{x} + 7", "math")
    assert not verify(answer, "7", "number")


# The first is a single operation, which Python cannot interrupt.
@pytest.mark.parametrize("slow", ["10^{99999999}", "\\sum_{k=1}^{10^9} k^k", "(" * 399])
def test_a_slow_comparison_is_wrong_and_the_next_one_is_graded(slow):
    assert verify("(x-1)(x+1)", "x^2-1", "math")
    process = symbolic._comparer._process
    assert process is not None
    start = os.times()
    assert not verify(slow, "\\sqrt{x} + 7", "math")
    assert os.times().user - start.user < 1
    assert verify("(x-2)(x+2)", "x^2-4", "math")
    assert symbolic._comparer._process is process  # another one would take a second to start


def test_a_comparison_that_needs_much_memory_is_wrong():
    assert not verify("\\binom{10^{9}}{5 \\cdot 10^{8}}", "\\sqrt{x} + 7", "math")
    assert verify("(x-2)(x+2)", "x^2-4", "math")


def test_threads_get_the_results_of_their_own_comparisons():
    pairs = [(f"(x-{n})(x+{n})", f"x^2-{n * n + n % 2}") for n in range(2, 22)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pair: verify(*pair, "math"), pairs))
    assert results == [n % 2 == 0 for n in range(2, 22)]


def test_the_comparison_after_an_interrupted_one_gets_its_own_result():
    assert verify("(x-1)(x+1)", "x^2-1", "math")  # the process has started

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            verify("10^{99999999}", "\\sqrt{x} + 7", "math")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert verify("(x-2)(x+2)", "x^2-4", "math")


@pytest.mark.integration
def test_a_script_without_a_main_guard_grades(tmp_path):
    """A pool of processes would run the script again in each of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from lr_exp.evaluator.verify import verify\nprint(verify('(x-1)(x+1)', 'x^2-1', 'math'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.integration
def test_a_broken_math_verify_is_an_error_and_not_a_wrong_answer(monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text("")
    monkeypatch.setattr(symbolic, "_WORKER", tmp_path / "worker.py")
    symbolic._comparer.stop()
    with pytest.raises(UserError, match="math-verify, which grades symbolic answers"):
        verify("(x-1)(x+1)", "x^2-1", "math")


MEGABYTES = [
    "\\boxed{" * 150_000,
    "\\boxed{" * 50_000 + "}" * 50_000,
    "{" * 1_000_000,
    "\\" * 1_000_001,
    "1" * 1_000_000,
    "1," * 500_000,
    "answer to x" * 90_000,
    "answer" + " " * 1_000_000,
    "(A" * 500_000,
    "\\frac{1" * 140_000,
]


@pytest.mark.parametrize("output", MEGABYTES, ids=lambda text: text[:12])
@pytest.mark.parametrize("kind", ["number", "choice"])
def test_a_megabyte_takes_seconds_at_most(output, kind):
    start = time.monotonic()
    grade.grade_answer(output, "A" if kind == "choice" else "12", kind, FOUR)
    assert time.monotonic() - start < 10


_MARKS = [*"{}()[]^_$%!,.=+-*/:;|&~ 019xeiABC\n\x00\\"]
_COMMANDS = ["\\frac", "\\sqrt", "\\boxed", "\\text", "\\left", "\\infty", "\\pm", "\\cup", "\\pi"]
_WORDS = ["answer is", "answer:", "\\begin{pmatrix}", "\\%", "**"]
LATEX = st.lists(st.sampled_from([*_MARKS, *_COMMANDS, *_WORDS]), max_size=25).map("".join)


@settings(max_examples=150, deadline=5_000)
@given(st.one_of(LATEX, st.text(max_size=60)), st.sampled_from(["number", "math", "choice"]))
def test_no_output_breaks_the_grader(output, kind):
    result = grade.grade_answer(output, "A" if kind == "choice" else "17", kind, FOUR)
    assert isinstance(result.correct, bool)
    if result.extracted is None:
        assert not result.correct
    else:  # `verify` hides exceptions, `matches` does not
        matches(result.extracted, "A" if kind == "choice" else "17", kind, FOUR)


@settings(max_examples=150)
@given(LATEX)
def test_normalize_terminates_on_any_text(text):
    assert isinstance(normalize(text), str)


@given(st.integers(-(10**12), 10**12))
def test_integers_in_any_notation(number):
    assert verify(f"{number:,}", str(number), "number")
    assert verify(f"\\boxed{{{number}.00}}", str(number), "number")
    assert not verify(str(number + 1), str(number), "number")


@given(st.fractions(max_denominator=1000).filter(lambda value: abs(value) < 1000))
def test_fractions_equal_their_decimals(value):
    written = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert verify(f"{float(value):.12f}", written, "number")
    assert verify(written, f"{value.numerator}/{value.denominator}", "number")


NUMBERS = st.from_regex(
    r"-?[0-9]{1,40}(\.[0-9]{0,40})?(e-?[0-9]{1,4}|/[0-9]{1,9}| ?%)?", fullmatch=True
)


@given(NUMBERS, NUMBERS)
def test_comparing_numbers_is_symmetric(first, second):
    """Also for long decimals and large exponents, such as 4.5e33 and 1.07e16."""
    assert matches(first, second, "math") == matches(second, first, "math")


# Aggregate


def test_aggregate():
    result = aggregate([True, False, True, True])
    assert result == {
        "accuracy": 0.75,
        "correct": 3,
        "total": 4,
        "stderr": pytest.approx(math.sqrt(0.75 * 0.25 / 4)),
    }
    assert aggregate([True])["stderr"] == 0


def test_no_answers_have_no_accuracy():
    with pytest.raises(ValueError, match="no graded answers"):
        aggregate([])


# Regrading a file

RECORD = {
    "id": "g/test/0",
    "question": "Q",
    "reference": "18",
    "kind": "number",
    "choices": [],
    "output": "\\boxed{18}",
    "correct": False,
    "tokens": 5,
}


def write(tmp_path, *records):
    path = tmp_path / "answers.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_regrading(tmp_path, capsys):
    path = write(tmp_path, RECORD, RECORD | {"output": "\\boxed{19}"})
    before = path.read_bytes()
    assert grade.main([str(path)]) == 0
    assert capsys.readouterr().out == "50.0 % ± 35.4 (1 of 2 correct)\n"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]


def test_regrading_into_a_file(tmp_path, capsys):
    path, out = write(tmp_path, RECORD), tmp_path / "new.jsonl"
    assert grade.main([str(path), "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == RECORD | {"extracted": "18", "correct": True}


BAD_RECORDS = [
    ("nonsense", "line 1: not JSON"),
    ("[1]", "line 1: not an object"),
    ({"id": "a"}, "line 1: reference=None is null: expected a text"),
    (RECORD | {"output": None}, "line 1: output=None is null: expected a text"),
    (RECORD | {"kind": "essay"}, "line 1: kind='essay' is not known"),
    (RECORD | {"choices": [1]}, "line 1: choices=1 is an integer: expected a text"),
    (RECORD | {"reference": "many"}, "line 1: the reference 'many' is not a number"),
    ("", "no answers in the file"),
]


@pytest.mark.parametrize(("record", "message"), BAD_RECORDS)
def test_an_invalid_file_is_one_line_on_stderr(tmp_path, capsys, record, message):
    assert grade.main([str(write(tmp_path, record))]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_missing_file(tmp_path, capsys):
    assert grade.main([str(tmp_path / "none.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_graded_records_can_be_regraded(tmp_path):
    question = Question("m/test/0", "Which?", "B", choices=FOUR)
    outputs = [
        {"question_id": question.id, "output": "\\boxed{4 m}", "tokens": 3, "finished": True}
    ]
    (record,) = grade.grade_all([question], outputs, "choice")
    assert record["correct"]
    assert grade.regrade(write(tmp_path, record)) == [record]


def test_the_message_about_a_reference_names_the_question():
    outputs = [{"question_id": "m/test/0", "output": "1", "tokens": 1, "finished": True}]
    with pytest.raises(UserError, match="m/test/0"):
        grade.grade_all([Question("m/test/0", "Q")], outputs, "number")
    with pytest.raises(UserError, match="m/test/0"):
        grade.grade_all([Question("m/test/0", "Q", "many")], outputs, "number")

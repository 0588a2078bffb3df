"""Prompts and grading (extract, verify, aggregate), with typical and with malicious outputs."""

import math
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.evaluator import grade, symbolic
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.prompts import examples_of, question_text
from lr_exp.evaluator.verify import check_reference, matches, verify
from lr_exp.models.prompt_forms import Prompt, render_form
from tests.support.files import read_lines, run_python, write_lines

FOUR = ("2", "4 m", "x + 1", "None of the above")
CASES = Path(__file__).parent / "cases"


def test_the_message_lists_the_options_and_requests_a_letter():
    message = question_text(Question("a", "Which?", "B", choices=("one", "two")))
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
    prompt = Prompt(examples=examples_of(shots))
    parts = render_form(prompt, "3+3?").split("\n\n")
    assert parts[0] == "1+1?\nOne and one.\nThe answer is \\boxed{2}."
    assert parts[1] == "2+2?\nIt is $\\boxed{4}$."
    assert parts[2].endswith("\nThe answer is \\boxed{B}.")
    assert parts[3] == "3+3?"


# Extract and verify


TO_EXTRACT, TO_VERIFY = (
    yaml.safe_load((CASES / f"{name}.yaml").read_text("utf-8")) for name in ("extract", "verify")
)
EXTRACTED = [(kind, *case) for kind, cases in TO_EXTRACT.items() for case in cases]
VERIFIED = [
    (kind, verdict, *pair)
    for kind, by_verdict in TO_VERIFY.items()
    for verdict, pairs in by_verdict.items()
    for pair in pairs
]


@pytest.mark.parametrize(("kind", "output", "expected"), EXTRACTED)
def test_extract(kind, output, expected):
    assert extract(output, kind, FOUR if kind == "choice" else ()).text == expected


@pytest.mark.parametrize(("kind", "verdict", "answer", "reference"), VERIFIED)
def test_verify(kind, verdict, answer, reference):
    assert verify(answer, reference, kind, FOUR) is (verdict == "right")


def test_an_option_whose_text_is_a_letter_and_options_with_equal_texts():
    assert verify("A", "A", "choice", ("C", "A"))  # the letter counts, not the text
    assert not verify("yes", "A", "choice", ("yes", "yes"))


INVALID_REFERENCES = [
    *(("", "number"), ("  ", "math"), ("many", "number"), ("\\frac{1}{", "math"), ("}{", "math")),
    *(("E", "choice"), ("AB", "choice")),
]


@pytest.mark.parametrize(("reference", "kind"), INVALID_REFERENCES)
@pytest.mark.parametrize("answer", ["1", None])
def test_an_invalid_reference_raises_for_any_answer(answer, reference, kind):
    with pytest.raises(UserError, match="the reference"):
        verify(answer, reference, kind, FOUR)
    with pytest.raises(ValueError, match="essay"):
        check_reference("1", "essay")


# Faults of earlier versions, each with the grade that a careful reader gives

GRADED = read_lines(CASES / "grading.jsonl")
KINDS = {"gsm8k": "number", "mmlu_stem": "choice"}


@pytest.mark.parametrize("case", GRADED, ids=lambda case: f"{case['gold']} {case['answer']}"[:60])
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
symbolic_settings = settings(max_examples=15)  # a comparison takes tens of milliseconds


@symbolic_settings
@given(VALUES, VALUES, UNITS)
def test_the_unit_of_an_answer_does_not_count(value, other, unit):
    assert verify(value + unit, value, "math")
    if unit.startswith("\\text"):
        assert verify(value, value + unit, "math")
    if value != other:
        assert not verify(other + unit, value, "math")


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


FORMS = [
    ("<a>:<b>", "<a>:<b>"),
    ("<a> : <b>", "<a>:<b>"),
    ("<a> to <b>", "<a>:<b>"),
    ("\\frac{<a>}{<b>}", "<a>:<b>"),
    # Symbols that math-verify's grammar rejects
    ("\\frac{<a>}{3}+\\frac{<b>}{3}E_{1}", "\\frac{<a>+<b>E_1}{3}"),
    ("\\frac{<a>}{3}+\\frac{<b>}{3}e_{1}", "\\frac{<a>+<b>e_1}{3}"),
    ("\\frac{<a>}{3}+\\frac{<b>}{3}\\gamma", "\\frac{<a>+<b>\\gamma}{3}"),
    ("\\frac{<a>}{3}+\\frac{<b>}{3}y^{\\prime}", "\\frac{<a>+<b>y'}{3}"),
    ("\\frac{<a>}{3}+\\frac{<b>}{3}i", "\\frac{<a>+<b>i}{3}"),
]


@symbolic_settings
@given(st.sampled_from(FORMS), PAIRS)
def test_forms_of_the_same_value(forms, pair):
    first, second = map(str, pair)
    answer, reference = (form.replace("<a>", first).replace("<b>", second) for form in forms)
    swapped = forms[0].replace("<a>", second).replace("<b>", first)
    assert verify(answer, reference, "math")
    assert not verify(swapped, reference, "math")


OPTIONS = ("10", "meiosis", "either A or B", "none of the above")
LETTERS = st.sampled_from("ABCD")


@given(LETTERS, st.sampled_from(["\\boxed{{\\text{{{}}}}}", "The answer is {}.", "\\boxed{{{}}}"]))
def test_the_text_of_an_option(letter, form):
    text = OPTIONS["ABCD".index(letter)]
    assert extract(form.format(text), "choice", OPTIONS).text == letter


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
    "10^{99999999}",  # a single operation, which Python cannot interrupt
    *("1E999999999", "(((9!)!)!)!", "(1000!)^{3000}", "eye(100000)", "\\sum_{k=1}^{10^9} k^k"),
    "\\binom{10^{9}}{5 \\cdot 10^{8}}",  # needs much memory
    "(" * 399,
    "{" * 399,
    "(" * 90 + "x" + ")^2" * 90,  # nested powers: 2^90 visits without memoization
    "x^" * 199 + "x",
    "\x00\ud800\x1b[31m",
]


@pytest.mark.integration
def test_explosive_answers_are_wrong_and_the_next_one_is_graded_by_the_same_process(monkeypatch):
    monkeypatch.setattr(symbolic, "_MAX_SECONDS", 0.2)  # which some take
    symbolic._comparer.stop()
    assert verify("(x-1)(x+1)", "x^2-1", "math")
    process = symbolic._comparer._process
    assert process is not None
    for answer in EXPLOSIVE:
        start = os.times().user
        assert not verify(answer, "\\sqrt{x} + 7", "math"), answer
        assert not verify(answer, "7", "number"), answer
        assert os.times().user - start < 1, answer
        assert verify("(x-2)(x+2)", "x^2-4", "math")
        assert symbolic._comparer._process is process  # another one would take a second to start
    symbolic._comparer.stop()


def test_the_comparisons_of_an_answer_share_one_limit():
    """A list of n values needs up to n² comparisons."""
    symbolic.start_answer()
    left = [symbolic._budget.seconds]
    for bound in (8, 9):
        assert not symbolic.symbolically_equal("x", f"\\prod_{{k=1}}^{{{bound}}} (x^k+k)")
        left.append(symbolic._budget.seconds)
    assert left[0] > left[1] > left[2]


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
    done = run_python(script, cwd=tmp_path)
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


@settings(max_examples=30)
@given(NUMBERS, NUMBERS)
def test_comparing_numbers_is_symmetric(first, second):
    """Also for long decimals and large exponents, such as 4.5e33 and 1.07e16."""
    assert matches(first, second, "math") == matches(second, first, "math")


# Aggregate


def test_aggregate():
    rows = [
        (True, "box", True, 10),  # the only strictly correct one
        (True, "box", False, 64),
        (True, "last", True, 20),
        (False, None, False, 64),
    ]
    names = ("correct", "rule", "finished", "tokens")
    result = aggregate([dict(zip(names, row, strict=True)) for row in rows])
    assert result.to_dict() == {
        "accuracy": 0.75,
        "correct": 3,
        "total": 4,
        "stderr": pytest.approx(math.sqrt(0.75 * 0.25 / 4)),
        # (0.75 + 1.9208 / 4 ± 1.96 sqrt(0.75 * 0.25 / 4 + 0.9604 / 16)) / 1.9604
        "ci95": pytest.approx([0.30064, 0.95441], abs=1e-5),
        "truncated": 2,
        "boxed": 2,
        "no_answer": 1,
        "strict_accuracy": 0.25,
        "accuracy_truncated": 0.5,
        "accuracy_finished": 1.0,
        "read_by": {"box": 0.5, "statement": 0.0, "last": 0.25},
        "mean_tokens": 39.5,
        "median_tokens": 42.0,
    }
    recorded = aggregate([{"correct": True, "rule": "box"}])  # a file without lengths
    assert recorded.ci95 == pytest.approx([1 / 4.8416, 1])
    assert (recorded.stderr, recorded.truncated) == (0, 0)
    assert (recorded.accuracy_truncated, recorded.mean_tokens) == (None, None)


@pytest.mark.parametrize(
    ("output", "kind", "found"),
    [
        (r"So \boxed{12}.", "number", ("12", "box")),
        (r"\boxed{3}, so the final answer is 12.", "number", ("12", "statement")),
        ("#### 12", "number", ("12", "statement")),
        ("7 and 12 apples", "number", ("12", "last")),
        ("no number", "number", (None, None)),
        (r"\boxed{B}", "choice", ("B", "box")),
        ("The answer is (B).", "choice", ("B", "statement")),
        ("It may be (A) or (B)", "choice", ("B", "last")),
        ("nothing", "choice", (None, None)),
    ],
)
def test_the_rule_that_read_an_answer(output, kind, found):
    assert extract(output, kind, FOUR if kind == "choice" else ()) == found


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
    return write_lines(tmp_path / "answers.jsonl", records)


def test_regrading(tmp_path, capsys):
    path, out = write(tmp_path, RECORD, RECORD | {"output": "\\boxed{19}"}), tmp_path / "new.jsonl"
    before = path.read_bytes()
    assert grade.main([str(path)]) == 0
    assert capsys.readouterr().out == "50.0 % (1 of 2 correct), 95 % interval 9.5 to 90.5\n"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]
    assert grade.main([str(path), "--out", str(out)]) == 0
    records = read_lines(out)
    assert records[0] == RECORD | {"extracted": "18", "correct": True, "rule": "box"}
    assert (records[1]["extracted"], records[1]["correct"]) == ("19", False)


def test_graded_records_can_be_regraded_and_errors_name_the_question(tmp_path):
    question = Question("m/test/0", "Which?", "B", choices=FOUR)
    output = {"question_id": question.id, "output": "\\boxed{4 m}", "tokens": 3, "finished": True}
    (record,) = grade.grade_all([question], [output], "choice")
    assert record["correct"]
    assert grade.regrade(write(tmp_path, record)) == [record]
    for answer in (None, "many"):
        with pytest.raises(UserError, match="m/test/0"):
            grade.grade_all([Question("m/test/0", "Q", answer)], [output], "number")

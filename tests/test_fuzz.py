"""Random rubbish: what reads it ends in a result or in a user's error, in time and in memory.

The grader's cases come in three places, since a deadline works differently in each: the main
thread, another thread, and a process of a pool.
"""

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from lr_exp.config.composition import (
    check_overrides,
    conf_dir,
    narrow_sweep,
    one_line_message,
    register,
    to_settings,
)
from lr_exp.config.settings import ANSWER_KINDS, DataSettings, Settings
from lr_exp.data.questions import load_questions
from lr_exp.errors import UserError
from lr_exp.evaluator import grade, symbolic
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.verify import verify
from lr_exp.report import build as report_build
from lr_exp.sampler import records

KINDS = st.sampled_from(ANSWER_KINDS)
FOUR = ("4 m", "5 m", "6 m", "none")

# Answers ---------------------------------------------------------------------------------------

FRAGMENTS = [
    *"{}()[]^_$%!,.=+-*/:;|&~ 0129xeinABE\n\t\\",
    *["\\frac", "\\dfrac{", "\\sqrt", "\\sqrt[3]{", "\\boxed{", "\\fbox{", "\\text{", "\\left("],
    *[
        "\\right)",
        "\\infty",
        "\\pm",
        "\\cup",
        "\\cap",
        "\\pi",
        "\\binom",
        "\\int_0^1",
        "\\sum_{k=1}",
    ],
    *["\\log_2", "\\sin", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "\\cdot ", "\\times 10^{"],
    *[
        "\\%",
        "^\\circ",
        "\\mathrm{cm}",
        "**",
        "answer is",
        "The answer: ",
        "\\approx ",
        "\\le ",
        "#### ",
    ],
    *[
        "12,345",
        "0.6667",
        "1e9",
        "9!",
        "x^2",
        "2/3",
        "\u2212",
        "\u221e",
        "\u00bd",
        "\ud800",
        "\x00",
    ],
]
LATEX = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
TEXTS = st.one_of(LATEX, st.text(max_size=80), LATEX.map("\\boxed{{{}}}".format))
REFERENCES = [
    "\\frac{\\sqrt{3}}{2}",
    "x^2-1",
    "(-\\infty, 2] \\cup \\{5\\}",
    "\\begin{pmatrix} 1 \\\\ -2 \\end{pmatrix}",
    "y = 2x + 1",
    "\\text{even}",
    "3:15",
    "10!",
    "2^{100}",
    "45^\\circ",
]


@pytest.fixture
def one_second(monkeypatch):
    monkeypatch.setattr(symbolic, "_TIMEOUT_SECONDS", 1)


FUZZ = settings(
    deadline=None,
    derandomize=True,
    # The fixtures only shorten a deadline, or give a folder whose file is written anew.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZ, max_examples=150)
@given(TEXTS, st.one_of(st.sampled_from(REFERENCES), TEXTS), KINDS)
def test_any_answer_to_any_reference_is_graded_or_the_reference_refused(
    one_second, output, reference, kind
):
    start = time.monotonic()
    try:
        one = grade.grade_answer(output, reference, kind, FOUR)
    except UserError as error:
        told = str(error)
    else:
        told = None
        assert one.correct in ((True, False) if one.extracted else (False,))
    assert told is None or "the reference" in told
    assert time.monotonic() - start < 10


@settings(FUZZ, max_examples=80)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_an_answer_like_the_reference_ends(one_second, text):
    """Both sides hostile: the answer is the reference with something behind it."""
    for reference in REFERENCES:
        assert verify(f"{reference}{text}", reference, "math") in (True, False)


# A comparison without end ----------------------------------------------------------------------


def without_end(*_: object, **__: object) -> None:
    """Calls functions, as a loop of sympy's does."""
    while True:
        abs(1)


def without_end_or_call(*_: object, **__: object) -> None:
    """A loop over plain integers: nothing is called that could look at a clock."""
    number = 1
    while number:
        number = -number


def swallowing(*_: object, **__: object) -> None:
    """Ends nothing on the first error, as a careless handler of a library."""
    for _turn in range(2):
        try:
            without_end()
        except BaseException:  # noqa: S112
            continue


LOOPS = {loop.__name__: loop for loop in (without_end, without_end_or_call, swallowing)}


def graded_without_end(loop: str, in_thread: bool = False) -> tuple[bool, float, bool]:
    """Grades with a comparison that does not end, then with the real one.

    Returns:
        Whether the first answer was right, the seconds that took, and whether a right answer after
        it is right again. To be called in any process.
    """
    found: list[tuple[bool, float, bool]] = []

    def work() -> None:
        import math_verify

        before = math_verify.verify, symbolic._TIMEOUT_SECONDS
        grade.grade_answer("\\boxed{(x-1)(x+1)}", "x^2-1", "math")  # imports sympy, off the clock
        math_verify.verify, symbolic._TIMEOUT_SECONDS = LOOPS[loop], 0.3  # type: ignore[assignment]
        try:
            start = time.monotonic()
            first = grade.grade_answer("\\boxed{(x-1)(x+1)}", "x^2-1", "math").correct
            seconds = time.monotonic() - start
        finally:
            math_verify.verify, symbolic._TIMEOUT_SECONDS = before  # type: ignore[assignment]
        after = grade.grade_answer("\\boxed{(x-2)(x+2)}", "x^2-4", "math").correct
        found.append((first, seconds, after))

    if in_thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(60)
    else:
        work()
    return found[0]


def check_ended(told: tuple[bool, float, bool]) -> None:
    first, seconds, after = told
    assert not first
    assert 0.2 < seconds < 20
    assert after


@pytest.mark.parametrize("in_thread", [False, True], ids=["main thread", "another thread"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_comparison_without_end_is_a_wrong_answer(loop, in_thread):
    check_ended(graded_without_end(loop, in_thread))


def test_a_comparison_without_end_is_a_wrong_answer_in_worker_processes():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(graded_without_end, loop, in_thread)
            for loop in LOOPS
            for in_thread in (False, True)
        ]
        for future in futures:
            check_ended(future.result(timeout=120))


def test_a_deadline_that_comes_late_reaches_nobody_else():
    """In a thread it is raised from outside: after the work it must not hit what follows."""
    ended: list[bool] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for turn in range(300):
                try:
                    with symbolic._time_limit(0.001):
                        time.sleep(0.0005 + turn % 7 * 0.0002)
                        in_time = True
                except symbolic._TimeLimitExceeded:
                    in_time = False
                ended.append(in_time)
                for _ in range(50):
                    abs(1)
            time.sleep(0.1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert failures == []
    assert len(ended) == 300
    assert len(set(ended)) == 2  # some were in time, some were not


# Records of kept steps -------------------------------------------------------------------------

RECORD = {
    "prompt_id": "How many?",
    "step": 1,
    "prefix": "9",
    "tokens": ["9", "8"],
    "token_ids": [14, 15],
    "weights": [0.75, 0.25],
    "kl_divergence": 0.9,
    "question_id": "q/1",
    "prompt_token_ids": [2, 27, 1, 3],
    "prefix_token_ids": [14],
}
_NUMBERS = st.one_of(
    st.integers(-3, 300), st.integers(), st.sampled_from([10**400, -(10**400)]), st.floats()
)
_WORDS = st.one_of(st.text(max_size=8), st.sampled_from(["\ud800", "\x00", "\u2028"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS),
    lambda inside: st.one_of(
        st.lists(inside, max_size=4), st.dictionaries(_WORDS, inside, max_size=3)
    ),
    max_leaves=6,
)
LISTS = st.lists(_NUMBERS, max_size=3)
SPOILT = st.dictionaries(st.sampled_from(sorted(RECORD)), st.one_of(VALUES, LISTS), max_size=3)
LINES = st.one_of(
    st.builds(lambda spoilt: json.dumps(RECORD | spoilt).encode(), SPOILT),
    st.builds(lambda value: json.dumps(value).encode(), VALUES),
    st.builds(
        lambda gone: json.dumps({k: v for k, v in RECORD.items() if k != gone}).encode(),
        st.sampled_from(sorted(RECORD)),
    ),
    st.text(max_size=40).map(lambda line: line.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from .tiny import tiny_tokenizer  # torch: not where the pool's processes import this module

    return tiny_tokenizer()


@settings(FUZZ, max_examples=400)
@given(st.lists(LINES, max_size=4))
def test_any_file_of_records_is_read_or_refused(tokenizer, tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n".join(content))
    try:
        found = records.import_records(path, tokenizer, system_prompt="", vocabulary_size=256)
    except UserError as error:
        told = str(error)
    else:
        told = str(path)
        found.save(tmp_path)  # the types and ranges of the table
        assert records.profile(found)["kept"] == found.kept >= 1
        assert len(found.digest()) == 64
    assert str(path) in told


# Settings --------------------------------------------------------------------------------------

register()
_KEYS = [
    *("alpha", "beta", "seed", "stages", "benchmarks", "store", "hub_root", "device", "attention"),
    *(
        "expert",
        "expert.path",
        "expert.name",
        "expert.reused_ids",
        "amateur",
        "amateur.drop_layers",
    ),
    *("data", "data.path", "data.max_questions", "data.configs", "method", "method.share", "sweep"),
    *("sampler", "sampler.batch_size", "sampler.export", "distiller.target_modules", "wandb.tags"),
    *("distiller.merge", "evaluator.shots", "evaluator.shots.gsm8k", "experiment", "nowhere"),
]
_VALUES = st.one_of(
    st.sampled_from(
        [
            *("", "null", "???", "true", "nan", "inf", "1e999", "[]", "{}", "[null]", "{a:1}"),
            *("${beta}", "${nowhere}", "${oc.env:NOWHERE}", "${", "$", "'", '"', "micro", "gsm8k"),
            *("1,2", "range(0,9)", "range(9)", "range(0,1,0)", "glob(*)", "choice(1,2)", "sort(1)"),
            *(
                "interval(0,1)",
                "shuffle(1,2)",
                "[[[[[1]]]]]",
                "-1",
                "9" * 40,
                "~",
                "micro@x",
                "=",
                "a=b",
            ),
        ]
    ),
    st.text(max_size=12),
    st.floats().map(str),
    st.lists(st.sampled_from(list("[]{}(),:'\"\\$ a1")), max_size=12).map("".join),
)
WORDS = st.one_of(
    st.builds(
        "{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(_KEYS), _VALUES
    ),
    st.builds("{}={}".format, st.text(max_size=8), _VALUES),
)
EXPECTED = (UserError, HydraException, OmegaConfBaseException)  # the program makes a line of each


def checked(words: list[str]) -> Settings | str:
    """What the program does with its words before a run: settings, or the line it prints."""
    try:
        check_overrides(words)
        words = narrow_sweep(words)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return to_settings(compose("config", overrides=words), words)
    except EXPECTED as error:
        return one_line_message(error)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["beta=${nowhere}"], "beta: Interpolation key 'nowhere' not found"),
        (["beta=${beta}"], "beta: Recursive interpolation"),
        (["expert.path=${amateur.path}", "amateur.path=${expert.path}"], "path: Recursive"),
        (["store=${oc.env:LR_EXP_NOT_SET}"], "store: "),
    ],
)
def test_a_reference_that_leads_nowhere_is_named_by_its_key(words, culprit):
    told = checked(["experiment=demo", *words])
    assert isinstance(told, str)
    assert culprit in told
    assert "write a value" in told


@settings(FUZZ, max_examples=100)
@given(WORDS)
def test_any_override_makes_settings_or_one_line(word):
    found = checked(["experiment=demo", word])
    if isinstance(found, str):
        assert found.strip()
        assert len(found.splitlines()) == 1
    else:
        assert isinstance(found, Settings)


@settings(FUZZ, max_examples=300)
@given(st.lists(st.one_of(WORDS, st.text(max_size=30)), max_size=3))
def test_any_words_are_overrides_or_refused(words):
    told = "no error"
    try:
        check_overrides(words)
    except (UserError, HydraException) as error:
        told = one_line_message(error)
    assert told.strip()


# Summaries of runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> dict[str, Any]:
    from .test_report_runs import write_run

    result = {"accuracy": 0.5, "correct": 1, "total": 2}
    both = {who: {"micro_add": result} for who in ("expert", "amateur")}
    folder = write_run(
        tmp_path_factory.mktemp("sound") / "0",
        evaluate__gap={"decoder": "greedy", **both},
        evaluate__curve=[{"step": 50, "results": {"micro_add": result}}],
    )
    return json.loads((folder / "summary.json").read_text("utf-8"))


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inside:
        found.append((*above, key))
        if isinstance(one, dict | list):
            found += places(one, (*above, key))
    return found


def with_value(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return value
    changed = dict(whole) if isinstance(whole, dict) else list(whole)
    changed[path[0]] = with_value(whole[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize("kind", ["list", "text", "null", "object", "number", "nan", "huge"])
def test_a_summary_with_any_value_of_another_kind_is_reported_or_refused(
    summary, tmp_path, monkeypatch, kind
):
    """Each value in turn. Figures are left out for time; they read what the tables read."""
    value = {
        "list": [[]],
        "text": "many\n",
        "null": None,
        "object": {"x": {}},
        "number": -7.5,
        "nan": float("nan"),
        "huge": 10**400,
    }[kind]
    monkeypatch.setattr(report_build, "draw_all", lambda *_: [])
    path = tmp_path / "0" / "summary.json"
    path.parent.mkdir()
    refused: dict[tuple[Any, ...], str] = {}
    for place in places(summary):
        path.write_text(json.dumps(with_value(summary, place, value)), "utf-8")
        try:
            report = report_build.build(tmp_path)
        except UserError as error:
            refused[place] = str(error)
        except Exception as error:
            raise AssertionError(f"{kind} at {place}") from error
        else:
            assert "report.md" in report.files
    assert len(refused) > 5
    assert [place for place, told in refused.items() if str(path) not in told] == []


# Memory ----------------------------------------------------------------------------------------


def peak_bytes(act: Callable[[], object]) -> int:
    """The most that was held at once while `act` ran."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_linear(act: Callable[[int], object], size: int) -> None:
    """Ten times the input takes ten times the memory, and no more but for a constant."""
    act(10)  # what is imported and cached once
    small, large = (peak_bytes(lambda count=count: act(count)) for count in (size, 10 * size))
    assert large < 15 * small


@pytest.mark.parametrize(
    "piece",
    [
        *("\\boxed{1} ", "\\boxed{", "{", "}", "\\frac{1}{2} ", "1,", "the answer is 7. ", "(A) "),
        *("$x^2$ ", "\\", "12 ", "answer: ", "\u00bd"),
    ],
)
@pytest.mark.parametrize("kind", ANSWER_KINDS)
def test_reading_an_answer_takes_linear_memory(piece, kind):
    check_linear(lambda count: extract(piece * count, kind, FOUR), 2_000)


@pytest.mark.parametrize("piece", ["\\frac{1}{2}+", "{", "1", "x^2", "ab ", "\\text{a}"])
def test_checking_a_reference_takes_linear_memory(piece):
    """A reference comes from a file of the user's, of any length."""

    def graded(count: int) -> object:
        try:
            return verify("17", piece * count, "math")
        except UserError as error:
            return error

    check_linear(graded, 2_000)


def write_lines(path: Path, count: int, line: Callable[[int], object]) -> Path:
    path.write_text("".join(json.dumps(line(i)) + "\n" for i in range(count)), "utf-8")
    return path


def test_reading_records_takes_linear_memory(tokenizer, tmp_path):
    def read(count: int) -> object:
        path = write_lines(
            tmp_path / "r.jsonl", count, lambda i: RECORD | {"prompt_id": f"How many {i}?"}
        )
        return records.import_records(path, tokenizer, system_prompt="", vocabulary_size=256)

    check_linear(read, 200)


def test_reading_records_of_one_question_takes_linear_memory(tokenizer, tmp_path):
    def read(count: int) -> object:
        path = write_lines(
            tmp_path / "r.jsonl", count, lambda i: RECORD | {"prefix_token_ids": [i % 256]}
        )
        return records.import_records(path, tokenizer, system_prompt="", vocabulary_size=256)

    check_linear(read, 100)


def test_reading_questions_takes_linear_memory(tmp_path):
    def read(count: int) -> object:
        path = write_lines(tmp_path / "q.jsonl", count, lambda i: {"question": f"How many {i}?"})
        source = DataSettings(name="q", format="jsonl", path=str(path))
        return load_questions(source, hub_root=None)

    check_linear(read, 200)


def test_grading_a_file_takes_linear_memory(tmp_path):
    answer = {"reference": "18", "kind": "number", "output": "\\boxed{18}"}

    def read(count: int) -> object:
        return grade.regrade(
            write_lines(tmp_path / "a.jsonl", count, lambda i: {"id": f"g/{i}", **answer})
        )

    check_linear(read, 200)

"""Fuzz tests: random input gives a result or a UserError, within bounds on time and memory."""

import json
import time
import tracemalloc
from collections.abc import Callable
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
    one_line_message,
    register,
    to_settings,
)
from lr_exp.config.settings import ANSWER_KINDS, DataSettings, Settings
from lr_exp.data.questions import load_questions
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.verify import matches, verify
from lr_exp.models.prompt_forms import Prompt
from lr_exp.report import build as report_build
from lr_exp.sampler import records
from tests.support.files import write_lines

KINDS = st.sampled_from(ANSWER_KINDS)
FOUR = ("4 m", "5 m", "6 m", "none")

# Answers ---------------------------------------------------------------------------------------

PIECES_OF_LATEX = r"""
\frac \dfrac{ \sqrt \sqrt[3]{ \boxed{ \fbox{ \text{ \left( \right) \infty \pm \cup \cap \pi \binom
\int_0^1 \sum_{k=1} \log_2 \sin \begin{pmatrix} \end{pmatrix} \\ \% ^\circ \mathrm{cm} \times10^{
** 12,345 0.6667 1e9 9! x^2 2/3
"""
FRAGMENTS = [
    *"{}()[]^_$%!,.=+-*/:;|&~ 0129xeinABE\n\t\\\u2212\u221e\u00bd\ud800\x00",
    *PIECES_OF_LATEX.split(),
    *["answer is", "The answer: ", "\\cdot ", "\\approx ", "\\le ", "#### "],
]
LATEX = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
TEXTS = st.one_of(LATEX, st.text(max_size=80), LATEX.map("\\boxed{{{}}}".format))
REFERENCES = [
    *("\\frac{\\sqrt{3}}{2}", "x^2-1", "(-\\infty, 2] \\cup \\{5\\}"),
    "\\begin{pmatrix} 1 \\\\ -2 \\end{pmatrix}",
    "y = 2x + 1",
    "\\text{even}",
    "3:15",
    "10!",
    "2^{100}",
    "45^\\circ",
]

FUZZ = settings(
    deadline=None,
    derandomize=True,
    # The fixtures only shorten a timeout, or provide a folder whose file is overwritten.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZ, max_examples=150)
@given(TEXTS, st.one_of(st.sampled_from(REFERENCES), TEXTS), KINDS)
def test_any_answer_and_reference_give_a_grade_or_a_user_error(output, reference, kind):
    start = time.monotonic()
    try:
        result = grade.grade_answer(output, reference, kind, FOUR)
    except UserError as error:
        message = str(error)
    else:
        message = None
        assert result.correct in ((True, False) if result.extracted else (False,))
        if result.extracted:
            matches(result.extracted, reference, kind, FOUR)  # `verify` hides exceptions
    assert message is None or "the reference" in message
    assert time.monotonic() - start < 10


@settings(FUZZ, max_examples=150)
@given(st.sampled_from(REFERENCES), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_an_answer_that_starts_with_the_reference_is_graded(reference, text):
    assert verify(f"{reference}{text}", reference, "math") in (True, False)


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
CHANGES = st.dictionaries(st.sampled_from(sorted(RECORD)), st.one_of(VALUES, LISTS), max_size=3)
LINES = st.one_of(
    st.builds(lambda changes: json.dumps(RECORD | changes).encode(), CHANGES),
    st.builds(lambda value: json.dumps(value).encode(), VALUES),
    st.builds(
        lambda missing: json.dumps({k: v for k, v in RECORD.items() if k != missing}).encode(),
        st.sampled_from(sorted(RECORD)),
    ),
    st.text(max_size=40).map(lambda line: line.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tests.support.tiny import tiny_tokenizer  # imports torch, which few of these tests need

    return tiny_tokenizer()


@settings(FUZZ, max_examples=200)
@given(st.lists(LINES, max_size=4))
def test_any_file_of_records_is_read_or_gives_a_user_error(tokenizer, tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n".join(content))
    try:
        supervision = records.import_records(path, tokenizer, prompt=Prompt(), vocabulary_size=256)
    except UserError as error:
        message = str(error)
    else:
        message = str(path)
        supervision.save(tmp_path)  # checks types and ranges
        assert records.profile(supervision)["kept"] == supervision.kept >= 1
        assert len(supervision.digest()) == 64
    assert str(path) in message


# Settings --------------------------------------------------------------------------------------

register()
_KEYS = """
alpha beta seed stages benchmarks store hub_root device attention experiment nowhere sweep
expert expert.path expert.name expert.reused_ids amateur amateur.drop_layers method method.share
data data.path data.max_questions data.configs sampler sampler.batch_size sampler.export
distiller.target_modules distiller.merge wandb.tags sampler.prompt evaluator.prompts
"""
_ODD_VALUES = """
null ??? true nan inf 1e999 [] {} [null] {a:1} ${beta} ${nowhere} ${oc.env:NOWHERE} ${ $ ' "
micro gsm8k 1,2 range(0,9) range(9) range(0,1,0) glob(*) choice(1,2) sort(1) interval(0,1)
shuffle(1,2) [[[[[1]]]]] -1 99999999999999999999999999999999999999 ~ micro@x = a=b
"""
_VALUES = st.one_of(
    st.sampled_from(["", *_ODD_VALUES.split()]),
    st.text(max_size=12),
    st.floats().map(str),
    st.lists(st.sampled_from(list("[]{}(),:'\"\\$ a1")), max_size=12).map("".join),
)
WORDS = st.one_of(
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from(_KEYS.split()),
        _VALUES,
    ),
    st.builds("{}={}".format, st.text(max_size=8), _VALUES),
)
EXPECTED = (UserError, HydraException, OmegaConfBaseException)  # printed as one line


def compose_or_message(words: list[str]) -> Settings | str:
    """The settings that the program composes from overrides, or the message that it prints."""
    try:
        check_overrides(words)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return to_settings(compose("config", overrides=words), words)
    except EXPECTED as error:
        return one_line_message(error)


@settings(FUZZ, max_examples=100)
@given(st.lists(st.one_of(WORDS, st.text(max_size=30)), max_size=3))
def test_any_overrides_give_settings_or_a_one_line_message(words):
    result = compose_or_message(["experiment=demo", *words])
    if isinstance(result, str):
        assert result.strip()
        assert len(result.splitlines()) == 1
    else:
        assert isinstance(result, Settings)


# Summaries of runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> dict[str, Any]:
    from tests.support.run_folders import SAMPLES, write_run

    result = {"accuracy": 0.5, "correct": 1, "total": 2}
    both = {who: {"micro_add": result} for who in ("expert", "amateur")}
    folder = write_run(
        tmp_path_factory.mktemp("sound") / "0",
        evaluate__gap={"decoder": "greedy", **both},
        evaluate__curve=[{"step": 50, "results": {"micro_add": result}}],
        evaluate__samples=SAMPLES,
    )
    return json.loads((folder / "summary.json").read_text("utf-8"))


def key_paths(value: Any, parent: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values nested in a value; of a list, to its first two."""
    paths = []
    for key, child in value.items() if isinstance(value, dict) else enumerate(value[:2]):
        paths.append((*parent, key))
        if isinstance(child, dict | list):
            paths += key_paths(child, (*parent, key))
    return paths


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of `tree` with another value at a path."""
    if not path:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = with_value(tree[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize("kind", ["list", "text", "null", "number", "nan", "huge"])
def test_a_summary_with_a_value_of_another_type_is_reported_or_gives_a_user_error(
    summary, tmp_path, monkeypatch, kind
):
    """Replaces each value in turn. Figures, which read the same data, are skipped for speed."""
    value = {
        "list": [[]],
        "text": "many\n",
        "null": None,
        "number": -7.5,
        "nan": float("nan"),
        "huge": 10**400,
    }[kind]
    monkeypatch.setattr(report_build, "draw_sweep", lambda _: [])
    path = tmp_path / "0" / "summary.json"
    path.parent.mkdir()
    messages: dict[tuple[Any, ...], str] = {}
    for key_path in key_paths(summary):
        path.write_text(json.dumps(with_value(summary, key_path, value)), "utf-8")
        try:
            report = report_build.build(tmp_path)
        except UserError as error:
            messages[key_path] = str(error)
        except Exception as error:
            raise AssertionError(f"{kind} at {key_path}") from error
        else:
            assert "report.html" in report.files
    assert len(messages) > 5
    assert all(str(path) in message for message in messages.values()), messages


# Memory ----------------------------------------------------------------------------------------


def peak_bytes(function: Callable[[], object]) -> int:
    """The peak memory that Python allocates while `function` runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_linear(function: Callable[[int], object], size: int) -> None:
    """Checks that ten times the input takes at most about ten times the memory."""
    function(10)  # warms up imports and caches
    small, large = (peak_bytes(lambda count=count: function(count)) for count in (size, 10 * size))
    assert large < 15 * small


PIECES = [
    *("\\boxed{1} ", "\\boxed{", "{", "}", "\\frac{1}{2} ", "1,", "the answer is 7. ", "(A) "),
    "$x^2$ ",
    "\\",
    "12 ",
    "answer: ",
    "\u00bd",
]


@pytest.mark.parametrize("kind", ANSWER_KINDS)
def test_extracting_takes_linear_memory(kind):
    for piece in PIECES:
        check_linear(lambda count, piece=piece: extract(piece * count, kind, FOUR), 500)


@pytest.mark.parametrize("piece", ["\\frac{1}{2}+", "{", "1", "x^2", "ab ", "\\text{a}"])
def test_checking_a_reference_takes_linear_memory(piece):
    """References come from users' files and may have any length."""

    def graded(count: int) -> object:
        try:
            return verify("17", piece * count, "math")
        except UserError as error:
            return error

    check_linear(graded, 500)


def read_questions(path: Path, _: Any) -> object:
    return load_questions(DataSettings(name="q", format="jsonl", path=str(path)), hub_root=None)


def read_records(path: Path, tokenizer: Any) -> object:
    return records.import_records(path, tokenizer, prompt=Prompt(), vocabulary_size=256)


ANSWER = {"reference": "18", "kind": "number", "output": "\\boxed{18}"}


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (read_records, lambda i: RECORD | {"prompt_id": f"How many {i}?"}),
        (read_records, lambda i: RECORD | {"prefix_token_ids": [i % 256]}),  # of one question
        (read_questions, lambda i: {"question": f"How many {i}?"}),
        (lambda path, _: grade.regrade(path), lambda i: {"id": f"g/{i}", **ANSWER}),
    ],
    ids=["records", "records of one question", "questions", "graded answers"],
)
def test_reading_a_file_takes_linear_memory(tokenizer, tmp_path, read, line):
    def write_and_read(count: int) -> object:
        return read(write_lines(tmp_path / "file.jsonl", map(line, range(count))), tokenizer)

    check_linear(write_and_read, 50)

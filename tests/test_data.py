"""Questions: formats, JSON Lines errors, selection, and a hub mirror if there is one."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import sympify

from lr_exp.config.options import option_files
from lr_exp.config.settings import BenchmarkSettings, DataSettings
from lr_exp.data.benchmarks import load_benchmark, load_shots
from lr_exp.data.formats import FORMATS, boxes
from lr_exp.data.questions import (
    Question,
    fingerprint,
    load_questions,
    prompts_fingerprint,
    questions_of,
    select_questions,
)
from lr_exp.data.sources import GENERATED
from lr_exp.errors import UserError
from lr_exp.micro.world import generate_problems
from tests.support.files import one_line_error
from tests.support.hub import COUNTS, HUB, ROOT, mirror, needs_hub

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Converts hub data sets in the test's folder instead of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read(name, row):
    return FORMATS[name](row, "x/test/7")


# A format, its row, and the question's text, answer, solution and choices.
ROWS = [
    (
        "gsm8k",
        {"question": "Q?", "answer": "16 - 3 = <<16-3=13>>13 eggs.\n#### 1,080"},
        ("Q?", "1080", "16 - 3 = 13 eggs."),
    ),
    (
        "math",
        {"problem": "P", "solution": r"so \boxed{1}, no, \boxed{\frac{1}{2}}.", "level": "Level 1"},
        ("P", r"\frac{1}{2}", r"so \boxed{1}, no, \boxed{\frac{1}{2}}."),
    ),
    ("math", {"problem": "P", "solution": "none"}, ("P", None, "none")),
    ("math500", {"problem": "P", "solution": "S", "answer": "p - q"}, ("P", "p - q", "S")),
    (
        "svamp",
        {"Body": "He has 8 pens ", "Question": "How many?", "Answer": "145.0"},
        ("He has 8 pens. How many?", "145"),
    ),
    ("asdiv", {"body": "B.", "question": "Q?", "answer": "9 (apples)"}, ("B. Q?", "9")),
    # The toolkit removes every parenthesis and leaves "-" here.
    ("asdiv", {"body": "B.", "question": "Q?", "answer": "-(1/3)"}, ("B. Q?", "-(1/3)")),
    ("asdiv", {"body": "B.", "question": "Q?", "answer": "5 (red); 3 (blue)"}, None),
    ("aime25", {"problem": "P", "answer": "070", "id": "0"}, ("P", "070")),
    ("minerva_math", {"question": "Q", "answer": "4.5e33\n"}, ("Q", "4.5e33")),
    ("olympiadbench", {"question": "Q", "final_answer": ["$69$,$84$"]}, ("Q", "69,84")),
    (
        "mmlu_stem",
        {"question": "Q", "subject": "astronomy", "choices": ["a", "b ", "c", "d"], "answer": 1},
        ("Q", "B", None, ("a", "b", "c", "d")),
    ),
    ("mmlu_stem", {"question": "Q", "subject": "law", "choices": ["a"], "answer": 0}, None),
    ("jsonl", {"question": " Q ", "answer": 5}, ("Q", "5")),
]


@pytest.mark.parametrize(("name", "row", "expected"), ROWS)
def test_a_row_becomes_a_question(name, row, expected):
    assert read(name, row) == (expected and Question("x/test/7", *expected))


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if name not in ("jsonl", "parquet", *GENERATED)]
)
def test_a_missing_column_error_lists_the_columns(name):
    with pytest.raises(UserError, match=r"no column .*; the columns are: text, weight"):
        read(name, {"text": "t", "weight": 1})


BOXES = [
    (r"\boxed{3}", "3"),
    (r"\boxed{\boxed{3}}", "3"),
    (r"\boxed{1} then \boxed{2}", "2"),
    (r"\fbox{4}", "4"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
    (r"\boxed{5} and \boxed{6", "5"),  # the second one is truncated
    (r"put it in \boxed{}: \boxed{7}. As asked: \boxed{}", "7"),
    (r"{ \boxed{8}", "8"),
    (r"} \boxed{9}", "9"),
    (r"\boxed {10}", "10"),
    (r"so $\boxed 2$.", "2"),
    ("no box", None),
    (r"\boxed{", None),
    (r"\boxed{ }", None),
]


@pytest.mark.parametrize(("text", "content"), BOXES)
def test_the_last_box_has_the_answer(text, content):
    row = {"problem": "?", "solution": text}
    assert FORMATS["math"](row, "q").answer == content


@given(st.text(alphabet="\\{}boxed 1", max_size=60))
def test_boxes_are_always_places_in_the_text(text):
    for start, end in boxes(text):
        assert 0 <= start <= end <= len(text)


# JSON Lines


def jsonl(tmp_path, content):
    path = tmp_path / "mine.jsonl"
    path.write_text(content, "utf-8")
    return DataSettings(name="jsonl", format="jsonl", path=str(path))


def test_jsonl_ids_are_line_numbers(tmp_path):
    lines = ['{"question": "One?", "answer": 12.50}', "", '{"question": "Two\u2028?", "x": 1}', ""]
    questions = load_questions(jsonl(tmp_path, "\n".join(lines)), hub_root="/nowhere")
    assert questions == [Question("jsonl/1", "One?", "12.50"), Question("jsonl/3", "Two\u2028?")]


BAD_LINES = [
    ("", "no questions in it"),
    ('{"question": "Q", "answer": 1e99999999999999999999}', "line 1: not JSON"),
    ('{"question": "Q", "answer": ' + "9" * 5000 + "}", "line 1: not JSON"),
    ('{"prompt": "Q"}', "line 1: no `question`; the keys are: prompt"),
    ("{}", "line 1: no `question`; the keys are: none"),
    ('{"question": " "}', "must be a non-empty string"),
    ('{"question": null}', "must be a non-empty string"),
    ('{"question": 5}', "must be a non-empty string"),
    ('{"question": "Q", "answer": true}', "`answer` must be a string or a number"),
    ('{"question": "Q", "answer": ["1"]}', "`answer` must be a string or a number"),
    ('{"question": "Q", "solution": 1}', "`solution` must be a string"),
    (r'{"question": "\ud800"}', "surrogate"),
]


@pytest.mark.parametrize(("content", "message"), BAD_LINES)
def test_jsonl_errors_name_the_line(tmp_path, content, message):
    with one_line_error("mine.jsonl", message):
        load_questions(jsonl(tmp_path, content), hub_root=None)


def test_a_source_is_read_only_as_far_as_needed(tmp_path):
    source = jsonl(tmp_path, '{"question": "One?"}\n{"question": "Two?"}\n[1]')
    assert [one.text for one in load_questions(source, 2, hub_root=None)] == ["One?", "Two?"]
    with pytest.raises(UserError, match="line 3"):
        load_questions(source, 3, hub_root=None)


def test_questions_from_python():
    given = [
        "One?",
        {"question": "Two?", "answer": 0.1, "solution": "S"},
        Question("mine", "Three?"),
    ]
    assert questions_of(given) == [
        Question("questions/0", "One?"),
        Question("questions/1", "Two?", "0.1", "S"),
        Question("mine", "Three?"),
    ]
    assert fingerprint(questions_of(["One?"])) != fingerprint(questions_of(["Two?"]))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "questions: expected a list"),
        ("One?", "questions: expected a list"),
        (["One?", " "], r"questions\[1\]: `question` must be a non-empty string"),
        ([5], r"questions\[0\]: `question` must be"),
        ([{"text": "Q"}], r"questions\[0\]: no `question`; the keys are: text"),
        ([{"question": "Q", "answer": float("nan")}], "is not a finite number"),
    ],
)
def test_invalid_questions_from_python_are_named(given, says):
    with pytest.raises(UserError, match=says):
        questions_of(given)


# Sources

SUMS = {"format": "random_calculation", "count": 9, "operations": ["add"], "operands": [1, 9]}
BAD_SOURCES = [
    ({"format": "gsm8"}, "Did you mean 'gsm8k'"),
    ({"format": "lr_samples"}, "format lr_samples holds contrastive samples"),
    ({"format": "jsonl"}, "Set data.path"),
    ({"format": "jsonl", "path": "none.jsonl"}, "none.jsonl: cannot be read (No such file"),
    ({"format": "gsm8k", "path": "none"}, "none is not a folder. hub_root="),
    ({"format": "gsm8k", "path": "empty"}, "Check data.path, data.configs, data.split"),
    ({"format": "gsm8k", "path": "asdiv", "split": "dev"}, "data.configs, data.split"),
    ({"format": "gsm8k", "path": "asdiv", "split": None}, "Set data.split"),
    ({"format": "gsm8k", "path": "asdiv"}, "no column 'answer'"),
    ({"format": "asdiv", "path": "asdiv"}, "format asdiv keeps no question"),
    ({"format": "olympiadbench", "path": "numbers"}, "x/test/0"),
    ({"format": "micro", "configs": ["x"], "count": 2}, "data: unknown family 'x'"),
    ({"format": "micro", "configs": ["micro_add"]}, "data.count"),
    ({"format": "micro", "count": 2, "split": "train"}, "needs data.configs (families)"),
    ({**SUMS, "operations": ["ad"]}, "unknown operation 'ad'. Did you mean 'add'"),
    ({**SUMS, "operands": [9, 1]}, "operands=[9, 1]"),
    ({**SUMS, "operations": []}, "operations is empty"),
    ({**SUMS, "split": "dev"}, "unknown split 'dev'"),
    ({**SUMS, "count": None}, "data.count"),
    ({**SUMS, "operands": [1, 3]}, "too few distinct test questions: 9 requested"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_SOURCES)
def test_a_bad_source_is_one_line_that_names_the_setting(tmp_path, changes, message):
    (tmp_path / "empty").mkdir()
    answer = "final" if "answer" in message else "answer"
    mirror(tmp_path / "asdiv", [{"body": "B", "question": "Q", answer: "1;2"}])
    mirror(tmp_path / "numbers", [{"question": "Q", "final_answer": 5}])
    source = DataSettings(**{"name": "x", "split": "test", **changes})
    with one_line_error(message):
        load_questions(source, hub_root=str(tmp_path))


def hub_data(name="g", kind="gsm8k", path="openai/gsm8k", split="test"):
    return DataSettings(name=name, format=kind, path=path, split=split)


def test_an_unreachable_hub_is_one_clear_error(monkeypatch):
    def unreachable(*arguments, **options):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match=r"openai/gsm8k cannot be read.*set hub_root"):
        load_questions(hub_data(), hub_root=None)


def test_any_hub_data_set_is_read_by_its_columns(tmp_path):
    rows = [{"story": " A. ", "ask": "B?", "gold": 7, "why": "{ask} because"}]
    mirror(tmp_path / "me" / "mine", rows, "train")
    source = hub_data("mine", "hub", "me/mine", "train")
    by_text = replace(source, question="{story} {ask}", reference="gold", solution="why")
    read = partial(load_questions, hub_root=str(tmp_path))
    assert read(by_text) == [Question("mine/train/0", "A. B?", "7", "{ask} because")]
    assert read(replace(source, question="ask")) == [Question("mine/train/0", "B?")]
    with pytest.raises(UserError, match=r"no column 'x'; the columns are: ask, gold, story, why"):
        read(replace(source, question="{x}"))
    with pytest.raises(UserError, match=r"`question` is missing. Set .*question"):
        read(source)


def test_ids_do_not_count_dropped_rows_of_a_folder_in_hub_layout(tmp_path, capfd):
    kept = [{"body": "B.", "question": f"Q{i}", "answer": f"{i} (pens)"} for i in range(3)]
    dropped = {"body": "B.", "question": "two", "answer": "1 (a); 2 (b)"}
    mirror(tmp_path / "hub" / "me" / "asdiv", [kept[0], dropped, *kept[1:]], "validation")
    settings = hub_data("g", "asdiv", "me/asdiv", "validation")
    questions = load_questions(settings, hub_root=str(tmp_path / "hub"))
    answered = [(f"g/validation/{i}", str(i)) for i in range(3)]
    assert [(question.id, question.answer) for question in questions] == answered
    assert capfd.readouterr() == ("", "")  # no progress bars for a local folder


def test_micro_questions_come_from_the_generator():
    settings = DataSettings(name="m", format="micro", configs=["micro_add"], split="train", count=2)
    problem = generate_problems("micro_add", 2, 0, "train")[1]
    both = replace(settings, configs=["micro_subtract", "micro_add"])
    assert [one.text for one in load_questions(both, hub_root=None)][3] == problem.question
    assert load_questions(settings, hub_root=None)[1] == Question(
        "m/train/1", problem.question, problem.answer, problem.solution
    )


@pytest.mark.parametrize("depth", [1, 3])
def test_random_calculations_are_right_distinct_and_in_one_split_whatever_the_operands_order(depth):
    settings = [
        DataSettings(
            name="r",
            format="random_calculation",
            split=split,
            count=300,
            operations=["add", "subtract", "multiply"],
            operands=[1, 40],
            depth=depth,
        )
        for split in ("train", "test")
    ]
    train, test = (load_questions(one, hub_root=None) for one in settings)
    keys = {}
    for question in [*train, *test]:
        expression = question.text.removeprefix("What is ").removesuffix("?")
        assert question.answer == str(sympify(expression))
        assert len(re.findall(r"[-+*] ", expression)) == depth
        commutes = depth == 1 and "-" not in expression
        parts = expression.split(" ")
        keys[question.id] = tuple(sorted(parts)) if commutes else expression
    assert len(set(keys.values())) == 600
    fewer = load_questions(replace(settings[0], count=10), hub_root=None)
    assert fewer == train[:10]
    other_seed = load_questions(replace(settings[0], seed=1), hub_root=None)
    assert other_seed[:10] != fewer


# Selection and address


def test_a_smaller_selection_is_a_prefix_of_a_larger_one():
    questions = [Question(str(i), str(i)) for i in range(50)]
    assert select_questions(questions, None, 3) == questions
    ten, twenty = (select_questions(questions, n, 3) for n in (10, 20))
    assert twenty[:10] == ten
    assert select_questions(questions, 10, 3) == ten
    assert select_questions(questions, 10, 4) != ten
    assert sorted(select_questions(questions, 99, 0), key=lambda q: int(q.id)) == questions


def test_the_fingerprint_depends_on_every_field_and_the_order():
    first, second = Question("a", "t", "1", "s", ("x",)), Question("b", "t")
    changes = {"id": "b", "text": "u", "answer": None, "solution": None, "choices": ("x", "")}
    changed = [replace(first, **{name: value}) for name, value in changes.items()]
    others = [*([question] for question in changed), [first, second], [second, first]]
    assert len({fingerprint(questions) for questions in [[first], *others]}) == 8


# Settings files


def test_every_benchmark_file_is_valid():
    for name in option_files([CONF], "benchmark"):
        settings = load_benchmark(name, [CONF])
        assert settings.name == name
        assert settings.format in FORMATS
        assert settings.shots_split != settings.split  # examples never come from the scored split


BAD_FILES = [
    ("name: x\nanswr: number\n", "x", "Did you mean 'answer'"),
    ("name: x\nversion: many\n", "x", "many"),
    ("name: x\nformat: gsm8k\nanswer: essay\n", "x", "essay"),
    ("name: x\n", "xx", "Did you mean 'x'"),
    ("name: x\n", "../benchmark/x", "unknown benchmark"),
]


@pytest.mark.parametrize(("content", "name", "message"), BAD_FILES)
def test_a_broken_or_unknown_benchmark(tmp_path, content, name, message):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_benchmark(name, [tmp_path])


def test_shots(tmp_path):
    rows = [{"question": f"Q{i}", "answer": f"#### {i}"} for i in range(6)]
    mirror(tmp_path / "g", rows, "train")
    settings = BenchmarkSettings(
        name="g", format="gsm8k", path="g", split="test", shots_split="train"
    )
    shots = load_shots(settings, 2, [], hub_root=str(tmp_path))
    assert len(shots) == 2
    assert shots == load_shots(settings, 3, [], hub_root=str(tmp_path))[:2]
    with pytest.raises(UserError, match="has only 6 that are not asked"):
        load_shots(settings, 7, [], hub_root=str(tmp_path))
    settings.shots_split = None
    assert load_shots(settings, 0, [], hub_root=None) == []
    with pytest.raises(UserError, match="1 few-shot examples of g: this benchmark has no split"):
        load_shots(settings, 1, [], hub_root=None)


# The benchmarks themselves


@needs_hub
@pytest.mark.parametrize("name", COUNTS)
def test_hub_counts_and_references(name):
    """Benchmarks have their published sizes, and each reference is graded right."""
    from lr_exp.evaluator.verify import verify

    settings = load_benchmark(name, [CONF])
    questions = load_questions(settings, hub_root=str(HUB))
    assert len(questions) == COUNTS[name]
    assert len({question.id for question in questions}) == len(questions)
    misses = [
        question.answer
        for question in questions
        if not verify(question.answer, question.answer or "", settings.answer, question.choices)
    ]
    assert misses == []


@needs_hub
def test_hub_training_questions():
    settings = hub_data(split="train")
    settings.configs = ["main"]
    questions = load_questions(settings, hub_root=str(HUB))
    assert len(questions) == 7473
    assert not any("<<" in (question.solution or "") for question in questions)
    assert all((question.answer or "").lstrip("-").isdigit() for question in questions)


# Parquet


def write_parquet(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def parquet(path: Path, **settings) -> DataSettings:
    return DataSettings(name="parquet", format="parquet", path=str(path), **settings)


def test_files_of_a_folder_are_read_in_order_of_their_paths(tmp_path):
    write_parquet(tmp_path / "b.parquet", question=["3"], answer=["c"])
    write_parquet(tmp_path / "a.parquet", question=["1", " 2 "], solution=["s", None], x=[1, 2])
    write_parquet(tmp_path / "below" / "a.parquet", question=["4"])
    (tmp_path / "notes.txt").write_text("no")
    assert load_questions(parquet(tmp_path), hub_root=None) == [
        Question("parquet/1", "1", None, "s"),
        Question("parquet/2", "2", None, None),
        Question("parquet/3", "3", "c", None),
        Question("parquet/4", "4", None, None),
    ]


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        *((pa.array([5, None]), ["5", None]), (pa.array([12.5, 4.0]), ["12.5", "4.0"])),
        (pa.array(["1/2", None]), ["1/2", None]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_answers_may_be_strings_or_numbers(tmp_path, answers, read):
    path = write_parquet(tmp_path / "x.parquet", question=["1", "2"], answer=answers)
    assert [q.answer for q in load_questions(parquet(path), hub_root=None)] == read


BAD_COLUMNS = [  # the others are as in JSON Lines, see test_data
    ({"prompt": ["Q"], "id": [1]}, "row 1: no `question`; the keys are: id, prompt"),
    ({"question": ["Q", None]}, "row 2: `question` must be a non-empty string"),
    ({"question": ["Q"], "answer": [["1"]]}, "row 1: `answer` must be a string or a number"),
    ({"question": ["Q"], "answer": [float("nan")]}, "row 1: `answer` is not a finite number"),
    ({"question": pa.array([], pa.string())}, "no questions in it"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_errors_in_rows_are_one_line_that_names_the_row(tmp_path, columns, message):
    path = write_parquet(tmp_path / "mine.parquet", **columns)
    with one_line_error("mine.parquet", message):
        load_questions(parquet(path), hub_root=None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot be read as Parquet"),
        (lambda path: (path.unlink(), path.mkdir()), "no questions in it"),
        (lambda path: path.write_bytes(b"PAR1 no table PAR1"), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read as Parquet"),
        (lambda path: zero_pages(path), "x.parquet"),
    ],
)
def test_unreadable_files_are_one_line_errors(tmp_path, damage, message):
    path = write_parquet(tmp_path / "x.parquet", question=[f"Question {i}?" for i in range(5000)])
    damage(path)
    with one_line_error("x.parquet", message):
        load_questions(parquet(path), hub_root=None)


def zero_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40:4000] = bytes(3960)
    path.write_bytes(content)


def test_fingerprints_are_the_same_as_in_earlier_versions():
    """They are part of the addresses of everything in a store."""
    questions = [Question("a", "t \u00e9", "1", None, ("x", "y")), Question("b", "u")]
    found = [of(questions)[:8] for of in (fingerprint, prompts_fingerprint)]
    assert found == ["ebaf8471", "7aeaf9e7"]

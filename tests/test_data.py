"""Questions: formats, JSON Lines errors, selection, and a hub mirror if there is one."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_exp.config.options import option_files
from lr_exp.config.settings import BenchmarkSettings, DataSettings
from lr_exp.data.benchmarks import load_benchmark, load_shots
from lr_exp.data.formats import FORMATS, last_boxed
from lr_exp.data.questions import Question, fingerprint, load_questions, select_questions
from lr_exp.errors import UserError
from tests.support.hub import COUNTS, HUB, ROOT, mirror, needs_hub

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Converts hub data sets in the test's folder instead of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read(name, row):
    return FORMATS[name](row, "x/test/7")


ROWS = [
    (
        "gsm8k",
        {"question": "Q?", "answer": "16 - 3 = <<16-3=13>>13 eggs.\n#### 1,080"},
        Question("x/test/7", "Q?", "1080", "16 - 3 = 13 eggs."),
    ),
    (
        "math",
        {"problem": "P", "solution": r"so \boxed{1}, no, \boxed{\frac{1}{2}}.", "level": "Level 1"},
        Question("x/test/7", "P", r"\frac{1}{2}", r"so \boxed{1}, no, \boxed{\frac{1}{2}}."),
    ),
    ("math", {"problem": "P", "solution": "none"}, Question("x/test/7", "P", None, "none")),
    (
        "math500",
        {"problem": "P", "solution": "S", "answer": "p - q", "subject": "Algebra"},
        Question("x/test/7", "P", "p - q", "S"),
    ),
    (
        "svamp",
        {"Body": "He has 8 pens ", "Question": "How many?", "Answer": "145.0"},
        Question("x/test/7", "He has 8 pens. How many?", "145"),
    ),
    (
        "asdiv",
        {"body": "Seven apples.", "question": "How many?", "answer": "9 (apples)"},
        Question("x/test/7", "Seven apples. How many?", "9"),
    ),
    # The toolkit removes every parenthesis and leaves "-" here.
    (
        "asdiv",
        {"body": "B.", "question": "Q?", "answer": "-(1/3)"},
        Question("x/test/7", "B. Q?", "-(1/3)"),
    ),
    ("asdiv", {"body": "B.", "question": "Q?", "answer": "5 (red); 3 (blue)"}, None),
    ("minerva_math", {"question": "Q", "answer": "4.5e33\n"}, Question("x/test/7", "Q", "4.5e33")),
    (
        "olympiadbench",
        {"question": "Q", "final_answer": ["$69$,$84$"], "unit": None},
        Question("x/test/7", "Q", "69,84"),
    ),
    (
        "mmlu_stem",
        {"question": "Q", "subject": "astronomy", "choices": ["a", "b ", "c", "d"], "answer": 1},
        Question("x/test/7", "Q", "B", choices=("a", "b", "c", "d")),
    ),
    ("mmlu_stem", {"question": "Q", "subject": "law", "choices": ["a"], "answer": 0}, None),
    ("jsonl", {"question": " Q ", "answer": 5}, Question("x/test/7", "Q", "5")),
]


@pytest.mark.parametrize(("name", "row", "expected"), ROWS)
def test_a_row_becomes_a_question(name, row, expected):
    assert read(name, row) == expected


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if name not in ("jsonl", "parquet", "micro")]
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
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@given(st.text(alphabet="\\{}boxed 1", max_size=60))
def test_last_boxed_never_fails(text):
    content = last_boxed(text)
    assert content is None or content in text


# JSON Lines


def jsonl(tmp_path, content):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataSettings(name="jsonl", format="jsonl", path=str(path))


def test_jsonl_ids_are_line_numbers(tmp_path):
    lines = ['{"question": "One?", "answer": 12.50}', "", '{"question": "Two\u2028?", "x": 1}', ""]
    questions = load_questions(jsonl(tmp_path, "\n".join(lines)), hub_root="/nowhere")
    assert questions == [
        Question("jsonl/1", "One?", "12.50"),
        Question("jsonl/3", "Two\u2028?"),
    ]


def test_jsonl_with_a_byte_order_mark_and_crlf(tmp_path):
    content = b'\xef\xbb\xbf{"question": "Q"}\r\n{"question": "R"}\r\n'
    assert [q.text for q in load_questions(jsonl(tmp_path, content), hub_root=None)] == ["Q", "R"]


BAD_LINES = [
    ("", "no questions in it"),
    ("\n \n", "no questions in it"),
    ('{"question": "Q"}\nnot json', "line 2: not JSON"),
    ('{"question": "Q"}{', "line 1: not JSON"),
    ('{"question": NaN}', "line 1: not JSON"),
    ("[" * 100_000, "line 1: not JSON"),
    ('{"question": "Q", "answer": ' + "9" * 5000 + "}", "line 1: not JSON"),
    ("[1]", "line 1: not an object"),
    ('"text"', "line 1: not an object"),
    ('{"prompt": "Q"}', "line 1: no `question`; the keys are: prompt"),
    ("{}", "line 1: no `question`; the keys are: none"),
    ('{"question": ""}', "must be a non-empty string"),
    ('{"question": " "}', "must be a non-empty string"),
    ('{"question": 5}', "must be a non-empty string"),
    ('{"question": null}', "must be a non-empty string"),
    ('{"question": "Q", "answer": true}', "`answer` must be a string or a number"),
    ('{"question": "Q", "answer": ["1"]}', "`answer` must be a string or a number"),
    ('{"question": "Q", "solution": 1}', "`solution` must be a string"),
    (r'{"question": "\ud800"}', "surrogate"),
    (b'{"question": "Q"}\n{"question": "\xff"}', "line 2: not UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), BAD_LINES)
def test_jsonl_errors_name_the_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as caught:
        load_questions(jsonl(tmp_path, content), hub_root=None)
    assert "mine.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jsonl_file_missing(tmp_path):
    settings = DataSettings(name="jsonl", format="jsonl", path=str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match=r"none\.jsonl: no such file\. Set data\.path"):
        load_questions(settings, hub_root=None)


def test_jsonl_needs_a_path():
    with pytest.raises(UserError, match=r"Set data\.path"):
        load_questions(DataSettings(name="jsonl", format="jsonl"), hub_root=None)


# Sources


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match="'gsm8k'"):
        load_questions(DataSettings(name="x", format="gsm8"), hub_root=None)


def test_lr_samples_cannot_be_read_as_questions():
    with pytest.raises(UserError, match="lr_samples"):
        load_questions(DataSettings(name="x", format="lr_samples"), hub_root=None)


def test_a_hub_root_without_the_data_set(tmp_path):
    settings = DataSettings(name="g", format="gsm8k", path="openai/gsm8k", split="test")
    with pytest.raises(UserError, match=rf"{tmp_path}/openai/gsm8k is not a folder.*hub_root"):
        load_questions(settings, hub_root=str(tmp_path))


def test_an_empty_folder_is_one_clear_error(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    settings = DataSettings(name="g", format="gsm8k", path="a/b", split="test")
    with pytest.raises(UserError, match=r"cannot be read: .*data\.path"):
        load_questions(settings, hub_root=str(tmp_path))


def test_an_unreachable_hub_is_one_clear_error(monkeypatch):
    import datasets

    def unreachable(*arguments, **options):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    settings = DataSettings(name="g", format="gsm8k", path="openai/gsm8k", split="test")
    with pytest.raises(UserError, match=r"openai/gsm8k cannot be read.*set hub_root"):
        load_questions(settings, hub_root=None)


def test_reading_a_folder_in_hub_layout(tmp_path, capfd):
    rows = [{"question": f"Q{i}", "answer": f"#### {i}", "extra": i} for i in range(3)]
    mirror(tmp_path / "openai" / "gsm8k", rows)
    settings = DataSettings(name="g", format="gsm8k", path="openai/gsm8k", split="test")
    questions = load_questions(settings, hub_root=str(tmp_path))
    assert [(q.id, q.answer) for q in questions] == [
        ("g/test/0", "0"),
        ("g/test/1", "1"),
        ("g/test/2", "2"),
    ]
    assert capfd.readouterr() == ("", "")  # no progress bars for a local folder
    settings.split = "dev"
    with pytest.raises(UserError, match=r"split dev of .*Change data\.split"):
        load_questions(settings, hub_root=str(tmp_path))
    settings.split = None
    with pytest.raises(UserError, match=r"Set data\.split"):
        load_questions(settings, hub_root=str(tmp_path))


def test_ids_do_not_count_dropped_rows(tmp_path):
    kept = [{"body": "B.", "question": f"Q{i}", "answer": f"{i} (pens)"} for i in range(3)]
    dropped = {"body": "B.", "question": "two", "answer": "1 (a); 2 (b)"}
    mirror(tmp_path / "hub" / "asdiv", [kept[0], dropped, *kept[1:]], "validation")
    mirror(tmp_path / "copy" / "asdiv", kept, "validation")
    settings = BenchmarkSettings(name="asdiv", format="asdiv", path="asdiv", split="validation")
    first, second = (
        load_questions(settings, hub_root=str(tmp_path / place)) for place in ("hub", "copy")
    )
    assert fingerprint(first) == fingerprint(second)


def test_a_set_without_any_kept_row(tmp_path):
    mirror(tmp_path / "a", [{"body": "B", "question": "Q", "answer": "1;2"}])
    settings = BenchmarkSettings(name="a", format="asdiv", path="a", split="test")
    with pytest.raises(UserError, match="format asdiv keeps no question"):
        load_questions(settings, hub_root=str(tmp_path))


def test_micro_questions_come_from_the_generator(monkeypatch):
    def generate(family, count, seed, split):
        if family != "micro_add":
            raise ValueError(f"family {family!r} is not known")
        return [
            SimpleNamespace(question=f"{seed} {split} {i}", answer="3", solution="s", careless="c")
            for i in range(count)
        ]

    world = SimpleNamespace(generate_problems=generate, iter_problems=generate)
    monkeypatch.setitem(sys.modules, "lr_exp.micro.world", world)
    settings = DataSettings(name="m", format="micro", configs=["micro_add"], split="train", count=2)
    questions = load_questions(settings, hub_root=None)
    assert questions[1] == Question("m/train/1", "0 train 1", "3", "s")
    settings.configs = ["other"]
    with pytest.raises(UserError, match="data: family 'other'"):
        load_questions(settings, hub_root=None)
    settings.count = None
    with pytest.raises(UserError, match=r"data\.count"):
        load_questions(settings, hub_root=None)


# Selection and address


def test_a_smaller_selection_is_a_prefix_of_a_larger_one():
    questions = [Question(str(i), str(i)) for i in range(50)]
    assert select_questions(questions, None, 3) == questions
    ten, twenty = (select_questions(questions, n, 3) for n in (10, 20))
    assert twenty[:10] == ten
    assert select_questions(questions, 10, 3) == ten
    assert select_questions(questions, 10, 4) != ten
    assert sorted(select_questions(questions, 99, 0), key=lambda q: int(q.id)) == questions


CHANGES = [
    Question("b", "t", "1", "s", ("x",)),
    Question("a", "u", "1", "s", ("x",)),
    Question("a", "t", "2", "s", ("x",)),
    Question("a", "t", None, "s", ("x",)),
    Question("a", "t", "1", None, ("x",)),
    Question("a", "t", "1", "s", ("x", "")),
]


@pytest.mark.parametrize("other", CHANGES)
def test_the_fingerprint_depends_on_every_field(other):
    assert fingerprint([other]) != fingerprint([Question("a", "t", "1", "s", ("x",))])


def test_the_fingerprint_depends_on_the_order():
    first, second = Question("a", "t"), Question("b", "t")
    assert fingerprint([first, second]) != fingerprint([second, first])


# Settings files


def test_every_benchmark_file_is_valid():
    names = list(option_files([CONF], "benchmark"))
    assert {"gsm8k", "math", "math500", "svamp", "asdiv", "mmlu_stem", "micro_add"} <= set(names)
    for name in names:
        settings = load_benchmark(name, [CONF])
        assert settings.name == name
        assert settings.format in FORMATS
        assert settings.shots_split != settings.split  # examples never come from the scored split


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(UserError, match="'gsm8k'"):
        load_benchmark("gsm8", [CONF])
    with pytest.raises(UserError, match="unknown benchmark"):
        load_benchmark("../data/gsm8k", [CONF])


BAD_FILES = [
    ("name: x\nanswr: number\n", "'answer'"),
    ("name: x\nversion: many\n", "many"),
    ("name: x\nformat: gsm8k\nanswer: essay\n", "essay"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_broken_benchmark_file(tmp_path, content, message):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_benchmark("x", [tmp_path])


def test_shots(tmp_path):
    rows = [{"question": f"Q{i}", "answer": f"#### {i}"} for i in range(6)]
    mirror(tmp_path / "g", rows, "train")
    settings = BenchmarkSettings(
        name="g", format="gsm8k", path="g", split="test", shots_split="train"
    )
    shots = load_shots(settings, 2, hub_root=str(tmp_path))
    assert len(shots) == 2
    assert shots == load_shots(settings, 3, hub_root=str(tmp_path))[:2]
    with pytest.raises(UserError, match="has only 6 questions"):
        load_shots(settings, 7, hub_root=str(tmp_path))
    settings.shots_split = None
    assert load_shots(settings, 0, hub_root=None) == []
    with pytest.raises(UserError, match=r"evaluator\.shots\.g=1"):
        load_shots(settings, 1, hub_root=None)


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
    settings = DataSettings(
        name="gsm8k", format="gsm8k", path="openai/gsm8k", configs=["main"], split="train"
    )
    questions = load_questions(settings, hub_root=str(HUB))
    assert len(questions) == 7473
    assert not any("<<" in (question.solution or "") for question in questions)
    assert all((question.answer or "").lstrip("-").isdigit() for question in questions)


def test_importing_data_does_not_import_datasets():
    import subprocess

    code = "import sys, lr_exp.data, lr_exp.evaluator.grade; print('datasets' in sys.modules)"
    done = subprocess.run(  # noqa: S603 - a fixed command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False\n"

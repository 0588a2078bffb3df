"""Hostile input: text stays text, secrets stay secret, no code runs, nothing is written elsewhere.

Tests of pickles and code snippets first show that the payload works.
"""

import contextlib
import csv
import io
import json
import logging
import os
import pickle
import re
import shutil
import sys
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from lr_exp import errors
from lr_exp.config.composition import cell_folder
from lr_exp.errors import MASK, UserError, known_secrets, printable, redact
from lr_exp.evaluator.grade import grade_answer
from lr_exp.report.__main__ import main as report
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.read.runs import find_runs
from lr_exp.report.read.summary import parse_summary
from lr_exp.report.tables.formats import csv_text, latex_table, one_line
from lr_exp.report.tables.table import Column, Table
from lr_exp.report.terminal import summary_table
from tests.support.distilling import KilledError, stop_at, train
from tests.support.files import ROOT, run_python, summary_of, write_lines
from tests.support.html_page import Page
from tests.support.run_folders import write_failed, write_run
from tests.support.tiny import tiny_model

PRIVATE = "3f9c0e1dwandb77a2"  # a made-up key
TOKEN_FORM = "hf_" + 24 * "A"
CLEAR_SCREEN = "\x1b[2J\x1b]0;owned\x07\x9b31m"


@pytest.fixture(autouse=True)
def _logins(monkeypatch, tmp_path):
    """Removes logins except those of the test."""
    for name in list(os.environ):
        if errors.is_secret_name(name):
            monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


# A short run, in case an input is accepted.
SHORT = ("experiment=demo", "stages=[sample]", "data.max_questions=2", "sampler.max_new_tokens=2")


def everything_below(folder):
    return "\n".join(
        f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


# The terminal ----------------------------------------------------------------------------------


def test_control_characters_alone_are_escaped():
    text = "naïve ± é 日本\u3000🙂 👩\u200d🔬 \\x1b\tand\nso on"
    assert printable(text) == text
    assert printable("a\x1b[31mb\r\u202ec\ud800") == "a\\x1b[31mb\\r\\u202ec\\ud800"
    turning = {*"\u061c\u200e\u200f", *map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])}
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        obeyed = unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in turning
        if letter in "\n\t":
            obeyed = False
        shown = printable(letter)
        if obeyed:
            assert shown.isascii(), hex(number)
            assert shown.startswith("\\"), hex(number)
        else:
            assert shown == letter or unicodedata.category(letter) in ("Cf", "Cn"), hex(number)


def test_the_summary_table_escapes_names(tmp_path):
    name = f"{CLEAR_SCREEN}\r\nerror: forged\u202e"
    names = dict.fromkeys(("expert", "amateur", "method", "data"), name)
    right = {name: [0, 1, 1, 0]}
    run = write_run(tmp_path / "0", before=right, after=right, answers=False, **names)
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    shown = summary_table(parse_summary(summary))
    assert printable(shown) == shown
    assert "\\x1b[2J" in shown
    assert "\nerror: forged" not in shown
    supervised = summary_table(parse_summary(summary | {"method": None}))
    assert printable(supervised) == supervised
    widths = {len(line) for line in shown.splitlines() if line.startswith(("\\x1b", "---"))}
    assert len(widths) == 2  # of the headline, and of the table's rule and rows


# Secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MY_SECRET", "pgpassword"]
)
def test_the_environments_secrets_are_hidden(monkeypatch, name):
    monkeypatch.setenv(name, PRIVATE)
    assert redact(f"401 for {PRIVATE}: no") == f"401 for {MASK}: no"
    monkeypatch.delenv(name)
    assert redact(PRIVATE) == PRIVATE  # a removed login is not remembered


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("TOKENIZERS_PARALLELISM", "disabled"), ("HF_TOKEN_PATH", "/somewhere/token")),
        *(("KEYBOARD", "lightreasoner"), ("HOME_DIRECTORY", PRIVATE)),
        *(("WANDB_API_KEY", "short"), ("SSH_KEY", sys.executable)),  # too short; a file
    ],
)
def test_other_values_are_not_hidden(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redact(f"say {value}") == f"say {value}"


def test_a_multiline_key_is_hidden_on_one_line(monkeypatch):
    monkeypatch.setenv("DEPLOY_KEY", f"-----BEGIN-----\n{PRIVATE}\nAbCdEfGhIj\n-----END-----\n")
    assert redact(f"-----BEGIN----- {PRIVATE} AbCdEfGhIj -----END-----").split() == 4 * [MASK]


def test_logins_in_files_are_hidden(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(f"{PRIVATE}\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123456789abc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert redact(f"{PRIVATE} 0123456789abc user") == f"{MASK} {MASK} user"
    (tmp_path / "token").write_text("another-token-than-before\n")
    assert redact("another-token-than-before") == MASK


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"machine", b"", None])
def test_unreadable_login_files_are_ignored(monkeypatch, tmp_path, content):
    path = tmp_path / "logins"
    path.mkdir() if content is None else path.write_bytes(content)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(path))
    assert redact("plain") == "plain"
    if content is None:
        assert known_secrets() == set()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/x", "https://***@host/x"),
        ("git+https://abc123@host", "git+https://***@host"),
        ("https://u:p@ss@host/a@b", "https://***@host/a@b"),
        ("see https://host/a?token=abc&n=1", "see https://host/a?token=***&n=1"),
        ("https://host/a?n=1&api_key=abc", "https://host/a?n=1&api_key=***"),
        (f"token {TOKEN_FORM}.", "token ***."),
        ("wandb_v1_" + 30 * "x", "***"),
        ("https://host/a@b and me@host", "https://host/a@b and me@host"),
        ("hf_model", "hf_model"),
        ("commit 0123456789abcdef0123456789abcdef01234567", None),
    ],
)
def test_logins_and_keys_are_recognized_by_their_format(text, shown):
    assert redact(text) == (shown or text)
    assert redact(redact(text)) == redact(text)


def test_redacting_long_text_takes_linear_time(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PRIVATE)
    for text in (400_000 * "a", 200_000 * "a.", 100_000 * "a://", 100_000 * "?key=", 400_000 * "@"):
        redact(text)  # a quadratic pattern would take hours


def test_no_log_record_has_a_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PRIVATE)
    before, stream, log = logging.getLogRecordFactory(), io.StringIO(), logging.getLogger("hostile")
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    log.propagate = False
    try:
        errors.guard_logging()
        log.warning("sent %s to %s", PRIVATE, CLEAR_SCREEN)
        log.error("failed with %d%%", 100, exc_info=ValueError(PRIVATE))
    finally:
        logging.setLogRecordFactory(before)
        log.removeHandler(handler)
    said = stream.getvalue()
    assert PRIVATE not in said
    assert said.startswith(f"sent {MASK} to \\x1b[2J")
    assert f"failed with 100%\nValueError: {MASK}" in said
    assert printable(said) == said


def test_a_failing_cell_prints_no_secret(program, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PRIVATE)

    def broken(*_, **__):
        raise RuntimeError(f"401 for {PRIVATE} {CLEAR_SCREEN}")

    monkeypatch.setattr("lr_exp.pipeline.run.run", broken)
    outcome = program("experiment=demo", "seed=0,1", flags=["-m"])
    assert outcome.status == 1
    assert outcome.err.count(f"401 for {MASK} \\x1b[2J") >= 2
    assert PRIVATE not in outcome.out + outcome.err
    assert printable(outcome.err) == outcome.err
    failed = list(tmp_path.rglob("failed.json"))
    assert len(failed) == 2
    assert json.loads(failed[0].read_text("utf-8"))["error"].startswith(f"401 for {MASK}")
    assert PRIVATE not in everything_below(tmp_path)


FAULT = """
import logging, os, runpy, sys, types

def run(*_):
    log = logging.getLogger("lr_exp.fault")
    key = os.environ["WANDB_API_KEY"]
    log.warning("about to fail with %s", key)
    try:
        raise ValueError(key)
    except ValueError as error:
        log.exception("it did")
        raise RuntimeError("401 for " + key + " \\x1b[2J") from error

sys.modules["lr_exp.pipeline.run"] = types.SimpleNamespace(run=run)
sys.argv = ["lr_exp", *sys.argv[1:]]
runpy.run_module("lr_exp", run_name="__main__")
"""


@pytest.mark.integration
def test_tracebacks_and_log_files_have_no_secret(tmp_path):
    """In a new process, where Python prints the traceback, with a log file configured by Hydra."""
    folder = tmp_path / "run"
    words = [f"hydra.run.dir={folder}", "experiment=demo", "hydra/job_logging=default"]
    keys = {"WANDB_API_KEY": PRIVATE, "HYDRA_FULL_ERROR": "0"}
    done = run_python("-c", FAULT, *words, cwd=tmp_path, **keys)
    assert done.returncode == 1, done.stderr
    assert f"RuntimeError: 401 for {MASK} \\x1b[2J" in done.stderr
    assert "Traceback" in done.stderr
    (log,) = folder.glob("*.log")
    said = log.read_text("utf-8")
    assert f"about to fail with {MASK}" in said
    assert f"ValueError: {MASK}" in said
    assert PRIVATE not in done.stdout + done.stderr + everything_below(tmp_path)


# Code ------------------------------------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_run_is_not_started_from_a_pickle(program, tmp_path):
    """Hydra would load it; its parser also accepts abbreviated flags."""
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    outcome = program(flags=["--experimental-re", str(tmp_path / "config.pickle")])
    assert "reads a pickle" in outcome.error
    assert [path.name for path in tmp_path.iterdir()] == ["config.pickle"]
    pickle.loads((tmp_path / "config.pickle").read_bytes())  # noqa: S301
    assert (tmp_path / "marker").exists()


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["qwen2", "of_its_own"])
def test_a_models_own_code_is_not_run(program, tmp_path, kind):
    """A config may name Python files in its folder, even for a known architecture."""
    folder, marker = tiny_model(tmp_path), tmp_path / "marker"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n", "utf-8")
    for name, classes in (
        ("config.json", {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "own.Tokenizer"]}),
    ):
        config = json.loads((folder / name).read_text("utf-8")) | {"auto_map": classes}
        if name == "config.json":
            config["model_type"] = kind
        (folder / name).write_text(json.dumps(config), "utf-8")
    words = ("amateur=early_exit", "amateur.drop_layers=[1]", f"expert.path={folder}")
    outcome = program(*SHORT, *words)
    if kind == "qwen2":  # the library's class is used
        assert outcome.status == 0, outcome.err
    else:
        assert "cannot be loaded" in outcome.error
    assert not marker.exists()


@pytest.fixture(scope="module")
def stopped_training(tmp_path_factory):
    """The folder of a killed training, with a checkpoint at optimizer step 4."""
    folder = tmp_path_factory.mktemp("stopped") / "address.part"
    with pytest.raises(KilledError):
        train(folder, on_log=stop_at(5))
    return folder


@pytest.mark.integration
def test_code_in_a_checkpoint_is_not_run(stopped_training, tmp_path):
    """It is pickled; only tensors and numbers are read from it."""
    folder, marker = tmp_path / "address.part", tmp_path / "marker"
    shutil.copytree(stopped_training, folder)
    checkpoint = folder / "checkpoint.pt"
    torch.save(Bomb(marker), checkpoint)
    with pytest.raises(UserError, match="delete it to train from the start"):
        train(folder)
    assert not marker.exists()
    torch.load(checkpoint, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('pathlib').Path('marker').touch()",
        "\\mathrm{__import__('pathlib').Path('marker').touch()}",
        *("open('marker','w')", "\\operatorname{open}('marker','w')"),
        *("3 + open('marker','w').write('x')", "eval(\"open('marker','w')\")"),
        *("\\{open('marker','w'), 3\\}", "x = open('marker','w')"),
        "(lambda: open('marker','w'))()",
    ],
)
def test_an_answer_is_never_executed(tmp_path, monkeypatch, answer):
    monkeypatch.chdir(tmp_path)
    for output in (f"\\boxed{{{answer}}}", f"The answer is {answer}", answer):
        assert grade_answer(output, "\\frac{3}{x}", "math").correct is False
        grade_answer("\\boxed{\\frac{3}{x}}", answer, "math")  # as a reference
        assert list(tmp_path.iterdir()) == []


# What could execute a module's input: calls, imports, keyword arguments.
_UNSAFE = (
    r"(?<![\w.])(?:eval|exec|compile|__import__|instantiate)\("
    r"|\bos\.(?:system|popen)\(|\bimportlib\.import_module\(|\brun(?:py\.run)?_(?:module|path)\("
    r"|\byaml\.(?:load|unsafe_load|full_load|load_all)\(|\bhydra\.utils\.\w+\("
    r"|\bread_pickle\(|\btorch\.hub\.load\(|\btorch\.load\((?![^)]*weights_only=True)"
    r"|^\s*(?:import|from)\b.*\b(?:pickle|marshal|shelve|dill|cloudpickle|joblib|jsonpickle)\b"
    r"|^from hydra\.utils import .*"
    r"|\b(?:weights_only|use_safetensors)=False\b|\b(?:allow_pickle|shell|trust_remote_code)=True\b"
)


def unsafe(source):
    return re.findall(_UNSAFE, source, re.MULTILINE)


UNSAFE = """
eval('1')
x = __import__(name)
import pickle
import numpy, joblib.externals
from dill import loads
from hydra.utils import instantiate
torch.load(path)
load(path, weights_only=False)
load(path, trust_remote_code=True)
np.load(path, allow_pickle=True)
yaml.load(text, Loader=yaml.Loader)
subprocess.run(word, shell=True)
os.system(word)
importlib.import_module(name)
"""


def test_no_module_has_unsafe_code():
    modules = [*ROOT.glob("lr_exp/**/*.py"), *ROOT.glob("bench/**/*.py")]
    assert len(modules) > 70
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text("utf-8")) for path in modules}
    # Imports the built-in choices and the module that the user names: see SECURITY.md.
    allowed = found.pop("lr_exp/pipeline/method.py")
    assert set(allowed) == {"importlib.import_module("}
    assert {path: lines for path, lines in found.items() if lines} == {}
    for line in UNSAFE.split("\n")[1:-1]:
        assert len(unsafe(line)) == 1, line
    assert unsafe("torch.load(path, weights_only=True); model.eval(); re.compile('a')") == []


# Files and reports -----------------------------------------------------------------------------

NAMES = ["../../../outside", "/outside", "-rf", "..", "a\x00b", "~/x", "a\nb", "$(touch x)"]


@pytest.mark.parametrize("name", [*NAMES, CLEAR_SCREEN], ids=ascii)
def test_a_cells_folder_is_a_single_path_component(name):
    for overrides in ([f"expert.path={name}"], [f"+data.name={name}", "seed=0"]):
        folder = cell_folder(overrides)
        assert Path(folder).name == folder
        assert folder not in (".", "..")
        assert not folder.startswith("-")
        assert printable(folder) == folder


@pytest.mark.integration
def test_a_run_with_hostile_names_writes_only_to_its_folder_and_store(program, tmp_path):
    question = {"question": f"{CLEAR_SCREEN}../../x\u202e How many is 1 + 1?", "answer": "2"}
    path = write_lines(tmp_path / "in" / "-q=..;rm.jsonl", [question])
    before = set(os.listdir(tmp_path.parent))
    outcome = program(
        "experiment=demo",
        "benchmarks=[micro_add]",
        "evaluator.max_examples=2",
        "beta=0",
        "data=jsonl",
        f"data.path='{path}'",
        "data.name='../../../outside'",
        *(f"expert.name='../{CLEAR_SCREEN}/outside'", f"amateur.name='{300 * 'y'}'"),
        "sampler.max_new_tokens=4",
        "evaluator.max_new_tokens=4",
        "distiller.steps=2",
        "distiller.batch_size=2",
    )
    assert set(os.listdir(tmp_path.parent)) == before
    assert {below.name for below in tmp_path.iterdir()} == {"in", "run", "store"}
    assert [below.name for below in (tmp_path / "in").iterdir()] == [path.name]
    made = [below.relative_to(tmp_path) for below in tmp_path.rglob("*")]
    assert not [below for below in made if "outside" in str(below) or "yyy" in str(below)]
    assert "\x1b" not in outcome.out + outcome.err
    assert "../\\x1b[2J" in outcome.out
    assert summary_of(outcome)["expert"].startswith("../")


NASTY = (
    "=cmd|' /C calc'!A1 <img src=x onerror=alert(1)> &amp; [a](javascript:b) ![i](http://b) `c` "
    "$x_1$ 100% \\input{/etc/passwd} \\write18{ls} ^^5c @b #c"
)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    """A report on runs with hostile names: its folder and its terminal output."""
    place = tmp_path_factory.mktemp("hostile")
    runs, out = place / "in" / "runs", place / "in" / "report"
    right = {f"../../../outside{i}": [0, 1, 1, 0] for i in range(3)}
    sweep = NASTY + CLEAR_SCREEN + "\u202e\n# forged"
    names = dict.fromkeys(("expert", "amateur", "data"), NASTY + CLEAR_SCREEN)
    results = {"before": right, "after": right, "answers": False, **names}
    for number, (method, of) in enumerate(
        [(NASTY, None), ("x", None), (NASTY, sweep), ("x", sweep), ("x", "../../../outside")]
    ):
        write_run(runs / f"{number}", method=method, sweep=of, **results)
    write_failed(runs / "9", sweep, method=sweep, sweep=sweep, **names)
    shown = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
        # Names of this length leave no room for the figure.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        assert report([str(runs), "--out", str(out)]) == 0
    assert [path.name for path in place.iterdir()] == ["in"]
    assert sorted(path.name for path in (place / "in").iterdir()) == ["report", "runs"]
    return out, shown.getvalue()


def test_a_report_is_plain_files_in_its_folder(hostile_report):
    folder, shown = hostile_report
    for path in folder.iterdir():
        assert path.is_file()
        assert path.name.replace("_", "").replace(".", "").replace("-", "").isalnum()
        assert path.name.isascii()
    assert printable(shown) == shown
    assert "cmd|" in shown


def test_a_reports_csv_has_no_formula(hostile_report):
    folder, _ = hostile_report
    cells = []
    for path in folder.glob("*.csv"):
        text = path.read_text("utf-8")
        assert printable(text) == text
        for row in csv.reader(io.StringIO(text)):
            cells += row
    assert any(cell.startswith("'=cmd") for cell in cells)
    for cell in cells:
        with contextlib.suppress(ValueError):
            float(cell)  # a negative number
            continue
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


def test_a_reports_page_and_latex_show_names_as_text(hostile_report):
    folder, _ = hostile_report
    page = Page((folder / "report.html").read_text("utf-8"))
    assert printable(page.source) == page.source
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "<img" in page.words
    linked = {link["href"] or "" for link in page.all("a")}
    assert {one for one in linked if one[0] != "#"} <= {path.name for path in folder.iterdir()}
    for path in folder.glob("*.tex"):
        latex = path.read_text("utf-8")
        assert "\\input{" not in latex.replace("\\textbackslash{}input", "")
        assert "\\write18" not in latex
        assert "^^" not in latex
        assert latex.isascii()


def test_a_reports_figures_are_whole_xml_without_markup_from_names(hostile_report):
    folder, _ = hostile_report
    figures = list(folder.glob("*.svg"))
    assert figures
    for path in figures:
        root = ET.fromstring(path.read_bytes())  # noqa: S314
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"img", "script", "image", "foreignObject", "a"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", " =", "\uff1d"])
def test_no_cell_of_a_csv_is_a_formula(start):
    table = Table("t", "T", [], [], [{"variant": f"{start}cmd", "gain": -1.5}])
    _, (cell, number) = csv.reader(io.StringIO(csv_text(table)))
    assert cell.startswith("'")
    assert number == "-1.5"


def test_an_unpaired_surrogate_is_escaped_in_files():
    """UTF-8 cannot encode it, so the file could not be written."""
    latex_table(Table("t", "T", [Column("a\ud800b")], [["a\ud800b"]], [])).encode()
    assert one_line("a\ud800b") == r"a\ud800b"


@pytest.mark.parametrize("name", ["../../../../outside/answers", "/outside", "../tuned/x", ".x"])
def test_a_summary_cannot_make_a_report_read_other_files(tmp_path, name):
    folder = write_run(tmp_path / "run", before={name: [1, 0]}, after={name: [1, 1]}, answers=False)
    (run,) = find_runs(folder).runs
    for who in ("expert", "tuned"):
        with pytest.raises(AnswersMissingError, match="is not a valid benchmark name"):
            run.answers(who, name)

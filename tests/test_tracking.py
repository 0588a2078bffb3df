"""The file always has all metrics; no W&B failure stops a run; tables are complete."""

import json
import logging
import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from lr_exp.config.settings import WandbSettings
from lr_exp.report.read.summary import EvaluateSummary, Result
from lr_exp.store.run_folder import METRICS, answers_file
from lr_exp.tracking import RunIdentity, Tracker, log_results
from lr_exp.tracking.wandb_sink import Sink
from tests.support.files import write_lines


class FakeRun:
    """Replaces `wandb.Run` and keeps what was logged."""

    starting_step, resumed = 0, False

    def __init__(self, folder):
        self.logged, self.exit_code, self.summary = [], None, {}
        self.fails = False
        self.dir, self.url = f"{folder}/wandb/offline-run-1/files", "https://api.wandb.ai/a/b"

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        if self.fails:
            raise ConnectionError("the service is down")
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def service(monkeypatch, tmp_path):
    """A fake `wandb` module; `calls` has the arguments of each init."""
    module = SimpleNamespace(calls=[], run=FakeRun(tmp_path), refuses=(), has_login=False)
    module.Settings = lambda **settings: settings
    module.teardown = lambda: None
    session = SimpleNamespace(settings=SimpleNamespace(base_url="https://example.org"))
    module.setup = lambda _: session

    def login(*, prompt, verify):
        assert not prompt
        assert not verify  # contacts the service
        return module.has_login

    def init(**kwargs):
        module.calls.append(kwargs)
        if kwargs["mode"] in module.refuses:
            raise RuntimeError("the disk is full")
        return module.run

    module.login, module.init = login, init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def lines(folder):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    text = (folder / METRICS).read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def until(condition):
    """Waits until another thread has made the condition true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def tracker(folder, mode="auto", **settings):
    cell = RunIdentity("id", "a name", "sample")
    return Tracker(folder, WandbSettings(mode=mode, **settings), {"alpha": 0.2}, cell)


def test_disabled_never_imports_wandb_and_writes_every_line_immediately(tmp_path, monkeypatch):
    """A killed run lost the buffered metrics; two runs in one folder were mixed."""
    monkeypatch.setitem(sys.modules, "wandb", None)  # any import of it would raise
    (tmp_path / METRICS).write_text("of an earlier run\n")
    with tracker(tmp_path, "disabled") as sink:
        sink.log("distill", 3, {"loss": 0.5})
        assert lines(tmp_path) == [{"family": "distill", "step": 3, "loss": 0.5}]
        sink.wandb.table("t", ["a"], lambda: [[1]])
        sink.wandb.summarize({"x": 1})
        assert type(sink.wandb) is Sink


class Broken:
    """Finds a wandb that cannot be imported."""

    def find_spec(self, name, *_):
        if name == "wandb":
            raise TypeError("Descriptors cannot be created directly")


@pytest.mark.parametrize(
    ("state", "mode", "warns"),
    [
        *(("absent", "auto", ""), ("absent", "online", "pip install wandb")),
        ("broken", "auto", "Descriptors"),  # with the wrong protobuf version
        ("cannot start", "online", "the disk is full"),
    ],
)
def test_without_wandb_there_is_a_file(tmp_path, monkeypatch, service, caplog, state, mode, warns):
    """Of a missing wandb only an explicit mode warns."""
    service.refuses = ("online", "offline")
    if state == "absent":
        monkeypatch.setitem(sys.modules, "wandb", None)
    elif state == "broken":
        monkeypatch.delitem(sys.modules, "wandb")
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with tracker(tmp_path, mode) as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert getattr(sink.wandb, "_failed", True)
    assert len(lines(tmp_path)) == 1
    assert warns in caplog.text
    assert warns or caplog.records == []


def test_numbers_that_are_not_finite_become_null(tmp_path, service):
    """Only Python's JSON reader accepts `NaN`; W&B gets finite numbers only."""
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": float("nan"), "grad": float("inf"), "rate": 1e-5})
    (line,) = lines(tmp_path)
    assert line == {"family": "distill", "step": 1, "loss": None, "grad": None, "rate": 1e-5}
    assert service.run.logged == [{"distill/step": 1, "distill/rate": 1e-5}]


def test_control_characters_in_tables_are_escaped(tmp_path, service):
    service.Table = lambda columns, data: (columns, data)
    with tracker(tmp_path) as sink:
        rows = [["a\x1b[31m\u202eb\n", 0.5], [None, 1]]
        sink.wandb.table("t", ["prefix", "kl"], lambda: rows)
    shown = ["prefix", "kl"], [["a\\x1b[31m\\u202eb\n", 0.5], [None, 1]]
    assert service.run.logged == [{"t": shown}]


@pytest.mark.parametrize(
    ("setting", "variable", "has_login", "used"),
    [
        ("auto", None, False, "offline"),
        ("auto", None, True, "online"),
        ("auto", "offline", True, "offline"),
        ("auto", "disabled", True, None),
        ("online", "offline", True, "online"),
        ("online", None, False, "offline"),
        ("offline", None, True, "offline"),
        ("offline", "disabled", True, "offline"),
    ],
)
def test_mode_variable_and_login_decide_whether_a_run_is_online(
    tmp_path, monkeypatch, service, caplog, setting, variable, has_login, used
):
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    service.has_login = has_login
    tracker(tmp_path, setting).close()
    assert [call["mode"] for call in service.calls] == ([used] if used else [])
    lacks_login = setting == "online" and not has_login
    assert ("there is no login (`wandb login`)" in caplog.text) is lacks_login


def test_variables_of_wandb_apply_where_no_setting_does(tmp_path, monkeypatch, service):
    tracker(tmp_path).close()
    for name, value in (("PROJECT", "p"), ("NAME", "n"), ("DIR", tmp_path / "d")):
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    tracker(tmp_path).close()
    given = {"project": "P", "name": "N", "entity": "E", "group": "G", "tags": ["t"], "notes": "A"}
    tracker(tmp_path, **given).close()
    names = ("project", "name", "dir", "entity", "group", "tags", "notes", "id")
    default, variables, settings = ([call[name] for name in names] for call in service.calls)
    assert default == ["lr_exp", "a name", str(tmp_path), None, None, None, None, "id"]
    # None: W&B reads its own variables.
    assert variables == ["p", "n", str(tmp_path / "d"), None, None, None, None, "id"]
    assert settings == ["P", "N", str(tmp_path / "d"), "E", "G", ["t"], "A", "id"]


def test_the_agent_of_a_wandb_sweep_owns_the_runs_id(tmp_path, monkeypatch, service):
    """It has created the run in W&B before it starts the program."""
    tracker(tmp_path).close()
    monkeypatch.setenv("WANDB_SWEEP_ID", "a_sweep")
    tracker(tmp_path).close()
    plain, of_agent = service.calls
    assert plain.keys() - of_agent.keys() == {"id", "resume"}


def test_a_service_that_does_not_respond_turns_the_run_offline(tmp_path, service, caplog):
    service.has_login, service.refuses = True, ("online",)
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert [(call["mode"], call["resume"]) for call in service.calls] == [
        ("online", "allow"),
        ("offline", "never"),
    ]
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == (
        "W&B: recorded offline, because the run could not be started at "
        "https://example.org (the disk is full). "
        f"Upload: `wandb sync {tmp_path}/wandb/offline-run-1`"
    )


def test_no_call_waits_for_wandb(tmp_path, service):
    """The run continues while W&B starts or stalls, and its calls are queued."""
    resume = threading.Event()
    service.run.define_metric = lambda *_, **__: resume.wait(30)
    began = time.monotonic()
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        headlines = {"x": 1}
        sink.wandb.summarize(headlines)
        assert time.monotonic() - began < 10
        assert service.run.logged == []
        resume.set()
        headlines.clear()
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]
    assert service.run.summary == {"x": 1}


def test_a_wandb_that_fails_midway_is_reported_once_and_turned_off(tmp_path, service, caplog):
    with caplog.at_level(logging.WARNING), tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        until(lambda: service.run.logged)
        service.run.fails = True
        sink.log("distill", 2, {"loss": 0.4})
        sink.log("distill", 3, {"loss": 0.3})
        sink.wandb.summarize({"x": 1})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert service.run.exit_code == 0  # the run on disk is still finished
    assert [record.getMessage() for record in caplog.records] == [
        f"W&B logging failed (the service is down) and is now off; {METRICS} has all metrics"
    ]


def test_a_failed_run_is_closed_as_failed(tmp_path, service):
    with pytest.raises(RuntimeError), tracker(tmp_path):
        raise RuntimeError("out of memory")
    assert service.run.exit_code == 1


def write_answers(folder, who, *answers):
    """Graded answers of a run: (output, whether it is correct)."""
    same = {"reference": "\x1b[31m", "kind": "math", "tokens": 1, "extracted": None, "rule": None}
    lines = [
        same
        | {"id": f"q{number}", "question": f"{number}?", "finished": number != 2}
        | {"output": output, "correct": correct}
        for number, (output, correct) in enumerate(answers)
    ]
    write_lines(folder / answers_file(who, "gsm8k", None), lines)


EVALUATED = EvaluateSummary(
    expert={"gsm8k": Result(accuracy=0.5, correct=2, total=4)},
    tuned={"gsm8k": Result(accuracy=0.5, correct=2, total=4)},
)


def test_a_table_shows_answers_as_text_and_changed_ones_first(tmp_path, monkeypatch, service):
    """Bounded: a table of all answers has megabytes, and W&B shows 10,000 rows."""
    service.Table = lambda columns, data: [dict(zip(columns, row, strict=True)) for row in data]
    monkeypatch.setattr(log_results, "_MAX_QUESTIONS", 3)
    html, code = "<script>alert(1)</script>", "a\x1b[31m\u202eb"
    write_answers(tmp_path, "expert", ("4", True), ("4", True), (html, False), ("1", False))
    write_answers(tmp_path, "tuned", ("4", True), ("5", False), (code, False), ("x" * 9000, True))
    with tracker(tmp_path) as sink:
        log_results.log_evaluation(sink, EVALUATED, tmp_path)
    _, logged = service.run.logged
    lost, won, same = logged["eval/answers"]  # and not the last
    assert [lost["id"], won["id"], same["id"]] == ["q1", "q3", "q0"]
    assert lost == {
        **{"benchmark": "gsm8k", "id": "q1", "question": "1?", "reference": "\\x1b[31m"},
        **{"output before": "4", "output after": "5", "correct before": True},
        **{"correct after": False, "finished before": True, "finished after": True},
    }
    assert len(won["output after"]) == 2000
    monkeypatch.setattr(log_results, "_MAX_QUESTIONS", 4)
    with tracker(tmp_path) as sink:
        log_results.log_evaluation(sink, EVALUATED, tmp_path)
    *_, wrong = service.run.logged[-1]["eval/answers"]
    assert (wrong["output before"], wrong["output after"]) == (html, "a\\x1b[31m\\u202eb")
    assert not wrong["finished before"]


def test_without_artifacts_no_answers_are_sent(tmp_path, service):
    service.Table = lambda columns, data: data
    with tracker(tmp_path, artifacts=False) as sink:
        log_results.log_evaluation(sink, EVALUATED, tmp_path)  # there are no answers to read
    (logged,) = service.run.logged
    assert logged.keys() == {"eval/before_after"}

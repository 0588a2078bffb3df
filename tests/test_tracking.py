"""Sinks: the file always has every number; no trouble of a service ends or hides a run."""

import json
import logging
import sys
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

from lr_exp.config.settings import WandbSettings
from lr_exp.store.run_folder import METRICS
from lr_exp.tracking import Tracker, recorder


class FakeRun:
    """Stands for `wandb.Run`; keeps what it was given."""

    def __init__(self):
        self.logged, self.exit_code, self.summary = [], None, {}
        self.fails = False
        self.settings = SimpleNamespace(sync_file="wandb/offline-run-1/run-1.wandb")

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        if self.fails:
            raise ConnectionError("the service is away")
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


class FakeUploader:
    """Stands for the process that sends; `uploads` has the addresses, `ended` the runs' seconds."""

    uploads: ClassVar[list[str]] = []
    ended: ClassVar[list[float]] = []

    def __init__(self, record, base_url):
        assert record.suffix == ".wandb"
        self.uploads.append(base_url)

    def finish(self, seconds):
        self.ended.append(seconds)


@pytest.fixture
def service(monkeypatch):
    """A fake `wandb` module; `calls` has the arguments of each init, `uploads` what is sent."""
    monkeypatch.setattr(FakeUploader, "uploads", [])
    monkeypatch.setattr(FakeUploader, "ended", [])
    monkeypatch.setattr(recorder, "Uploader", FakeUploader)
    module = SimpleNamespace(calls=[], run=FakeRun(), refuses=(), Settings=lambda **kw: kw)
    module.uploads, module.ended = FakeUploader.uploads, FakeUploader.ended
    module.base_url = "https://api.wandb.ai"
    module.of_the_process = []

    def setup(settings):
        module.of_the_process.append(settings)
        return SimpleNamespace(settings=SimpleNamespace(base_url=module.base_url))

    def init(**kwargs):
        module.calls.append(kwargs)
        if kwargs["mode"] in module.refuses:
            raise RuntimeError("the disk is full")
        return module.run

    def too_many_bins(np_histogram):
        raise ValueError("Maximum number of bins")

    module.setup = setup
    module.init = init
    module.Histogram = too_many_bins
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture(autouse=True)
def _no_login(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def lines(folder):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    text = (folder / METRICS).read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def until(condition):
    """Waits for what another thread does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def tracker(folder, mode="auto", **settings):
    return Tracker(folder, WandbSettings(mode=mode, **settings), {"alpha": 0.2})


def test_disabled_never_imports_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # any import of it would raise
    with tracker(tmp_path, "disabled") as sink:
        sink.log("distill", 3, {"loss": 0.5})
        sink.histogram("kl", [1], [0, 1])
        sink.table("t", ["a"], [[1]])
        sink.summarize({"x": 1})
        assert not sink.has_service
    assert lines(tmp_path) == [{"family": "distill", "step": 3, "loss": 0.5}]


def test_the_environment_disables_auto_but_not_an_explicit_mode(tmp_path, monkeypatch, service):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker(tmp_path).close()
    assert service.calls == []
    tracker(tmp_path, "offline").close()
    assert len(service.calls) == 1


def test_without_wandb_the_file_is_written_and_only_an_asked_for_service_is_missed(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracker(tmp_path) as sink:
        sink.log("sample", 0, {"kept": 2})
    assert caplog.records == []
    tracker(tmp_path, "online").close()
    assert "pip install wandb" in caplog.text


def test_numbers_that_are_not_finite_become_null(tmp_path, service):
    """`NaN` in a line makes it no JSON for any reader but Python's; W&B gets only real numbers."""
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": float("nan"), "grad": float("inf"), "rate": 1e-5})
    assert lines(tmp_path) == [
        {"family": "distill", "step": 1, "loss": None, "grad": None, "rate": 1e-5}
    ]
    assert service.run.logged == [{"distill/step": 1, "distill/rate": 1e-5}]


def test_texts_of_a_table_are_not_obeyed_by_a_terminal(tmp_path, service):
    service.Table = lambda columns, data: (columns, data)
    with tracker(tmp_path) as sink:
        sink.table("sample/kept_steps", ["prefix", "kl"], [["a\x1b[31m\u202eb\n", 0.5], [None, 1]])
    ((told, data),) = (one["sample/kept_steps"] for one in service.run.logged)
    assert told == ["prefix", "kl"]
    assert data == [["a\\x1b[31m\\u202eb\n", 0.5], [None, 1]]


def test_a_folder_used_again_does_not_mix_two_runs(tmp_path):
    for step in (1, 2):
        with tracker(tmp_path, "disabled") as sink:
            sink.log("distill", step, {"loss": 0.5})
    assert [line["step"] for line in lines(tmp_path)] == [2]


def test_every_line_is_on_disk_at_once(tmp_path):
    """A killed run lost the buffered metrics."""
    sink = tracker(tmp_path, "disabled")
    sink.log("distill", 1, {"loss": 0.5})
    assert len(lines(tmp_path)) == 1
    sink.close()


def test_auto_is_offline_without_a_login(tmp_path, service, monkeypatch):
    def prompt(*_, **__):
        raise AssertionError("asked for a key")

    monkeypatch.setattr("builtins.input", prompt)
    tracker(tmp_path).close()
    assert len(service.calls) == 1
    assert service.uploads == []


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("machine api.wandb.ai login user password k\n", True),
        ("machine wandb.example.org login user password k\n", False),  # another server's key
        ("machine github.com login wandb-user password k\n", False),
        ("machine machine machine", False),  # not in the format
    ],
)
def test_a_login_counts_for_its_own_server(tmp_path, service, text, sent):
    """A key of another server counted as a login, and the run stopped to ask for one."""
    (tmp_path / "netrc").write_text(text)
    tracker(tmp_path).close()
    assert bool(service.uploads) is sent


def test_a_server_of_ones_own_is_the_one_that_wandb_was_told(tmp_path, service):
    """`wandb login --host` keeps the address in a settings file, which only wandb reads."""
    service.base_url = "https://wandb.example.org"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password k\n")
    tracker(tmp_path).close()
    assert service.uploads == ["https://wandb.example.org"]


def test_a_key_in_the_environment_is_a_login(tmp_path, service, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker(tmp_path).close()
    assert len(service.uploads) == 1


@pytest.mark.parametrize("source", ["settings", "environment"])
def test_offline_sends_nothing_in_spite_of_a_login(tmp_path, service, monkeypatch, source):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    if source == "environment":
        monkeypatch.setenv("WANDB_MODE", "offline")
    tracker(tmp_path, "offline" if source == "settings" else "auto").close()
    assert len(service.calls) == 1
    assert service.uploads == []


def test_online_without_a_login_goes_on_offline_instead_of_prompting(tmp_path, service, caplog):
    tracker(tmp_path, "online").close()
    assert len(service.calls) == 1
    assert service.uploads == []
    assert "there is no login" in caplog.text


def test_the_process_of_the_run_never_speaks_to_the_service(tmp_path, service, monkeypatch):
    """Online, W&B waits for the service at the start, at the end and at the interpreter's exit;
    the last of them also for a run that is offline in a process that is not."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with tracker(tmp_path, "online") as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert [call["mode"] for call in service.calls] == ["offline"]
    assert [settings["mode"] for settings in service.of_the_process] == ["offline"]
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]


def test_no_call_waits_for_wandb(tmp_path, service):
    """W&B's own process starts, or stalls, while the run goes on; what is said meanwhile counts."""
    go_on = threading.Event()
    define_metric = service.run.define_metric
    service.run.define_metric = lambda *a, **k: (go_on.wait(30), define_metric(*a, **k))
    began = time.monotonic()
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        headlines = {"x": 1}
        sink.summarize(headlines)
        assert sink.has_service
        assert time.monotonic() - began < 10
        assert service.run.logged == []
        go_on.set()
        headlines.clear()
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]
    assert service.run.summary == {"x": 1}


def test_a_process_of_wandb_that_hangs_is_left_at_the_end(tmp_path, service, monkeypatch, caplog):
    monkeypatch.setattr(recorder, "LOCAL_SECONDS", 0.2)
    killed = []
    monkeypatch.setattr(recorder.Recorder, "_kill_wandb_core", lambda self: killed.append(self))
    go_on = threading.Event()
    service.run.finish = lambda exit_code: go_on.wait(30)
    began = time.monotonic()
    tracker(tmp_path).close()
    assert time.monotonic() - began < 10
    assert "hangs" in caplog.text
    assert len(killed) == 1
    go_on.set()


def test_the_sending_learns_how_long_the_run_took(tmp_path, service, monkeypatch):
    """What it may wait at the end is a share of it."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    began = time.monotonic()
    with tracker(tmp_path):
        time.sleep(0.2)
    (seconds,) = service.ended
    assert 0.2 <= seconds <= time.monotonic() - began


def test_a_wandb_that_cannot_start_leaves_the_file(tmp_path, service, caplog):
    service.refuses = ("offline",)
    with tracker(tmp_path, "online") as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert not sink.has_service
    assert len(lines(tmp_path)) == 1
    assert "the disk is full" in caplog.text


def test_a_broken_installation_of_wandb_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    """A protobuf of the wrong version makes `import wandb` raise a TypeError."""

    class Broken:
        def find_spec(self, name, *_):
            if name == "wandb":
                raise TypeError("Descriptors cannot be created directly")

    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert len(lines(tmp_path)) == 1
    assert "Descriptors" in caplog.text


def test_a_service_that_fails_midway_is_named_once_and_left(tmp_path, service, caplog):
    with caplog.at_level(logging.WARNING), tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        until(lambda: service.run.logged)
        service.run.fails = True
        sink.log("distill", 2, {"loss": 0.4})
        sink.log("distill", 3, {"loss": 0.3})
        sink.summarize({"x": 1})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert service.run.exit_code == 0  # what came before is ended in order
    assert [record.getMessage() for record in caplog.records] == [
        f"W&B stopped taking metrics (the service is away); they go on in {METRICS}"
    ]


def test_a_picture_that_the_service_refuses_does_not_end_the_run(tmp_path, service, caplog):
    """Building the histogram stood outside of what was guarded."""
    with tracker(tmp_path) as sink:
        sink.histogram("sample/kl", [1] * 600, list(range(601)))
    assert "Maximum number of bins" in caplog.text


def test_a_failed_run_is_closed_as_failed(tmp_path, service):
    with pytest.raises(RuntimeError), tracker(tmp_path):
        raise RuntimeError("out of memory")
    assert service.run.exit_code == 1
    other = FakeRun()
    service.run = other
    tracker(tmp_path).close()
    assert other.exit_code == 0


def test_the_real_wandb_offline(tmp_path, monkeypatch):
    """Its own arguments, settings and files: what a fake cannot tell."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    with tracker(tmp_path, "auto", tags=["a"], group="g") as sink:
        assert sink.has_service
        sink.log("distill", 1, {"loss": 0.5})
        sink.histogram("sample/kl", [3, 1], [0.0, 0.1, 0.2])
        sink.table("eval/before_after", ["benchmark", "gain"], [["gsm8k", 0.1]])
        sink.summarize({"eval/gsm8k/tuned": 0.5})
    assert sink.has_service  # none of them was refused
    assert len(lines(tmp_path)) == 1
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))

"""Sinks: the file always has all metrics; no W&B failure stops a run."""

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
from lr_exp.tracking import Tracker, wandb_sink


class FakeRun:
    """Replaces `wandb.Run` and keeps what was logged."""

    def __init__(self):
        self.logged, self.exit_code, self.summary = [], None, {}
        self.fails = False
        self.settings = SimpleNamespace(sync_file="wandb/offline-run-1/run-1.wandb")

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        if self.fails:
            raise ConnectionError("the service is down")
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


class FakeUploader:
    """Replaces the upload process; `uploads` has the URLs, `ended` the durations of the runs."""

    uploads: ClassVar[list[str]] = []
    ended: ClassVar[list[float]] = []

    def __init__(self, record, base_url):
        assert record.suffix == ".wandb"
        self.uploads.append(base_url)

    def finish(self, seconds):
        self.ended.append(seconds)


@pytest.fixture
def service(monkeypatch):
    """A fake `wandb` module; `calls` has the arguments of each init, `uploads` the URLs."""
    monkeypatch.setattr(FakeUploader, "uploads", [])
    monkeypatch.setattr(FakeUploader, "ended", [])
    monkeypatch.setattr(wandb_sink, "Uploader", FakeUploader)
    module = SimpleNamespace(calls=[], run=FakeRun(), refuses=(), Settings=lambda **kw: kw)
    module.uploads, module.ended = FakeUploader.uploads, FakeUploader.ended
    module.base_url = "https://api.wandb.ai"
    module.process_settings = []

    def setup(settings):
        module.process_settings.append(settings)
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
    """Waits until another thread has made the condition true."""
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
        assert not sink.records_media
    assert lines(tmp_path) == [{"family": "distill", "step": 3, "loss": 0.5}]


def test_the_environment_disables_auto_but_not_an_explicit_mode(tmp_path, monkeypatch, service):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker(tmp_path).close()
    assert service.calls == []
    tracker(tmp_path, "offline").close()
    assert len(service.calls) == 1


def test_without_wandb_the_file_is_written_and_only_an_explicit_mode_warns(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracker(tmp_path) as sink:
        sink.log("sample", 0, {"kept": 2})
    assert caplog.records == []
    tracker(tmp_path, "online").close()
    assert "pip install wandb" in caplog.text


def test_numbers_that_are_not_finite_become_null(tmp_path, service):
    """Only Python's JSON reader accepts `NaN`; W&B gets finite numbers only."""
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": float("nan"), "grad": float("inf"), "rate": 1e-5})
    assert lines(tmp_path) == [
        {"family": "distill", "step": 1, "loss": None, "grad": None, "rate": 1e-5}
    ]
    assert service.run.logged == [{"distill/step": 1, "distill/rate": 1e-5}]


def test_control_characters_in_tables_are_escaped(tmp_path, service):
    service.Table = lambda columns, data: (columns, data)
    with tracker(tmp_path) as sink:
        sink.table("sample/kept_steps", ["prefix", "kl"], [["a\x1b[31m\u202eb\n", 0.5], [None, 1]])
    ((columns, data),) = (row["sample/kept_steps"] for row in service.run.logged)
    assert columns == ["prefix", "kl"]
    assert data == [["a\\x1b[31m\\u202eb\n", 0.5], [None, 1]]


def test_a_reused_folder_does_not_mix_two_runs(tmp_path):
    for step in (1, 2):
        with tracker(tmp_path, "disabled") as sink:
            sink.log("distill", step, {"loss": 0.5})
    assert [line["step"] for line in lines(tmp_path)] == [2]


def test_every_line_is_written_immediately(tmp_path):
    """A killed run lost the buffered metrics."""
    sink = tracker(tmp_path, "disabled")
    sink.log("distill", 1, {"loss": 0.5})
    assert len(lines(tmp_path)) == 1
    sink.close()


def test_auto_is_offline_without_a_login(tmp_path, service, monkeypatch):
    def prompt(*_, **__):
        raise AssertionError("prompted for a key")

    monkeypatch.setattr("builtins.input", prompt)
    tracker(tmp_path).close()
    assert len(service.calls) == 1
    assert service.uploads == []


@pytest.mark.parametrize(
    ("text", "uploaded"),
    [
        ("machine api.wandb.ai login user password k\n", True),
        ("machine wandb.example.org login user password k\n", False),  # another server's key
        ("machine github.com login wandb-user password k\n", False),
        ("machine machine machine", False),  # not in netrc format
    ],
)
def test_a_login_is_valid_for_its_own_server_only(tmp_path, service, text, uploaded):
    """A key of another server counted as a login, and W&B then prompted for one."""
    (tmp_path / "netrc").write_text(text)
    tracker(tmp_path).close()
    assert bool(service.uploads) is uploaded


def test_the_server_url_comes_from_wandbs_settings(tmp_path, service):
    """`wandb login --host` writes the URL to a settings file that only wandb reads."""
    service.base_url = "https://wandb.example.org"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password k\n")
    tracker(tmp_path).close()
    assert service.uploads == ["https://wandb.example.org"]


def test_a_key_in_the_environment_is_a_login(tmp_path, service, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker(tmp_path).close()
    assert len(service.uploads) == 1


@pytest.mark.parametrize("source", ["settings", "environment"])
def test_offline_uploads_nothing_despite_a_login(tmp_path, service, monkeypatch, source):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    if source == "environment":
        monkeypatch.setenv("WANDB_MODE", "offline")
    tracker(tmp_path, "offline" if source == "settings" else "auto").close()
    assert len(service.calls) == 1
    assert service.uploads == []


def test_online_without_a_login_records_offline_instead_of_prompting(tmp_path, service, caplog):
    tracker(tmp_path, "online").close()
    assert len(service.calls) == 1
    assert service.uploads == []
    assert "there is no login" in caplog.text


def test_the_run_process_never_contacts_the_service(tmp_path, service, monkeypatch):
    """Online, W&B waits for the service at the start, at the end and at interpreter exit; the last
    even for an offline run, unless the whole process is offline."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with tracker(tmp_path, "online") as sink:
        sink.log("distill", 1, {"loss": 0.5})
    assert [call["mode"] for call in service.calls] == ["offline"]
    assert [settings["mode"] for settings in service.process_settings] == ["offline"]
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]


def test_no_call_waits_for_wandb(tmp_path, service):
    """The run continues while wandb-core starts or stalls, and its calls are queued."""
    resume = threading.Event()
    define_metric = service.run.define_metric
    service.run.define_metric = lambda *a, **k: (resume.wait(30), define_metric(*a, **k))
    began = time.monotonic()
    with tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        headlines = {"x": 1}
        sink.summarize(headlines)
        assert sink.records_media
        assert time.monotonic() - began < 10
        assert service.run.logged == []
        resume.set()
        headlines.clear()
    assert service.run.logged == [{"distill/step": 1, "distill/loss": 0.5}]
    assert service.run.summary == {"x": 1}


def test_a_hanging_wandb_core_is_killed_at_the_end(tmp_path, service, monkeypatch, caplog):
    monkeypatch.setattr(wandb_sink, "FLUSH_TIMEOUT_SECONDS", 0.2)
    killed = []
    monkeypatch.setattr(wandb_sink.WandbSink, "_kill_wandb_core", lambda self: killed.append(self))
    resume = threading.Event()
    service.run.finish = lambda exit_code: resume.wait(30)
    began = time.monotonic()
    tracker(tmp_path).close()
    assert time.monotonic() - began < 10
    assert "hangs" in caplog.text
    assert len(killed) == 1
    resume.set()


def test_the_uploader_gets_the_duration_of_the_run(tmp_path, service, monkeypatch):
    """Its wait at the end is a share of it."""
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
    assert not sink.records_media
    assert len(lines(tmp_path)) == 1
    assert "the disk is full" in caplog.text


def test_a_broken_wandb_installation_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    """With the wrong protobuf version, `import wandb` raises a TypeError."""

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


def test_a_service_that_fails_midway_is_reported_once_and_turned_off(tmp_path, service, caplog):
    with caplog.at_level(logging.WARNING), tracker(tmp_path) as sink:
        sink.log("distill", 1, {"loss": 0.5})
        until(lambda: service.run.logged)
        service.run.fails = True
        sink.log("distill", 2, {"loss": 0.4})
        sink.log("distill", 3, {"loss": 0.3})
        sink.summarize({"x": 1})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert service.run.exit_code == 0  # the run on disk is still finished
    assert [record.getMessage() for record in caplog.records] == [
        f"W&B logging failed (the service is down) and is now off; {METRICS} still gets all metrics"
    ]


def test_an_invalid_histogram_does_not_stop_the_run(tmp_path, service, caplog):
    """The histogram was built outside of the try block."""
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
    """Real arguments, settings and files, which a fake cannot check."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    with tracker(tmp_path, "auto", tags=["a"], group="g") as sink:
        assert sink.records_media
        sink.log("distill", 1, {"loss": 0.5})
        sink.histogram("sample/kl", [3, 1], [0.0, 0.1, 0.2])
        sink.table("eval/before_after", ["benchmark", "gain"], [["gsm8k", 0.1]])
        sink.summarize({"eval/gsm8k/tuned": 0.5})
    assert sink.records_media  # no call failed
    assert len(lines(tmp_path)) == 1
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))

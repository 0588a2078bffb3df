"""A service that is down, slow or fails midway does not delay the run or damage its record.

Each test runs a short program against a fake service on 127.0.0.1 and compares its time with that
of the same program recording offline. The tolerance is a few seconds, since the time to import
wandb varies. A service that never responds may add nothing more, one that fails midway at most
`MIN_WAIT_SECONDS`.
"""

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from lr_exp.store.run_folder import METRICS
from lr_exp.tracking import wandb_uploader
from tests.support.recorded import read_rows

ROWS = 200
JITTER_SECONDS = 3.0  # between two starts of the program on a busy machine

PROGRAM = """
import logging, sys, time
from pathlib import Path
from lr_exp.config.settings import WandbSettings
from lr_exp.store import Recipe, Store
from lr_exp.tracking import Cell, Tracker

def build(place):
    (place / "adapter.bin").write_text("weights")
    return {"kept": 3}

logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
folder, mode, seconds, waits_for = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
store, cell = Store(folder.parent / "store"), Cell("0123456789abcdef", "a cell", "distill")
store.maker = cell.id
with Tracker(folder, WandbSettings(mode=mode), {"alpha": 0.2}, cell) as sink:
    sink.artifact(store.make(Recipe("adapter", 1, {"supervision": "s"}, {}), build))
    for step in range(ROWS):
        sink.log("distill", step, {"loss": 1.0 / (step + 1)})
        time.sleep(seconds / ROWS)
        end = time.monotonic() + 20.0
        while step == ROWS // 2 and waits_for and time.monotonic() < end:
            time.sleep(0.02)
            waits_for = "" if Path(waits_for).exists() else waits_for
    sink.table("eval/before_after", ["benchmark", "gain"], [["gsm8k", 0.1]])
    sink.summarize({"eval/gsm8k/tuned": 0.5})
    (folder / "written").touch()
""".replace("ROWS", str(ROWS))


class Service(ThreadingHTTPServer):
    """The part of W&B that `wandb sync` uses, with several failure modes.

    Modes: `healthy`; `hangs`, `disconnects`, `disconnects in the response` and `fails` (status 500)
    at every request; `hangs midway`, `disconnects midway` and `fails midway` after it has accepted
    the run and some rows.
    """

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.stopped = threading.Event()
        self.rows: dict[int, dict[str, int]] = {}  # by index in the run's history
        self.has_rows: Path | None = None  # created when the first rows arrive
        self.complete = False
        self.runs: set[str] = set()  # their ids
        self.artifacts: list[tuple[str | None, str]] = []  # (id of the run that made it, name)
        self.used: list[tuple[str, str]] = []  # (id of the run that used it, name)
        self.unknown: list[str] = []  # other GraphQL operations

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores the broken connections of killed clients."""


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        mode = self.server.mode.removesuffix(" midway")
        if mode != self.server.mode and not self.server.rows:
            mode = "healthy"
        if mode == "hangs":
            self.server.stopped.wait()
        elif mode == "disconnects in the response":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"data": {')
        elif mode == "fails":
            self._reply(500, {"error": "internal"})
        elif mode == "healthy":
            self._handle(body)
        self.close_connection = True  # `disconnects` does nothing else

    do_GET = do_POST = do_PUT = do_HEAD = _respond  # noqa: N815 - the base class's names

    def _handle(self, body: bytes) -> None:
        if self.path == "/graphql":
            self._reply(200, {"data": self._graphql(json.loads(body))})
        elif self.path.endswith("/file_stream"):
            self._store_rows(json.loads(body))
            self._reply(200, {})
        elif self.path == "/healthz" or self.command == "PUT":
            self._reply(200, {})
        else:
            self._reply(404, {})

    def _store_rows(self, request: dict[str, object]) -> None:
        files = request.get("files") or {}
        history = files.get("wandb-history.jsonl")  # type: ignore[attr-defined]
        if history:
            for index, line in enumerate(history["content"], start=history["offset"]):
                self.server.rows[index] = json.loads(line)
            if self.server.has_rows is not None and not self.server.has_rows.exists():
                self.server.has_rows.touch()
        self.server.complete |= bool(request.get("complete"))

    def _graphql(self, request: dict[str, object]) -> dict[str, object]:
        match = re.search(r"(?:mutation|query)\s+(\w+)", str(request["query"]))
        name = match[1] if match else ""
        variables = request.get("variables") or {}
        assert isinstance(variables, dict)
        if name == "UpsertBucket":
            self.server.runs.add(str(variables.get("name")))
            entity = {"id": "e", "name": "someone"}
            project = {"id": "p", "name": variables.get("project"), "entity": entity}
            bucket = {"id": "b", "name": variables.get("name"), "displayName": "a run"}
            bucket |= {"description": "", "config": "{}", "sweepName": None}
            bucket |= {"project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [
                {"name": file, "uploadUrl": f"{self.server.url}/storage/{file}"}
                for file in variables["files"]
            ]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":  # its files are already committed, so none are uploaded
            new = variables["input"]
            self.server.artifacts.append((new.get("runName"), new["artifactCollectionName"]))
            sequence = {"id": "s", "latestArtifact": None}
            artifact = {"id": new["artifactCollectionName"], "state": "COMMITTED"}
            return {"createArtifact": {"artifact": artifact | {"artifactSequence": sequence}}}
        if name == "UseArtifact":
            self.server.used.append(
                (variables["input"]["runName"], variables["input"]["artifactID"])
            )
            return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        self.server.unknown.append(name)
        return {}

    def _reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps requests out of the test output."""


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    server = Service(request.param)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Run:
    """The result of a finished run of the program."""

    folder: Path
    seconds: float
    seconds_after_rows: float  # from the last row to the exit of the process
    status: int
    output: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("WARNING")]

    @property
    def recorded(self) -> list[int]:
        """Steps in the `.wandb` file."""
        (record,) = self.folder.glob("wandb/offline-run-*/*.wandb")
        rows = read_rows(record)
        items = [row["history"]["item"] for row in rows if row["type"] == "history"]
        return [item["distill/step"] for item in items if "distill/step" in item]

    @property
    def written(self) -> list[int]:
        """Steps in `metrics.jsonl`."""
        text = (self.folder / METRICS).read_text(encoding="utf-8")
        return [json.loads(line)["step"] for line in text.splitlines()]


def left_behind(folder: Path, seconds: float = 2.0) -> list[str]:
    """Names of the run's processes that still exist after so many seconds."""
    end = time.monotonic() + seconds
    while (left := processes(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return [process.name() for process in left]


def processes(folder: Path) -> list[psutil.Process]:
    """Processes of the run in a folder."""
    matches = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LR_EXP_TEST_RUN") == str(folder):
                matches.append(process)
        except psutil.Error:  # it has exited, or belongs to another user
            continue
    return matches


def steps(service: Service) -> list[int]:
    """Steps of the rows that the service received, in its order."""
    rows = [service.rows[index] for index in sorted(service.rows)]
    return [row["distill/step"] for row in rows if "distill/step" in row]


def environment(home: Path, url: str) -> dict[str, str]:
    """Environment variables with a login to the service at `url` only."""
    return {
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "WANDB_API_KEY": "0123456789" * 4,
        "WANDB_BASE_URL": url,
        "WANDB_RESUME": "allow",  # as set in a user's shell; must not reach the upload
        "WANDB_ERROR_REPORTING": "false",
        # Seconds instead of 15, so that rows of a short run are uploaded before it ends.
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
        "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "0.2",
    }


def until(condition: Callable[[], object]) -> None:
    """Waits until another process or thread has made the condition true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def wandb_command(home: Path, url: str, *arguments: str) -> int:
    """Runs the `wandb` command; returns its exit status."""
    variables = environment(home, url)
    del variables["WANDB_RESUME"]  # here it would take effect
    return subprocess.run(  # noqa: S603 - wandb's own program
        [sys.executable, "-m", "wandb", *arguments],
        env={**_inherited(), **variables},
        cwd=home,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def _inherited() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k[:5] != "WANDB"}


def start(
    folder: Path,
    mode: str,
    url: str = "http://127.0.0.1:9",
    waits_for: Path | None = None,
    seconds: float = 1.0,
    program: str = PROGRAM,
) -> "subprocess.Popen[str]":
    """Starts the program.

    Args:
        folder: the run's folder; created here.
        mode: `wandb.mode`.
        url: the service's URL.
        waits_for: a file that must exist before the program writes the second half of its rows.
        seconds: how long writing all rows takes.
        program: Python source.
    """
    folder.mkdir()
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program, str(folder), mode, str(seconds), str(waits_for or "")],
        env={**_inherited(), **environment(folder, url), "LR_EXP_TEST_RUN": str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *options: Any) -> Run:
    """Runs the program to its end; `options` are those of `start`."""
    began = time.time()
    with start(folder, *options) as process:
        output = process.communicate(timeout=60)[0]
    ended = time.time()
    wait = ended - (folder / "written").stat().st_mtime
    return Run(folder, ended - began, wait, process.returncode, output)


def check(finished: Run) -> None:
    """Checks what must hold regardless of the service."""
    assert finished.status == 0, finished.output
    assert left_behind(finished.folder) == []
    assert finished.written == list(range(ROWS))
    assert finished.recorded == list(range(ROWS))
    assert "Traceback" not in finished.output


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program without any service, as the baseline."""
    finished = run(tmp_path_factory.mktemp("offline") / "run", "offline")
    check(finished)
    assert finished.warnings == []
    return finished


def test_recording_adds_a_few_seconds_at_most(tmp_path, offline):
    """Importing wandb, starting wandb-core and finishing the file take a constant time. The faster
    of two runs counts: on a busy machine the import alone can take seconds."""
    without = run(tmp_path / "run", "disabled")
    assert without.written == list(range(ROWS))
    recording = min(offline.seconds, run(tmp_path / "again", "offline").seconds)
    assert recording - without.seconds < 6.0


@pytest.mark.parametrize(
    ("service", "wait"),
    [
        ("hangs", 0),
        ("disconnects", 0),
        ("fails", 0),
        # It looks healthy until the run is uploaded.
        ("disconnects in the response", wandb_uploader.MIN_WAIT_SECONDS),
    ],
    indirect=["service"],
)
def test_a_service_that_is_down_costs_no_time_and_no_row(tmp_path, offline, service, wait):
    finished = run(tmp_path / "run", "auto", service.url)
    check(finished)
    assert finished.seconds - offline.seconds < wait + JITTER_SECONDS
    assert len(finished.warnings) == 1
    assert "wandb sync" in finished.warnings[0]


def test_a_refused_connection_costs_no_time_and_no_row(tmp_path, offline):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    finished = run(tmp_path / "run", "online", f"http://127.0.0.1:{port}")
    check(finished)
    assert finished.seconds - offline.seconds < JITTER_SECONDS
    assert len(finished.warnings) == 1
    assert f"127.0.0.1:{port} did not respond" in finished.warnings[0]


@pytest.mark.parametrize(
    "service",
    [
        "hangs midway",
        pytest.param("disconnects midway", marks=pytest.mark.slow),
        pytest.param("fails midway", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_a_service_that_fails_midway_costs_a_limited_wait(tmp_path, service):
    """The command in the warning uploads the run after the service has recovered."""
    service.has_rows = tmp_path / "has rows"
    finished = run(tmp_path / "run", "auto", service.url, service.has_rows)
    check(finished)
    assert 0 < len(service.rows) < ROWS
    assert finished.seconds_after_rows < wandb_uploader.MIN_WAIT_SECONDS + JITTER_SECONDS
    assert len(finished.warnings) == 1
    assert "in time" in finished.warnings[0]

    service.mode = "healthy"
    service.rows.clear()
    (command,) = re.findall(r"`wandb (sync .*?)`", finished.warnings[0])
    assert wandb_command(tmp_path, service.url, *shlex.split(command)) == 0
    assert steps(service) == list(range(ROWS))
    assert service.complete


@pytest.mark.parametrize("service", ["healthy"], indirect=True)
def test_two_attempts_are_one_run_without_duplicate_rows(tmp_path, service):
    """The rows of a second attempt overwrite those of the first."""
    options = ("offline", service.url, None, 0.2)
    for name in ("one", "two"):
        finished = run(tmp_path / name, *options)
        (record,) = finished.folder.glob("wandb/offline-run-*")
        assert wandb_command(tmp_path, service.url, "sync", str(record)) == 0
        assert service.runs == {"0123456789abcdef"}
        assert steps(service) == list(range(ROWS))
    assert "RunResumeStatus" not in service.unknown  # nothing is appended

    # The second attempt reused the artifact, still as an output; for another cell it is an input.
    run(tmp_path / "three", *options, PROGRAM.replace("0123456789abcdef", "fedcba9876543210"))
    (record,) = (tmp_path / "three").glob("wandb/offline-run-*")
    assert wandb_command(tmp_path, service.url, "sync", str(record)) == 0
    adapters = [(maker, name) for maker, name in service.artifacts if name.startswith("adapter-")]
    assert [maker for maker, _ in adapters] == ["0123456789abcdef", "0123456789abcdef", None]
    assert service.used == [("fedcba9876543210", adapters[0][1])]


@pytest.mark.parametrize("service", ["healthy"], indirect=True)
def test_a_healthy_service_receives_rows_during_the_run(tmp_path, service):
    service.has_rows = tmp_path / "has rows"
    finished = run(tmp_path / "run", "auto", service.url, service.has_rows)
    check(finished)
    assert finished.warnings == []
    assert f"INFO: W&B: {service.url}/someone/lr_exp/runs/" in finished.output
    written = finished.folder / "written"
    assert service.has_rows.stat().st_mtime < written.stat().st_mtime
    assert steps(service) == list(range(ROWS))
    assert "RunResumeStatus" not in service.unknown
    assert service.complete
    assert list(finished.folder.glob("wandb/offline-run-*/*.wandb.synced"))  # `wandb sync` skips it


@pytest.mark.slow
@pytest.mark.parametrize("service", ["healthy"], indirect=True)
def test_no_process_outlives_a_killed_run(tmp_path, service):
    """The upload waits for the end of the file, which a killed run never writes."""
    folder = tmp_path / "run"
    with start(folder, "auto", service.url, tmp_path / "never") as process:
        until(lambda: service.rows)  # the upload is running
        assert len(processes(folder)) >= 4  # Python and wandb-core, for recording and upload
        process.kill()
    # W&B's system monitor checks for its parent every few seconds.
    assert left_behind(folder, seconds=20.0) == []


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal")
def test_a_hanging_wandb_core_does_not_block_the_run(tmp_path):
    """wandb's exit hook waits for wandb-core without a timeout."""
    folder = tmp_path / "run"
    patch = "tracking.wandb_sink.FLUSH_TIMEOUT_SECONDS = 1.0"
    program = PROGRAM.replace("with Tracker", f"{patch}\nwith Tracker")
    with start(folder, "offline", program=f"import lr_exp.tracking as tracking\n{program}") as run:
        until(lambda: (folder / METRICS).exists() and (folder / METRICS).stat().st_size > 1000)
        for core in [child for child in processes(folder) if child.name() == "wandb-core"]:
            core.suspend()
        output = run.communicate(timeout=30)[0]
    assert run.returncode == 0
    assert output.count("WARNING") == 1
    assert "hangs" in output
    assert "Traceback" not in output
    assert left_behind(folder) == []


@pytest.mark.parametrize("first", ["fails", "disconnects in the response"])
@pytest.mark.parametrize("service", ["healthy"], indirect=True)
def test_a_service_that_recovers_receives_the_run(
    tmp_path, monkeypatch, caplog, offline, service, first
):
    monkeypatch.setattr(wandb_uploader, "_RETRY_SECONDS", 0.3)
    for name, value in environment(tmp_path, service.url).items():
        monkeypatch.setenv(name, value)
    copy = tmp_path / "wandb" / "offline-run-1"
    shutil.copytree(next(offline.folder.glob("wandb/offline-run-*")), copy)
    service.mode = first
    uploader = wandb_uploader.Uploader(next(copy.glob("*.wandb")), service.url)
    time.sleep(1.0)
    service.mode = "healthy"
    until(lambda: service.complete)
    uploader.finish(seconds=1.0)
    assert steps(service) == list(range(ROWS))
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_the_wait_at_the_end_is_a_small_share_of_the_run():
    for seconds in (60, 600, 3600, 100_000):
        assert wandb_uploader.wait_seconds(seconds) <= 0.05 * seconds
    assert wandb_uploader.wait_seconds(1) == wandb_uploader.MIN_WAIT_SECONDS
    assert wandb_uploader.wait_seconds(300) == 12
    assert wandb_uploader.wait_seconds(100_000) <= 60

"""The service is away, slow or breaks off: the run keeps its time, the record is whole on disk.

Each test runs a program of a few seconds against a service on 127.0.0.1. Five per cent of such a
program are less than importing wandb varies by, so its time may exceed that of the same program
recording offline by seconds: none for a service that never answers but what two starts differ by,
and the shortest wait for one that breaks off. That a long run's wait is a share of its time is a
test of its own.
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
from lr_exp.tracking import uploader
from tests.recorded import read_rows

ROWS = 200
JITTER_SECONDS = 3.0  # of two processes that start and import wandb on a busy machine

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
    """As much of W&B as `wandb sync` asks, and the manners in which it can be away.

    Manners: `well`; `hangs`, `cuts`, `cuts in the answer` and `fails` (status 500) at every
    request; `hangs midway`, `cuts midway` and `fails midway` once it took the run and some rows.
    """

    daemon_threads = True

    def __init__(self, manner: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.manner = manner
        self.over = threading.Event()
        self.rows: dict[int, dict[str, int]] = {}  # by their place in the run's history
        self.has_rows: Path | None = None  # made when the first ones arrive
        self.complete = False
        self.runs: set[str] = set()  # their ids
        # Whose output, if it is one, and name of each that was logged.
        self.artifacts: list[tuple[str | None, str]] = []
        self.used: list[tuple[str, str]] = []  # of them, those that the run used
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed break their connections off: nothing to print."""


class _Answers(BaseHTTPRequestHandler):
    server: Service

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        manner = self.server.manner.removesuffix(" midway")
        if manner != self.server.manner and not self.server.rows:
            manner = "well"
        if manner == "hangs":
            self.server.over.wait()
        elif manner == "cuts in the answer":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"data": {')
        elif manner == "fails":
            self._say(500, {"error": "internal"})
        elif manner == "well":
            self._well(body)
        self.close_connection = True  # and with `cuts` this is all

    do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815 - the base class's names

    def _well(self, body: bytes) -> None:
        if self.path == "/graphql":
            self._say(200, {"data": self._graphql(json.loads(body))})
        elif self.path.endswith("/file_stream"):
            self._take(json.loads(body))
            self._say(200, {})
        elif self.path == "/healthz" or self.command == "PUT":
            self._say(200, {})
        else:
            self._say(404, {})

    def _take(self, sent: dict[str, object]) -> None:
        files = sent.get("files") or {}
        history = files.get("wandb-history.jsonl")  # type: ignore[attr-defined]
        if history:
            for place, line in enumerate(history["content"], start=history["offset"]):
                self.server.rows[place] = json.loads(line)
            if self.server.has_rows is not None and not self.server.has_rows.exists():
                self.server.has_rows.touch()
        self.server.complete |= bool(sent.get("complete"))

    def _graphql(self, asked: dict[str, object]) -> dict[str, object]:
        found = re.search(r"(?:mutation|query)\s+(\w+)", str(asked["query"]))
        name = found[1] if found else ""
        given = asked.get("variables") or {}
        assert isinstance(given, dict)
        if name == "UpsertBucket":
            self.server.runs.add(str(given.get("name")))
            entity = {"id": "e", "name": "someone"}
            project = {"id": "p", "name": given.get("project"), "entity": entity}
            bucket = {"id": "b", "name": given.get("name"), "displayName": "a run"}
            bucket |= {"description": "", "config": "{}", "sweepName": None}
            bucket |= {"project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [
                {"name": file, "uploadUrl": f"{self.server.url}/storage/{file}"}
                for file in given["files"]
            ]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":  # one that the service has is not sent again
            told = given["input"]
            self.server.artifacts.append((told.get("runName"), told["artifactCollectionName"]))
            sequence = {"id": "s", "latestArtifact": None}
            artifact = {"id": told["artifactCollectionName"], "state": "COMMITTED"}
            return {"createArtifact": {"artifact": artifact | {"artifactSequence": sequence}}}
        if name == "UseArtifact":
            self.server.used.append((given["input"]["runName"], given["input"]["artifactID"]))
            return {"useArtifact": {"artifact": {"id": given["input"]["artifactID"]}}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        self.server.unknown.append(name)
        return {}

    def _say(self, status: int, body: object) -> None:
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not on the tests' terminal."""


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    one = Service(request.param)
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield one
    one.over.set()
    one.shutdown()
    thread.join()
    one.server_close()


@dataclass(frozen=True)
class Run:
    """What a run of the program left."""

    folder: Path
    seconds: float
    seconds_after_rows: float  # till the process was gone
    status: int
    said: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("WARNING")]

    @property
    def recorded(self) -> list[int]:
        """Steps in the `.wandb` file, read by wandb's own reader."""
        (record,) = self.folder.glob("wandb/offline-run-*/*.wandb")
        rows = read_rows(record)
        items = [row["history"]["item"] for row in rows if row["type"] == "history"]
        return [item["distill/step"] for item in items if "distill/step" in item]

    @property
    def written(self) -> list[int]:
        """Steps in the run's own file."""
        text = (self.folder / METRICS).read_text(encoding="utf-8")
        return [json.loads(line)["step"] for line in text.splitlines()]


def left_behind(folder: Path, seconds: float = 2.0) -> list[str]:
    """Processes of the folder's run that live on after so many seconds."""
    end = time.monotonic() + seconds
    while (left := processes(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return [process.name() for process in left]


def processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LR_EXP_TEST_RUN") == str(folder):
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def steps(service: Service) -> list[int]:
    """Steps of the rows that the service took, in its order."""
    rows = [service.rows[place] for place in sorted(service.rows)]
    return [row["distill/step"] for row in rows if "distill/step" in row]


def environment(home: Path, url: str) -> dict[str, str]:
    """Logged in to the service at `url`, and to no other."""
    return {
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "WANDB_API_KEY": "0123456789" * 4,
        "WANDB_BASE_URL": url,
        "WANDB_RESUME": "allow",  # of a user's shell: it must not reach the sending
        "WANDB_ERROR_REPORTING": "false",
        # Seconds, 15 otherwise: a short run, too, is sent while it goes on.
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
        "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "0.2",
    }


def until(condition: Callable[[], object]) -> None:
    """Waits for what another process does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def send(home: Path, url: str, *words: str) -> int:
    """Runs `wandb` with the words; returns its exit status."""
    told = environment(home, url)
    del told["WANDB_RESUME"]  # here it would be obeyed
    return subprocess.run(  # noqa: S603 - wandb's own program
        [sys.executable, "-m", "wandb", *words],
        env={**_kept(), **told},
        cwd=home,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def _kept() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k[:5] != "WANDB"}


def start(
    folder: Path,
    mode: str,
    url: str = "http://127.0.0.1:9",
    waits_for: Path | None = None,
    seconds: float = 1.0,
    program: str = PROGRAM,
) -> "subprocess.Popen[str]":
    """Starts the program in an environment of its own.

    Args:
        folder: its own; made here.
        mode: `wandb.mode`.
        url: the service's.
        waits_for: a file that must be there before it writes the second half of its rows.
        seconds: for writing all rows.
        program: what runs.
    """
    folder.mkdir()
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program, str(folder), mode, str(seconds), str(waits_for or "")],
        env={**_kept(), **environment(folder, url), "LR_EXP_TEST_RUN": str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *how: Any) -> Run:
    """Runs the program to its end."""
    began = time.time()
    with start(folder, *how) as process:
        said = process.communicate(timeout=60)[0]
    ended = time.time()
    wait = ended - (folder / "written").stat().st_mtime
    return Run(folder, ended - began, wait, process.returncode, said)


def check(one: Run) -> None:
    """What holds whatever the service does."""
    assert one.status == 0, one.said
    assert left_behind(one.folder) == []
    assert one.written == list(range(ROWS))
    assert one.recorded == list(range(ROWS))
    assert "Traceback" not in one.said


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program without any service: what the others are compared with."""
    one = run(tmp_path_factory.mktemp("offline") / "run", "offline")
    check(one)
    assert one.warnings == []
    return one


def test_recording_costs_the_run_little(tmp_path, offline):
    """All that a run pays for W&B, whatever the service does: importing it, starting its process
    and ending its file. Not a share of the run's time: it does not grow with the run. Of two tries
    the faster: on a busy machine, or the first time, the import alone takes seconds."""
    without = run(tmp_path / "run", "disabled")
    assert without.written == list(range(ROWS))
    with_it = min(offline.seconds, run(tmp_path / "again", "offline").seconds)
    assert with_it - without.seconds < 6.0


@pytest.mark.parametrize(
    ("service", "wait"),
    [
        ("hangs", 0),
        ("cuts", 0),
        ("fails", 0),
        # An answer that is begun is taken for one, until the run is offered.
        ("cuts in the answer", uploader.SHORTEST_WAIT_SECONDS),
    ],
    indirect=["service"],
)
def test_a_service_that_is_away_costs_no_time_and_no_row(tmp_path, offline, service, wait):
    one = run(tmp_path / "run", "auto", service.url)
    check(one)
    assert one.seconds - offline.seconds < wait + JITTER_SECONDS
    assert len(one.warnings) == 1
    assert "wandb sync" in one.warnings[0]


def test_a_port_that_refuses_costs_no_time_and_no_row(tmp_path, offline):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    one = run(tmp_path / "run", "online", f"http://127.0.0.1:{port}")
    check(one)
    assert one.seconds - offline.seconds < JITTER_SECONDS
    assert len(one.warnings) == 1
    assert f"127.0.0.1:{port} did not answer" in one.warnings[0]


@pytest.mark.parametrize(
    "service",
    [
        "hangs midway",
        pytest.param("cuts midway", marks=pytest.mark.slow),
        pytest.param("fails midway", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_a_service_that_breaks_off_costs_a_bounded_wait(tmp_path, service):
    """And what it says is to be done brings the run there, once the service is well again."""
    service.has_rows = tmp_path / "has rows"
    one = run(tmp_path / "run", "auto", service.url, service.has_rows)
    check(one)
    assert 0 < len(service.rows) < ROWS
    assert one.seconds_after_rows < uploader.SHORTEST_WAIT_SECONDS + JITTER_SECONDS
    assert len(one.warnings) == 1
    assert "in time" in one.warnings[0]

    service.manner = "well"
    service.rows.clear()
    (command,) = re.findall(r"`wandb (sync .*?)`", one.warnings[0])
    assert send(tmp_path, service.url, *shlex.split(command)) == 0
    assert steps(service) == list(range(ROWS))
    assert service.complete


@pytest.mark.parametrize("service", ["well"], indirect=True)
def test_two_tries_are_one_run_with_each_point_once(tmp_path, service):
    """A second try's rows are sent to the first one's places: they are its rows, and then some."""
    how = ("offline", service.url, None, 0.2)
    for name in ("one", "two"):
        one = run(tmp_path / name, *how)
        (record,) = one.folder.glob("wandb/offline-run-*")
        assert send(tmp_path, service.url, "sync", str(record)) == 0
        assert service.runs == {"0123456789abcdef"}
        assert steps(service) == list(range(ROWS))
    assert "RunResumeStatus" not in service.unknown  # nothing is appended to what is there

    # The second try found the first one's work, which is still the run's own; another cell used it.
    run(tmp_path / "three", *how, PROGRAM.replace("0123456789abcdef", "fedcba9876543210"))
    (record,) = (tmp_path / "three").glob("wandb/offline-run-*")
    assert send(tmp_path, service.url, "sync", str(record)) == 0
    own = [(who, name) for who, name in service.artifacts if name.startswith("adapter-")]
    assert [who for who, _ in own] == ["0123456789abcdef", "0123456789abcdef", None]  # outputs
    assert service.used == [("fedcba9876543210", own[0][1])]


@pytest.mark.parametrize("service", ["well"], indirect=True)
def test_a_service_that_is_well_shows_the_run_while_it_goes_on(tmp_path, service):
    service.has_rows = tmp_path / "has rows"
    one = run(tmp_path / "run", "auto", service.url, service.has_rows)
    check(one)
    assert one.warnings == []
    assert f"INFO: W&B: {service.url}/someone/lr_exp/runs/" in one.said
    written = one.folder / "written"
    assert service.has_rows.stat().st_mtime < written.stat().st_mtime
    assert steps(service) == list(range(ROWS))
    assert "RunResumeStatus" not in service.unknown
    assert service.complete
    assert list(one.folder.glob("wandb/offline-run-*/*.wandb.synced"))  # not sent again


@pytest.mark.slow
@pytest.mark.parametrize("service", ["well"], indirect=True)
def test_a_run_that_is_killed_takes_its_processes_along(tmp_path, service):
    """The sending waits for the file's end, which a killed run never writes."""
    folder = tmp_path / "run"
    with start(folder, "auto", service.url, tmp_path / "never") as process:
        until(lambda: service.rows)  # it is being sent
        assert len(processes(folder)) >= 4  # Python and wandb-core, to record and to send
        process.kill()
    # W&B's monitor of the machine looks for its parent every few seconds.
    assert left_behind(folder, seconds=20.0) == []


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal")
def test_a_process_of_wandb_that_hangs_holds_nothing_up(tmp_path):
    """Its hook at the interpreter's exit waits for that process without a limit."""
    folder = tmp_path / "run"
    program = PROGRAM.replace("with Tracker", "tracking.recorder.LOCAL_SECONDS = 1.0\nwith Tracker")
    with start(folder, "offline", program=f"import lr_exp.tracking as tracking\n{program}") as run:
        until(lambda: (folder / METRICS).exists() and (folder / METRICS).stat().st_size > 1000)
        for core in [one for one in processes(folder) if one.name() == "wandb-core"]:
            core.suspend()
        said = run.communicate(timeout=30)[0]
    assert run.returncode == 0
    assert said.count("WARNING") == 1
    assert "hangs" in said
    assert "Traceback" not in said
    assert left_behind(folder) == []


@pytest.mark.parametrize("first", ["fails", "cuts in the answer"])
@pytest.mark.parametrize("service", ["well"], indirect=True)
def test_a_service_that_comes_back_gets_the_run(
    tmp_path, monkeypatch, caplog, offline, service, first
):
    monkeypatch.setattr(uploader, "_ASK_AGAIN_SECONDS", 0.3)
    for name, value in environment(tmp_path, service.url).items():
        monkeypatch.setenv(name, value)
    copy = tmp_path / "wandb" / "offline-run-1"
    shutil.copytree(next(offline.folder.glob("wandb/offline-run-*")), copy)
    service.manner = first
    sending = uploader.Uploader(next(copy.glob("*.wandb")), service.url)
    time.sleep(1.0)
    service.manner = "well"
    until(lambda: service.complete)
    sending.finish(seconds=1.0)
    assert steps(service) == list(range(ROWS))
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_the_wait_at_the_end_is_a_small_share_of_a_run():
    for seconds in (60, 600, 3600, 100_000):
        assert uploader.patience(seconds) <= 0.05 * seconds
    assert uploader.patience(1) == uploader.SHORTEST_WAIT_SECONDS
    assert uploader.patience(300) == 12
    assert uploader.patience(100_000) <= 60  # nobody waits longer for a picture

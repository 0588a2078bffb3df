"""A W&B service that is down, slow or fails midway neither stops a run nor damages its record.

Each test runs a short program against a stand-in for the service on 127.0.0.1.
"""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lr_exp.store.run_folder import METRICS
from tests.support.recorded import read_rows

pytestmark = pytest.mark.integration

ROWS = 200
ID = "0123456789abcdef"
NO_SERVICE = "http://127.0.0.1:9"  # nothing listens there
INIT_SECONDS, END_SECONDS = 2.0, 6.0  # limits in the program; shorter than the real ones
LOCAL_SECONDS = 3.0  # the real one
JITTER_SECONDS = 10.0  # between two runs of the program on a busy machine

PROGRAM = f"""
import logging, sys, time
from pathlib import Path
import psutil
from lr_exp.config.settings import WandbSettings
from lr_exp.store import Recipe, Store
from lr_exp.tracking import RunIdentity, Tracker, wandb_sink

def build(place):
    (place / "adapter.bin").write_text("weights")
    return {{"kept": 3}}

wandb_sink.INIT_TIMEOUT_SECONDS, wandb_sink.FINISH_TIMEOUT_SECONDS = {INIT_SECONDS}, {END_SECONDS}
logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
folder, (mode, id, waits_for, freezes) = Path(sys.argv[1]), sys.argv[2:]
store, cell = Store(Path("../store")), RunIdentity(id, "a cell", "distill")
store.maker = cell.id
with Tracker(folder, WandbSettings(mode=mode), {{"alpha": 0.2}}, cell) as sink:
    sink.artifact(store.make(Recipe("adapter", 1, {{"supervision": "s"}}, {{}}), build))
    while freezes:
        cores = [one for one in psutil.Process().children() if one.name() == "wandb-core"]
        if cores and [*folder.glob(freezes)]:
            cores[0].suspend()
            break
    for step in range({ROWS}):
        sink.log("distill", step, {{"loss": 1.0 + step, "grad_norm": 9.0 - step}})
        end = time.monotonic() + 20.0
        while step == {ROWS // 2} and waits_for and time.monotonic() < end:
            time.sleep(0.02)
            waits_for = "" if Path(waits_for).exists() else waits_for
    sink.wandb.table("eval/before_after", ["benchmark", "gain"], lambda: [["gsm8k", 0.1]])
    sink.wandb.summarize({{"eval/gsm8k/tuned": 0.5}})
    (folder / "written").touch()
"""


class Service(ThreadingHTTPServer):
    """The part of W&B that runs and `wandb sync` use, with several failure modes.

    Modes: `healthy`; `hangs`, `disconnects`, `disconnects in the response` and `fails` (status 500)
    at every request; the same with ` midway`, after it has accepted the run and some rows.
    """

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.stopped = threading.Event()
        self.rows: dict[int, dict[str, int]] = {}  # by index in the run's history
        self.has_rows: Path | None = None  # created when the first rows arrive
        self.summary = "{}"
        self.complete = False
        self.runs: set[str] = set()  # their ids
        self.artifacts: list[tuple[str | None, str]] = []  # (id of the run that made it, name)
        self.used: list[tuple[str, str]] = []  # (id of the run that used it, name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def steps(self) -> list[int]:
        """Steps of the rows that the service received, in its order."""
        rows = [self.rows[index] for index in sorted(self.rows)]
        return [row["distill/step"] for row in rows if "distill/step" in row]

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
        else:
            self._reply(200 if self.command == "PUT" else 404, {})

    def _store_rows(self, request: dict[str, Any]) -> None:
        files = request.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            for index, line in enumerate(history["content"], start=history["offset"]):
                self.server.rows[index] = json.loads(line)
            if self.server.has_rows is not None and not self.server.has_rows.exists():
                self.server.has_rows.touch()
        if summary := files.get("wandb-summary.json"):
            self.server.summary = summary["content"][-1]
        self.server.complete |= bool(request.get("complete"))

    def _graphql(self, request: dict[str, Any]) -> dict[str, object]:
        match = re.search(r"(?:mutation|query)\s+(\w+)", request["query"])
        name, variables = match[1] if match else "", request.get("variables") or {}
        project = {"id": "p", "name": variables.get("project")}
        project["entity"] = {"id": "e", "name": "someone"}
        run = {"id": "b", "name": variables.get("name"), "displayName": "a run", "config": "{}"}
        rows = [json.dumps(self.server.rows[index]) for index in sorted(self.server.rows)]
        run["historyLineCount"] = len(rows)
        if name == "RunResumeStatus":
            run |= {"summaryMetrics": self.server.summary, "wandbConfig": '{"t": 1}', "tags": []}
            run |= {"historyTail": json.dumps(rows[-1:]), "eventsTail": "[]"}
            run |= {"logLineCount": 0, "eventsLineCount": 0}
            return {"model": project | {"bucket": run if run["name"] in self.server.runs else None}}
        if name == "UpsertBucket":
            self.server.runs.add(variables["name"])
            run |= {"description": "", "sweepName": None, "project": project}
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if name == "CreateRunFiles":
            url = f"{self.server.url}/storage/"
            files = [{"name": file, "uploadUrl": url + file} for file in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":  # its files are already committed, so none are uploaded
            new = variables["input"]
            self.server.artifacts.append((new.get("runName"), new["artifactCollectionName"]))
            artifact = {"id": new["artifactCollectionName"], "state": "COMMITTED"}
            artifact["artifactSequence"] = {"id": "s", "latestArtifact": None}
            return {"createArtifact": {"artifact": artifact}}
        if name == "UseArtifact":
            used = variables["input"]
            self.server.used.append((used["runName"], used["artifactID"]))
            return {"useArtifact": {"artifact": {"id": used["artifactID"]}}}
        if name == "Viewer":
            teams = {"edges": []}
            user = {"id": "u", "username": "someone", "entity": "someone", "email": ""}
            return {"viewer": user | {"flags": "{}", "teams": teams, "name": "someone"}}
        if name == "ArtifactType":
            return {"project": None}
        return {"serverInfo": {"features": []}} if name == "ServerFeaturesQuery" else {}

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
    server = Service(getattr(request, "param", "healthy"))
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
    output: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("WARNING")]

    @property
    def sync_command(self) -> list[str]:
        """The command in the output that uploads the run."""
        (command,) = re.findall(r"`wandb (sync .*?)`", self.output)
        return shlex.split(command)


def environment(home: Path, url: str) -> dict[str, str]:
    """Environment variables with a login to the service at `url` only."""
    return {
        **{k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k[:5] != "WANDB"},
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "WANDB_API_KEY": "0123456789" * 4,
        "WANDB_BASE_URL": url,
        # Seconds instead of 15, so that rows of a short run are uploaded before it ends.
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
        "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "0.2",
    }


def run(folder: Path, mode: str, url=NO_SERVICE, *, run_id=ID, waits_for="", freezes="") -> Run:
    """Runs the program to its end and checks what must hold regardless of the service.

    Args:
        folder: the run's folder; created here.
        mode: `wandb.mode`.
        url: the service's URL.
        run_id: the run's id.
        waits_for: a file that must exist before the program writes the second half of its rows.
        freezes: W&B's process is stopped once the run's folder has a file of this pattern.
    """
    folder.mkdir()
    began = time.time()
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", PROGRAM, str(folder), mode, run_id, str(waits_for), freezes],
        env={**environment(folder, url), "WANDB_RESUME": "never"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    ended, output = time.time(), done.stdout
    assert done.returncode == 0, output
    assert "Traceback" not in output
    text = (folder / METRICS).read_text("utf-8")
    assert [json.loads(line)["step"] for line in text.splitlines()] == list(range(ROWS))
    wait = ended - (folder / "written").stat().st_mtime
    return Run(folder, ended - began, wait, output)


def recorded(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in the `.wandb` file."""
    offline = list(folder.glob("wandb/offline-run-*/*.wandb"))  # there may be an empty online one
    (record,) = offline or folder.glob("wandb/run-*/*.wandb")
    return [row[kind] for row in read_rows(record) if row["type"] == kind]


def recorded_steps(folder: Path) -> list[int]:
    items = [row["item"] for row in recorded(folder, "history")]
    return [item["distill/step"] for item in items if "distill/step" in item]


def sync(finished: Run, service: Service) -> None:
    """Runs the `wandb` command of the output in another folder."""
    elsewhere = finished.folder.parent
    subprocess.run(  # noqa: S603 - wandb's own program
        [sys.executable, "-m", "wandb", *finished.sync_command],
        env=environment(elsewhere, service.url),
        cwd=elsewhere,
        capture_output=True,
        timeout=60,
        check=True,
    )


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program without any service, as the baseline."""
    finished = run(tmp_path_factory.mktemp("offline") / "run", "offline")
    assert recorded_steps(finished.folder) == list(range(ROWS))
    return finished


def test_an_offline_run_prints_once_how_to_upload_it_and_stages_nothing_at_home(offline):
    """The store's path was relative to the folder of the run."""
    assert offline.warnings == []
    assert offline.output.count("W&B") == 1
    assert "INFO: W&B: recorded offline. Upload: `wandb sync /" in offline.output
    (adapter, *_) = recorded(offline.folder, "artifact")
    (file,) = adapter["manifest"]["contents"]
    assert Path(file["local_path"]).is_absolute()
    assert Path(file["local_path"]).read_text() == "weights"
    home = offline.folder  # of this program
    assert not (home / ".local").exists()
    assert {path.parent.name for path in home.glob(".cache/**/*") if path.is_file()} <= {"logs"}
    assert (home / "wandb" / "artifacts" / "staging").is_dir()


def slow(mode: str) -> Any:
    return pytest.param(mode, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "service",
    ["hangs", "absent", *map(slow, ("disconnects", "disconnects in the response", "fails"))],
    indirect=True,
)
def test_a_run_is_recorded_offline_if_the_service_is_down(tmp_path, offline, service):
    url = NO_SERVICE if service.mode == "absent" else service.url
    finished = run(tmp_path / "run", "online", url)
    assert recorded_steps(finished.folder) == list(range(ROWS))
    assert finished.seconds - offline.seconds < INIT_SECONDS + JITTER_SECONDS
    (warning,) = finished.warnings
    assert "W&B: recorded offline, because" in warning
    assert service.mode != "absent" or f"the run could not be started at {url}" in warning
    service.mode = "healthy"
    sync(finished, service)
    assert service.runs == {ID}
    assert service.steps == list(range(ROWS))


@pytest.mark.parametrize(
    "service", ["hangs midway", *map(slow, ("disconnects midway", "fails midway"))], indirect=True
)
def test_a_service_that_fails_midway_costs_a_limited_wait(tmp_path, service):
    service.has_rows = tmp_path / "has rows"
    finished = run(tmp_path / "run", "auto", service.url, waits_for=service.has_rows)
    assert recorded_steps(finished.folder) == list(range(ROWS))
    received, summary = dict(service.rows), service.summary
    assert 0 < len(received) < ROWS
    assert finished.seconds_after_rows < END_SECONDS + LOCAL_SECONDS + JITTER_SECONDS
    assert len(finished.warnings) == 1
    assert "did not finish in time" in finished.warnings[0]

    service.mode = "healthy"
    sync(finished, service)  # W&B appends the record, with the rows that it already has
    assert set(service.steps) == set(range(ROWS))
    assert service.complete
    # Or the same command again, as if there had been no sync.
    service.rows, service.summary, service.complete = received, summary, False
    assert run(tmp_path / "again", "auto", service.url).warnings == []
    assert service.steps == list(range(ROWS))
    assert service.complete


@pytest.mark.parametrize("freezes", ["*", "wandb/*/*.wandb"], ids=["at its start", "midway"])
def test_a_frozen_process_of_wandb_delays_the_exit_by_a_limited_time(tmp_path, freezes):
    """W&B waited for it at the exit of the program, without a limit."""
    finished = run(tmp_path / "run", "offline", freezes=freezes)
    assert finished.seconds_after_rows < END_SECONDS + 2 * LOCAL_SECONDS + JITTER_SECONDS
    (warning,) = finished.warnings
    assert "W&B did not respond in time; metrics.jsonl has all metrics" in warning


def test_a_repeated_online_run_continues_the_same_run(tmp_path, service):
    """W&B appended the rows again, or took the extremes from the last rows only."""
    service.has_rows = tmp_path / "has rows"
    finished = run(tmp_path / "run", "auto", service.url, waits_for=service.has_rows)
    assert finished.warnings == []
    assert f"INFO: W&B: {service.url}/someone/lr_exp/runs/{ID}" in finished.output
    written = finished.folder / "written"
    assert service.has_rows.stat().st_mtime <= written.stat().st_mtime  # during the run
    assert service.complete
    summary = json.loads(service.summary)
    for index in range(ROWS // 2, max(service.rows) + 1):  # as if the attempt had been killed
        del service.rows[index]
    service.complete, service.summary = False, json.dumps({"_step": ROWS // 2 - 1})
    assert run(tmp_path / "again", "online", service.url).warnings == []
    assert service.runs == {ID}
    assert service.steps == list(range(ROWS))
    assert service.complete
    again = json.loads(service.summary)
    for name in ("distill/loss", "distill/grad_norm", "eval/gsm8k/tuned"):
        assert again[name] == summary[name]
    assert again["distill/loss"] == {"min": 1, "last": ROWS}
    assert again["distill/grad_norm"] == {"max": 9, "last": 10 - ROWS}

    # The second attempt reused the artifact, still as an output; for another cell it is an input.
    run(tmp_path / "other", "online", service.url, run_id="fedcba9876543210")
    adapters = [(maker, name) for maker, name in service.artifacts if name.startswith("adapter-")]
    assert [maker for maker, _ in adapters] == [ID, ID, None]
    assert ("fedcba9876543210", adapters[0][1]) in service.used
    assert {user for user, _ in service.used} == {"fedcba9876543210"}

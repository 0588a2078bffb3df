"""Uploads a run's W&B folder in a separate process while the run continues.

The run never waits for the upload, except for a limited time at its end.
"""

import contextlib
import http.client
import logging
import os
import re
import shlex
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

log = logging.getLogger(__name__)

# How long the end of a run waits for the upload: a share of the run's time, within bounds. A
# healthy service needs the minimum even for a short run.
_WAIT_SHARE = 0.04
MIN_WAIT_SECONDS = 3.0
_MAX_WAIT_SECONDS = 30.0

_HEALTH_TIMEOUT_SECONDS = 5.0
_RETRY_SECONDS = 30.0  # doubles after each attempt
_MAX_RETRY_SECONDS = 600.0
_SCRIPT = Path(__file__).with_name("wandb_live_sync.py")
_REMOVED_VARIABLES = (
    "WANDB_SERVICE",  # the run's own wandb-core, which must outlive the upload
    "WANDB_MODE",
    "WANDB_RESUME",  # would append to an earlier attempt's metrics
    "WANDB_SILENT",  # would suppress the output that is parsed here
    "WANDB_QUIET",
)


class Uploader:
    """Starts the upload as soon as the service responds, at the start or later in the run."""

    def __init__(self, record: Path, base_url: str) -> None:
        """Starts polling the service.

        Args:
            record: the `.wandb` file; exists.
            base_url: the service's URL.
        """
        self._record = record.resolve()  # the upload has another working directory
        self._base_url = base_url
        self._output = self._record.parent / "logs" / "sync.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._reason = f"{base_url} did not respond"  # why no upload has started
        self._lock = threading.Lock()  # no process may start after the run has ended
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-uploader", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Waits for the rest of the upload, warns if it is incomplete, and kills its process.

        Args:
            seconds: how long the run took.
        """
        with self._lock:
            self._ended.set()
            process = self._process
        if process is None:  # no need to wait: the service had the whole run to respond
            self._warn(self._reason)
            return
        self._thread.join(wait_seconds(seconds))
        in_time = process.poll() is not None
        process.kill()  # its wandb-core exits with it
        self._thread.join()
        if not in_time:
            self._warn(f"the upload to {self._base_url} did not finish in time")
        elif not self._is_complete():
            self._warn(f"the upload to {self._base_url} failed (see {self._output})")

    def _work(self) -> None:
        pause = _RETRY_SECONDS
        while not self._upload() and not self._ended.wait(pause):
            pause = min(2 * pause, _MAX_RETRY_SECONDS)

    def _upload(self) -> bool:
        """Uploads until the run ends; False if the service did not accept the run.

        An accepted run is not uploaded again, because W&B would append its metrics twice.
        """
        if not is_healthy(self._base_url):
            return False
        with self._lock:
            if self._ended.is_set():
                return True
            try:
                process = self._process = self._start()
            except OSError as error:
                self._reason = f"the upload process could not be started ({error})"
                return True
        accepted = self._log_url(process)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return accepted

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {k: v for k, v in os.environ.items() if k not in _REMOVED_VARIABLES}
        self._output.parent.mkdir(exist_ok=True)
        with self._output.open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - this interpreter and a file of this package
                [sys.executable, "-P", str(_SCRIPT), str(self._record)],
                stdin=subprocess.PIPE,  # closes when this process ends, even if killed
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._record.parent.parent.parent,  # W&B writes its own logs there
                env=environment,
                start_new_session=True,  # Ctrl-C must reach the run only
            )

    def _log_url(self, process: "subprocess.Popen[bytes]") -> bool:
        """Logs the run's URL once W&B prints it; False if the process ends without one."""
        running = True
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            running = process.poll() is None
            if match := re.search(r"View run.* at:? (https?://\S+)", self._read_output()):
                log.info("W&B: %s", match[1])
                return True
        return False

    def _is_complete(self) -> bool:
        """Whether everything was uploaded.

        W&B marks the record as synced even if the upload of metrics broke off, and `wandb sync`
        would then skip it. Such a marker is deleted.
        """
        marker = self._record.with_name(f"{self._record.name}.synced")
        if "Fatal error while uploading" in self._read_output():
            marker.unlink(missing_ok=True)
        return marker.exists()

    def _read_output(self) -> str:
        try:
            return self._output.read_text(encoding="utf-8", errors="replace")
        except OSError:  # the folder was moved or deleted
            return ""

    def _warn(self, reason: str) -> None:
        folder = shlex.quote(str(self._record.parent))
        log.warning("W&B: %s. No data is lost: upload it with `wandb sync %s`", reason, folder)


def wait_seconds(run_seconds: float) -> float:
    """How long the end of a run that took `run_seconds` waits for the upload."""
    return min(_MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, _WAIT_SHARE * run_seconds))


def is_healthy(base_url: str, timeout: float = _HEALTH_TIMEOUT_SECONDS) -> bool:
    """Whether the service responds in time (seconds) and without a server error (5xx)."""
    url = f"{base_url.rstrip('/')}/healthz"
    try:
        # The URL comes from the user's settings, and wandb accepts only http and https.
        with urllib.request.urlopen(url, timeout=timeout):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except urllib.error.URLError as error:
        # wandb-core has its own certificates and decides itself whether to trust the server.
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except (OSError, http.client.HTTPException, ValueError):
        return False  # connection broken, not HTTP, not a URL

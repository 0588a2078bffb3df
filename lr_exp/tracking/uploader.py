"""Sends a run's W&B folder while it grows, in a process of its own.

Knows wandb's command line and the files it leaves; knows nothing of what is sent. Nothing here is
waited for while the run goes on, and at its end for a bounded time.
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

# What the end of a run may wait for the sending: a share of the run's time, but not less than a
# service that is well needs for a short run, nor more than is worth waiting.
_WAIT_SHARE = 0.04
SHORTEST_WAIT_SECONDS = 3.0
_LONGEST_WAIT_SECONDS = 30.0

_ANSWER_SECONDS = 5.0  # the time that a service has to answer
_ASK_AGAIN_SECONDS = 30.0  # and then twice as long, and so on
_LONGEST_PAUSE_SECONDS = 600.0
_SCRIPT = Path(__file__).with_name("live_sync.py")
_NOT_PASSED_ON = (
    "WANDB_SERVICE",  # the run's own wandb-core: ending the sending must not end that
    "WANDB_MODE",
    "WANDB_RESUME",  # would append to what the service has of an earlier try
    "WANDB_SILENT",  # its output goes to a file
    "WANDB_QUIET",
)


class Uploader:
    """Starts sending as soon as the service answers, in the beginning or later in the run."""

    def __init__(self, record: Path, base_url: str) -> None:
        """Starts asking for the service.

        Args:
            record: the `.wandb` file; exists.
            base_url: the service's.
        """
        self._record = record.resolve()  # the sending has a working directory of its own
        self._base_url = base_url
        self._output = self._record.parent / "logs" / "sync.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._why_not = f"{base_url} did not answer"
        self._lock = threading.Lock()  # no process may start once the run has ended
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-uploader", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Waits for what is left to be sent, says how it ended, and leaves no process behind.

        Args:
            seconds: how long the run took.
        """
        with self._lock:
            self._ended.set()
            process = self._process
        if process is None:  # not waited for: it had all of the run's time to answer
            self._warn(self._why_not)
            return
        self._thread.join(patience(seconds))
        in_time = process.poll() is not None
        process.kill()  # its wandb-core ends with it
        self._thread.join()
        if not in_time:
            self._warn(f"{self._base_url} did not take everything in time")
        elif not self._sent():
            self._warn(f"{self._base_url} did not take the run (see {self._output})")

    def _work(self) -> None:
        pause = _ASK_AGAIN_SECONDS
        while not self._send() and not self._ended.wait(pause):
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send(self) -> bool:
        """Sends while the run goes on; False where the service did not take the run.

        Once it has, this is not tried again: W&B adds what is sent twice.
        """
        if not answers(self._base_url):
            return False
        with self._lock:
            if self._ended.is_set():
                return True
            try:
                process = self._process = self._start()
            except OSError as error:
                self._why_not = f"the process that sends cannot be started ({error})"
                return True
        taken = self._say_where(process)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return taken

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON}
        self._output.parent.mkdir(exist_ok=True)
        with self._output.open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - this interpreter and a file of this package
                [sys.executable, "-P", str(_SCRIPT), str(self._record)],
                stdin=subprocess.PIPE,  # closes with this process, however it ends
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._record.parent.parent.parent,  # W&B puts logs of its own below
                env=environment,
                start_new_session=True,  # Ctrl-C is for the run, which then ends in order
            )

    def _say_where(self, process: "subprocess.Popen[bytes]") -> bool:
        """Logs the run's address once the service gave one; False where it never does."""
        running = True
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            running = process.poll() is None
            if found := re.search(r"View run.* at:? (https?://\S+)", self._said()):
                log.info("W&B: %s", found[1])
                return True
        return False

    def _sent(self) -> bool:
        """Whether everything arrived.

        W&B marks the folder as sent also where its stream of metrics broke off, and `wandb sync`
        would then skip it: such a mark is removed.
        """
        mark = self._record.with_name(f"{self._record.name}.synced")
        if "Fatal error while uploading" in self._said():
            mark.unlink(missing_ok=True)
        return mark.exists()

    def _said(self) -> str:
        try:
            return self._output.read_text(encoding="utf-8", errors="replace")
        except OSError:  # the folder was moved or removed meanwhile
            return ""

    def _warn(self, why: str) -> None:
        folder = shlex.quote(str(self._record.parent))
        log.warning("W&B: %s. Nothing is lost: `wandb sync %s` sends it later", why, folder)


def patience(seconds: float) -> float:
    """Seconds that the end of a run may wait for the sending; the run took `seconds`."""
    return min(_LONGEST_WAIT_SECONDS, max(SHORTEST_WAIT_SECONDS, _WAIT_SHARE * seconds))


def answers(base_url: str, seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether the service answers within the time, and not with an error of its own (5xx)."""
    address = f"{base_url.rstrip('/')}/healthz"
    try:
        # The address is the user's own setting, and wandb takes nothing but http and https.
        with urllib.request.urlopen(address, timeout=seconds):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except urllib.error.URLError as error:
        # wandb-core has certificates of its own choice: whether it trusts this one, it will say.
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except (OSError, http.client.HTTPException, ValueError):
        return False  # cut off, not HTTP, not an address

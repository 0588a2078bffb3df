"""JSON over HTTP to a server that may stall, fail or be cut off: asked again, and then given up.

Knows addresses, statuses and waiting; knows nothing of models or tokens.
"""

import json
import logging
import os
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import urllib3

from lr_exp.errors import UserError, first_line
from lr_exp.inference.engines import Unreachable

log = logging.getLogger(__name__)

KEY = "LR_EXP_API_KEY"  # the environment variable with the server's key, if it wants one

FIRST_WAIT_SECONDS = 1.0  # doubled after each attempt ...
LONGEST_WAIT_SECONDS = 60.0  # ... up to this
_CONNECT_SECONDS = 10.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be another one later
_NOT_OFFERED = (400, 404, 405, 415, 422, 501)
_SHOWN = 300  # characters of a server's own words

T = TypeVar("T")


class UnreadableError(Exception):
    """A reply that is not what it should be: a cut line and a broken proxy look like this."""


class _NotOfferedError(UserError):
    """Refused because the server does not know the path, or not this way of asking."""


class Endpoint:
    """One server, for many threads."""

    def __init__(self, url: str, *, timeout: float, attempts: int, connections: int) -> None:
        """Args:
        url: scheme, host and port, with a path where the server lives below one.
        timeout: seconds that a request may be silent.
        attempts: how often one request is sent at most.
        connections: that are kept open.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._attempts = attempts
        self._timeout = urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout)
        # urllib3's own retries end before the body is read and know nothing of what is in it.
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False)
        self._given_up = threading.Event()

    def close(self) -> None:
        """Ends all waiting, and the connections."""
        self._given_up.set()
        self._pool.clear()

    def get(self, path: str) -> Any:
        """What is at a path; None where the server does not offer it."""
        return self._offered("GET", path, None)

    def offer(self, path: str, body: Any) -> Any:
        """The reply to a request that the server may not offer: None then."""
        return self._offered("POST", path, body)

    def _offered(self, method: str, path: str, body: Any) -> Any:
        try:
            return self._ask(method, path, body, _parsed)
        except _NotOfferedError:
            return None

    def post(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """What `read` makes of the reply; it raises UnreadableError where that cannot be."""
        return self._ask("POST", path, body, lambda data: read(_parsed(data)))

    def tell(self, path: str, body: Any) -> None:
        """Sends what has no reply but that it was done."""
        self._ask("POST", path, body, lambda data: None)

    def _ask(self, method: str, path: str, body: Any, read: Callable[[bytes], T]) -> T:
        """Sends a request until it is answered.

        Raises:
            Unreachable: it was not, after all attempts.
            UserError: it was refused.
        """
        wait, reason, attempt = FIRST_WAIT_SECONDS, "", 0
        for attempt in range(1, self._attempts + 1):
            asked_for = 0.0
            try:
                reply = self._pool.request(
                    method,
                    self.url + path,
                    body=None if body is None else json.dumps(body).encode(),
                    headers=_headers(),
                    timeout=self._timeout,
                    redirect=False,  # the key and the prompts go where they were told to go
                )
                if reply.status == 200:
                    return read(reply.data)
                reason = f"status {reply.status}: {_words(reply.data)}"
                if reply.status not in _PASSING:
                    raise self._refused(method, path, reply.status, reason)
                asked_for = _retry_after(reply.headers.get("Retry-After"))
            except UnreadableError as error:
                reason = f"an unreadable reply: {first_line(error)}"
            except urllib3.exceptions.LocationValueError as error:
                raise UserError(f"server.url={self.url}: {first_line(error)}.") from error
            except urllib3.exceptions.HTTPError as error:
                reason = _in_words(error, self._timeout)
            if attempt < self._attempts:
                # Jitter, so that requests that failed together do not come back together.
                seconds = max(asked_for, wait * random.uniform(0.5, 1.5))
                log.info("%s%s: %s; again in %.1f s", self.url, path, reason, seconds)
                if self._given_up.wait(seconds):
                    break
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise Unreachable(
            f"server.url={self.url}: {method} {path} had no answer in {attempt} "
            f"attempt{'s' if attempt > 1 else ''}; the last ended with {reason}. Start the "
            "server, or change server.url, server.timeout, server.attempts or "
            "server.concurrency; what is finished stays, and the same command goes on."
        )

    def _refused(self, method: str, path: str, status: int, reason: str) -> UserError:
        kind = _NotOfferedError if status in _NOT_OFFERED else UserError
        advice = "check server.url and server.model"
        if status in (401, 403):
            advice = f"put its key into the environment variable {KEY}"
        elif 300 <= status < 400:
            advice = "give the address that it redirects to as server.url"
        return kind(f"server.url={self.url}: {method} {path} was refused with {reason}; {advice}.")


def _headers() -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    key = os.environ.get(KEY, "").strip()
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"no JSON ({_words(data)})") from error


def _words(data: bytes) -> str:
    """What a server says about an error, on one line."""
    text = data[: 10 * _SHOWN].decode("utf-8", errors="replace")
    try:
        told = json.loads(text)
        error = told.get("error", told) if isinstance(told, dict) else told
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:_SHOWN] or "nothing said"


def _in_words(error: urllib3.exceptions.HTTPError, timeout: urllib3.Timeout) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"silence for {timeout.read_timeout:g} s"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection: nobody listens there"
    return f"{type(error).__name__}: {first_line(error)}"


def _retry_after(value: str | None) -> float:
    """The seconds that a server asks to be left alone; dates are passed over."""
    try:
        seconds = float(value or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else 0.0

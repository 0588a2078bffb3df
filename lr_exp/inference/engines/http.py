"""Sends JSON requests over HTTP and retries those that fail."""

import json
import logging
import os
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import urllib3

from lr_exp.errors import UserError, first_line
from lr_exp.inference.engines import UnreachableError

log = logging.getLogger(__name__)

KEY = "LR_EXP_API_KEY"  # environment variable with the server's API key, if it needs one

FIRST_WAIT_SECONDS = 1.0  # doubled after each attempt ...
MAX_WAIT_SECONDS = 60.0  # ... up to this
_MAX_CONNECT_SECONDS = 10.0
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_UNSUPPORTED_STATUSES = (400, 404, 405, 415, 422, 501)
_MAX_ERROR_CHARACTERS = 300  # of a server's error message

T = TypeVar("T")


class UnreadableError(Exception):
    """A malformed reply, as from a broken connection or proxy."""


class _UnsupportedError(UserError):
    """The server does not have the path, or does not accept the request's format."""


class Endpoint:
    """One server; thread-safe."""

    def __init__(self, url: str, *, timeout: float, attempts: int, connections: int) -> None:
        """Args:
        url: scheme, host and port, with a path if the server is below one.
        timeout: seconds without data until an attempt fails.
        attempts: maximum number of attempts per request.
        connections: size of the connection pool.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._attempts = attempts
        self._timeout = urllib3.Timeout(connect=min(timeout, _MAX_CONNECT_SECONDS), read=timeout)
        # urllib3's retries do not cover reading and parsing the body.
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False)
        self._closed = threading.Event()

    def close(self) -> None:
        """Closes the connections and stops waiting retries."""
        self._closed.set()
        self._pool.clear()

    def get(self, path: str) -> Any:
        """The reply to a GET request; None if the server does not support it."""
        return self._try("GET", path, None)

    def try_post(self, path: str, body: Any) -> Any:
        """The reply to a POST request; None if the server does not support it."""
        return self._try("POST", path, body)

    def _try(self, method: str, path: str, body: Any) -> Any:
        try:
            return self._request(method, path, body, _parsed)
        except _UnsupportedError:
            return None

    def post(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """The reply to a POST request, parsed by `read`, which may raise UnreadableError."""
        return self._request("POST", path, body, lambda data: read(_parsed(data)))

    def send(self, path: str, body: Any) -> None:
        """Sends a POST request and ignores the reply's body."""
        self._request("POST", path, body, lambda data: None)

    def _request(self, method: str, path: str, body: Any, read: Callable[[bytes], T]) -> T:
        """Sends a request until it succeeds.

        Raises:
            UnreachableError: all attempts failed.
            UserError: the server rejected the request.
        """
        wait, reason, attempt = FIRST_WAIT_SECONDS, "", 0
        for attempt in range(1, self._attempts + 1):
            retry_after = 0.0
            try:
                reply = self._pool.request(
                    method,
                    self.url + path,
                    body=None if body is None else json.dumps(body).encode(),
                    headers=_headers(),
                    timeout=self._timeout,
                    redirect=False,  # send the key and prompts to no other host
                )
                if reply.status == 200:
                    return read(reply.data)
                reason = f"status {reply.status}: {_error_message(reply.data)}"
                if reply.status not in _TRANSIENT_STATUSES:
                    raise self._rejected(method, path, reply.status, reason)
                retry_after = _retry_after(reply.headers.get("Retry-After"))
            except UnreadableError as error:
                reason = f"an unreadable reply: {first_line(error)}"
            except urllib3.exceptions.LocationValueError as error:
                raise UserError(f"server.url={self.url}: {first_line(error)}.") from error
            except urllib3.exceptions.HTTPError as error:
                reason = _describe(error, self._timeout)
            if attempt < self._attempts:
                # Jitter keeps requests that failed together from being retried together.
                seconds = max(retry_after, wait * random.uniform(0.5, 1.5))
                log.info("%s%s: %s; retrying in %.1f s", self.url, path, reason, seconds)
                if self._closed.wait(seconds):
                    break
                wait = min(2 * wait, MAX_WAIT_SECONDS)
        raise UnreachableError(
            f"server.url={self.url}: {method} {path} failed after {attempt} "
            f"attempt{'s' if attempt > 1 else ''}; the last error was {reason}. Start the server, "
            "or change server.url, server.timeout, server.attempts or server.concurrency; "
            "finished batches are kept, and the same command resumes."
        )

    def _rejected(self, method: str, path: str, status: int, reason: str) -> UserError:
        kind = _UnsupportedError if status in _UNSUPPORTED_STATUSES else UserError
        advice = "check server.url and server.model"
        if status in (401, 403):
            advice = f"set the environment variable {KEY} to its API key"
        elif 300 <= status < 400:
            advice = "set server.url to the address to which it redirects"
        return kind(f"server.url={self.url}: {method} {path} was rejected with {reason}; {advice}.")


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
        raise UnreadableError(f"not JSON ({_error_message(data)})") from error


def _error_message(data: bytes) -> str:
    """A server's error message on one line."""
    text = data[: 10 * _MAX_ERROR_CHARACTERS].decode("utf-8", errors="replace")
    try:
        reply = json.loads(text)
        error = reply.get("error", reply) if isinstance(reply, dict) else reply
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:_MAX_ERROR_CHARACTERS] or "no message"


def _describe(error: urllib3.exceptions.HTTPError, timeout: urllib3.Timeout) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"no data for {timeout.read_timeout:g} s"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection: no server listens at this address"
    return f"{type(error).__name__}: {first_line(error)}"


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, at most MAX_WAIT_SECONDS; dates are ignored."""
    try:
        seconds = float(value or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS) if seconds == seconds else 0.0

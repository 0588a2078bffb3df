"""Sends JSON requests over HTTP and retries those that fail."""

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
import tenacity

from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError, first_line
from lr_exp.inference.engines import UnreachableError

log = logging.getLogger(__name__)

KEY = "LR_EXP_API_KEY"  # environment variable with the server's API key, if it needs one
FIRST_WAIT_SECONDS = 1.0  # doubled after each attempt ...
MAX_WAIT_SECONDS = 60.0  # ... up to this
_MAX_CONNECT_SECONDS = 10.0
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_UNSUPPORTED_STATUSES = (400, 404, 405, 415, 422, 501)
_MAX_ERROR_CHARACTERS = 300

T = TypeVar("T")


class RetryableError(Exception):
    """A failed attempt; the next one starts after `wait_seconds` or more."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class UnsupportedError(UserError):
    """The server does not have the path, or does not accept the request's format."""


class Endpoint:
    """The server at `server.url`; thread-safe."""

    def __init__(self, settings: ServerSettings) -> None:
        self.url = str(settings.url).rstrip("/").removesuffix("/v1")
        self._attempts, self._timeout = settings.attempts, settings.timeout
        timeout, connections = settings.timeout, settings.concurrency
        key = os.environ.get(KEY, "").strip()
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _MAX_CONNECT_SECONDS), pool=None),
            # Idle connections are not kept: the server may close them at any time.
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=0),
            follow_redirects=False,  # send the key and prompts to no other host
            trust_env=False,  # no proxies, and no passwords from ~/.netrc
        )

    def request(self, path: str, body: Any, read: Callable[[httpx2.Response], T]) -> T:
        """Sends a POST request, or GET if `body` is None, until it succeeds.

        Args:
            read: returns the result, or raises RetryableError if the reply is malformed.

        Raises:
            UnreachableError: all attempts failed.
            UserError: the server rejected the request.
        """
        method = "GET" if body is None else "POST"
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableError),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=_wait_seconds,
            before_sleep=lambda state: log.info(
                "%s%s: %s; retrying", self.url, path, _error(state)
            ),
            reraise=True,
        )
        try:
            return retrying(self._attempt, method, path, body, read)
        except RetryableError as error:
            raise UnreachableError(
                f"server.url={self.url}: {method} {path} failed after {self._attempts} attempt(s); "
                f"the last error was {error}. Start the server, or change server.url, "
                "server.timeout, server.attempts or server.concurrency; finished batches are "
                "kept, and the same command resumes."
            ) from error

    def request_if_supported(self, path: str, body: Any = None) -> dict[str, Any] | None:
        """The JSON object that the server replies; None if it does not support the request."""
        try:
            return self.request(path, body, parsed)
        except UnsupportedError:
            return None

    def _attempt(
        self, method: str, path: str, body: Any, read: Callable[[httpx2.Response], T]
    ) -> T:
        try:
            response = self._client.request(method, self.url + path, json=body)
            if response.status_code == 200:
                return read(response)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UserError(
                f"server.url={self.url}: {first_line(error)}. Set it to http://HOST:PORT."
            ) from error
        except httpx2.ReadTimeout as error:
            raise RetryableError(f"no data for {self._timeout:g} s") from error
        except httpx2.ConnectError as error:
            raise RetryableError("no connection: no server listens at this address") from error
        except httpx2.HTTPError as error:
            raise RetryableError(f"{type(error).__name__}: {first_line(error)}") from error
        status = response.status_code
        reason = f"status {status}: {_start(response)}"
        if status in _TRANSIENT_STATUSES:
            raise RetryableError(reason, retry_after(response.headers.get("Retry-After")))
        kind = UnsupportedError if status in _UNSUPPORTED_STATUSES else UserError
        advice = "check server.url and server.model"
        if status in (401, 403):
            advice = f"set the environment variable {KEY} to its API key"
        elif 300 <= status < 400:
            advice = "set server.url to the address to which it redirects"
        raise kind(f"server.url={self.url}: {method} {path} was rejected with {reason}; {advice}.")


def parsed(response: httpx2.Response) -> dict[str, Any]:
    try:
        reply = response.json()
    except (ValueError, RecursionError) as error:
        raise RetryableError(f"a reply that is not JSON ({_start(response)})") from error
    if not isinstance(reply, dict):
        raise RetryableError(f"a reply that is not a JSON object ({_start(response)})")
    return reply


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, at most MAX_WAIT_SECONDS; dates are ignored."""
    try:
        seconds = float(value or 0)
    except ValueError:
        return 0.0
    return min(seconds, MAX_WAIT_SECONDS) if seconds > 0 else 0.0


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    # Jitter keeps requests that failed together from being retried together.
    backoff = tenacity.wait_exponential(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS)
    jitter = tenacity.wait_random(0, FIRST_WAIT_SECONDS)
    return max(backoff(state) + jitter(state), _error(state).wait_seconds)


def _error(state: tenacity.RetryCallState) -> Any:
    return state.outcome and state.outcome.exception()


def _start(response: httpx2.Response) -> str:
    """The start of a reply's body, which describes an error, on one line."""
    return " ".join(response.text.split())[:_MAX_ERROR_CHARACTERS] or "no message"

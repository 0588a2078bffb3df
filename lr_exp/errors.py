"""Errors that a user can fix, and how they are shown: on one line, without secrets.

Text from models, data sets and servers passes through `printable` before it reaches a terminal, so
that no control sequence in it is obeyed. `redact` masks keys, tokens and passwords.
"""

import difflib
import logging
import netrc
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

_MOST_LISTED = 20


MASK = "***"

_SHORTEST_KEY = 16  # characters of what no setting is by chance
_SHORTEST = 8  # characters: what is shorter is a word that text may hold by chance

# What a terminal obeys or hides instead of showing it: controls but newline and tab, marks that
# turn the direction of writing, separators that some take for line ends, invisible letters, and
# halves of surrogate pairs, which no stream can encode.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_SECRET_NAME = re.compile(
    r"(?<![A-Z])(?:API|ACCESS|AUTH)?(?:KEYS?|TOKENS?)(?![A-Z])|SECRET|PASSWORD|PASSWD|PASSPHRASE",
    re.IGNORECASE,
)
_PLACE_NAME = re.compile(r"_(?:PATH|FILE|DIR)$", re.I)  # where a secret is, not what it is

# Repetitions are bounded: a long text must not take quadratic time.
_URL_LOGIN = re.compile(r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s/?#]{1,500}@")
_URL_QUERY = re.compile(
    r"([?&](?:api_?|access_|auth_)?(?:key|token|secret|password)=)[^\s&#'\"]{1,500}", re.I
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|wandb_v\d+_\w{20,}"
    r"|gh[opsur]_[A-Za-z0-9]{30,})"
)


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and what to change."""


def first_line(error: Exception) -> str:
    """What a library's error says first; its kind, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name closest to `name`, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    if len(names) > _MOST_LISTED:
        return " `python -m lr_exp --help` lists what there is."
    return f" Known: {', '.join(names)}." if names else ""


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey; what it would obey is spelt (`\x1b`).

    Newline and tab stay.
    """
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def redact(text: str) -> str:
    """Text with every secret replaced by `***`.

    Secrets are what `known_secrets` finds, logins in URLs, and what has the form of a key.
    """
    for secret in sorted(known_secrets(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL_LOGIN.sub(rf"\1{MASK}@", text)
    text = _URL_QUERY.sub(rf"\1{MASK}", text)
    return _SHAPES.sub(MASK, text)


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON-like value with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [map_strings(one, change) for one in value]
    return value


def secret_in(text: str) -> str | None:
    """What kind of secret a text holds, in words that do not tell it; None where it has none."""
    for secret, place in known_secrets().items():
        if secret in text and _is_like_a_key(secret):
            return f"the value of {place}"
    # What is hidden already (`https://***@host`) is none.
    if any(MASK not in found.group() for found in _URL_LOGIN.finditer(text)):
        return "a URL with a login in it"
    if any(MASK not in found.group() for found in _URL_QUERY.finditer(text)):
        return "a URL with a key in it"
    return "what looks like a key" if _SHAPES.search(text) else None


def _is_like_a_key(secret: str) -> bool:
    """Whether a text that holds it is refused: a word such as a model's name is only masked."""
    return len(secret) >= _SHORTEST_KEY and bool(re.search(r"\d", secret))


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _PLACE_NAME.search(name)


def known_secrets() -> dict[str, str]:
    """Every secret of this process and where it stands; read anew, since a login may come later.

    They are the values (8 characters or more) of environment variables with KEY, TOKEN, SECRET or
    PASSWORD in their names, the hub's token file, and the passwords in netrc, where W&B keeps its
    key.
    """
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        # A name like this may also stand for the place of a key.
        if is_secret_name(name) and not (os.path.isabs(value) and os.path.exists(value)):
            found |= dict.fromkeys(_lines(value), f"${name}")
    found |= dict.fromkeys(_lines(_hub_token()), "the hub's token")
    found |= dict.fromkeys(_netrc_passwords(), "a password in netrc")
    return found


def print_exception(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """Prints a traceback without secrets and control sequences; fits `sys.excepthook`."""
    sys.stderr.write(_traceback(kind, error, trace))
    sys.stderr.flush()


def print_error(error: BaseException | str) -> str:
    """Prints an error as the one line `error: …` on stderr, clean; returns what stands after it."""
    text = printable(redact(" ".join(str(error).split())))
    print(f"error: {text}", file=sys.stderr, flush=True)
    return text


def guard_logging() -> None:
    """From now on no record holds a secret or a control sequence, whichever handler writes it."""
    logging.setLogRecordFactory(_Record)


def guard_tracebacks() -> None:
    """Errors that end the process or a thread are shown by `show_exception`."""
    sys.excepthook = print_exception
    threading.excepthook = lambda told: print_exception(
        told.exc_type, told.exc_value, told.exc_traceback
    )


class _Record(logging.LogRecord):
    """A record whose text is clean before any formatter sees it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            self.exc_text = _traceback(*self.exc_info).rstrip()  # formatters take it as it is

    def getMessage(self) -> str:  # noqa: N802  the base class's name
        return printable(redact(super().getMessage()))


def _traceback(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    return printable(redact("".join(traceback.format_exception(kind, error, trace))))


def _lines(value: str) -> list[str]:
    """A secret's lines, since messages are put on one line; a key in PEM has many."""
    lines = (line.strip() for line in value.splitlines())
    return [line for line in lines if len(line) >= _SHORTEST]


def _hub_token() -> str:
    """The text of the hub's token file, looked for where huggingface_hub does; "" without one."""
    home = os.environ.get("HF_HOME")
    if not home:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        home = os.path.join(cache, "huggingface")
    return _read(os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token"))


def _netrc_passwords() -> tuple[str, ...]:
    path = os.path.expanduser(os.environ.get("NETRC") or os.path.join("~", ".netrc"))
    return _passwords(path, _stamp(path))


@lru_cache(maxsize=8)
def _passwords(path: str, stamp: tuple[int, int] | None) -> tuple[str, ...]:
    if stamp is None:
        return ()
    try:
        hosts = netrc.netrc(path).hosts.values()
    except (OSError, ValueError, netrc.NetrcParseError):  # not readable, not text, not its format
        return ()
    return tuple(secret for _, _, secret in hosts if secret and len(secret) >= _SHORTEST)


def _read(path: str) -> str:
    path = os.path.expanduser(path)
    return _text(path, _stamp(path))


@lru_cache(maxsize=8)
def _text(path: str, stamp: tuple[int, int] | None) -> str:
    if stamp is None:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""


def _stamp(path: str) -> tuple[int, int] | None:
    """What changes with a file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return status.st_mtime_ns, status.st_size

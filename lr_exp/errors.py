"""Errors that a user can fix, printed on one line, without secrets or control sequences."""

import argparse
import contextlib
import difflib
import functools
import io
import logging
import netrc
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

MASK = "***"
_MAX_LISTED = 20  # names in a message
_MIN_SECRET_LENGTH = 8  # characters; text may contain shorter ones by chance

# Characters that a terminal interprets or hides: controls except newline and tab, direction marks,
# Unicode line separators, invisible letters, and unpaired surrogates, which cannot be encoded.
_NOT_PRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_SECRET_NAME = re.compile(
    r"(?<![A-Z])(?:API|ACCESS|AUTH)?(?:KEYS?|TOKENS?)(?![A-Z])|SECRET|PASSWORD|PASSWD|PASSPHRASE",
    re.IGNORECASE,
)
_PATH_NAME = re.compile(r"_(?:PATH|FILE|DIR)$", re.I)  # the variable holds a path

# Repetitions are bounded, to avoid quadratic time on long text.
_URL_LOGIN = re.compile(r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s/?#]{1,500}@")
_URL_QUERY = re.compile(
    r"([?&](?:api_?|access_|auth_)?(?:key|token|secret|password)=)[^\s&#'\"]{1,500}", re.I
)
_KEY_FORMATS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|wandb_v\d+_\w{20,}"
    r"|gh[opsur]_[A-Za-z0-9]{30,})"
)


class UserError(ValueError):
    """Invalid input from the user; the message says what is wrong, where, and how to fix it."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@functools.cache
def warn_once(log: logging.Logger, message: str, *args: object) -> None:
    log.warning(message, *args)


def short_repr(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def counted(count: int, noun: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with the known name nearest to `name`, else a list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    if len(names) > _MAX_LISTED:
        return " `python -m lr_exp --help` lists the valid ones."
    return f" Known: {', '.join(names)}." if names else ""


def printable(text: str) -> str:
    r"""The text with control characters, except newline and tab, escaped (`\x1b`)."""
    return _NOT_PRINTABLE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def redact(text: str) -> str:
    """The text with secrets replaced by `***`: known secrets, logins in URLs, strings like keys."""
    for secret in sorted(known_secrets(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL_LOGIN.sub(rf"\1{MASK}@", text)
    text = _URL_QUERY.sub(rf"\1{MASK}", text)
    return _KEY_FORMATS.sub(MASK, text)


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Applies `change` to every string in a JSON-like value, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_strings(item, change) for item in value]
    return value


def is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _PATH_NAME.search(name)


def known_secrets() -> set[str]:
    """Every secret of this process; read on each call, since a login may be new.

    Sources are environment variables with names such as API_KEY, the hub's token file, and netrc,
    where W&B stores its key.
    """
    from huggingface_hub import constants  # reads the environment on import

    secrets: set[str] = set()
    for name, value in os.environ.items():
        # Such a variable may also hold the path of a key.
        if is_secret_name(name) and not (os.path.isabs(value) and os.path.exists(value)):
            secrets |= _lines(value)
    with contextlib.suppress(OSError, ValueError):
        secrets |= _lines(Path(constants.HF_TOKEN_PATH).read_text("utf-8", "replace"))
    path = os.path.expanduser(os.environ.get("NETRC") or "~/.netrc")
    with contextlib.suppress(OSError, ValueError, netrc.NetrcParseError):  # missing or malformed
        for _, _, password in netrc.netrc(path).hosts.values():
            secrets |= _lines(password or "")
    return secrets


def print_exception(error: BaseException | None) -> None:
    """Prints an error's traceback without secrets and control sequences."""
    print(_traceback(error), end="", file=sys.stderr, flush=True)


def print_error(error: BaseException | str) -> None:
    """Prints `error: MESSAGE` on one line to stderr, redacted."""
    text = printable(redact(" ".join(str(error).split())))
    print(f"error: {text}", file=sys.stderr, flush=True)


def is_debugging() -> bool:
    """Whether errors that a user can fix are raised instead of printed."""
    return os.environ.get("LR_EXP_DEBUG") == "1"


def parser_of(module: str, about: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m MODULE`; `about`, the module's docstring, is its help as written."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m {module}", description=about, formatter_class=layout)


def run_parser(
    module: str, about: str | None, out: Path, what: str, of: str = "the run"
) -> argparse.ArgumentParser:
    """As `parser_of`, for a command with overrides of `of` and a folder `out` of `what`."""
    parser = parser_of(module, about)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=f"settings of {of}")
    what = f"folder of {what} (default: {out})"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=what)
    return parser


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Makes a command print errors that a user can fix on one line, with status 1.

    Output ends without an error when its reader does, as in `| head`.
    """

    @functools.wraps(main)
    def run(words: Sequence[str] | None = None) -> int:
        guard_logging()
        guard_output()
        try:
            try:
                return main(words)
            finally:
                flush_output()
        except BrokenPipeError:
            return 0
        except (UserError, OSError) as error:
            if is_debugging():
                raise
            print_error(error)
            return 1

    return run


def guard_output() -> None:
    """Makes stdout show `?` for characters that its encoding lacks, as ASCII lacks `±`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def flush_output() -> None:
    """Writes buffered output; discards it and raises OSError if it cannot be written."""
    if sys.stdout is None:  # the process was started without one
        return
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise Python would try again at its end, and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def guard_logging() -> None:
    """Makes every log record free of secrets and control sequences, whatever its handler."""
    logging.setLogRecordFactory(_Record)


def guard_tracebacks() -> None:
    """Prints uncaught errors of the process and its threads with `print_exception`."""
    sys.excepthook = lambda _, error, __: print_exception(error)
    threading.excepthook = lambda hook: print_exception(hook.exc_value)


def run_program(main: Callable[[], int]) -> NoReturn:
    guard_tracebacks()
    sys.exit(main())


class _Record(logging.LogRecord):
    """A record whose text is cleaned before any formatter reads it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            self.exc_text = _traceback(self.exc_info[1]).rstrip()  # formatters use it unchanged

    def getMessage(self) -> str:  # noqa: N802  the base class's name
        return printable(redact(super().getMessage()))


def _traceback(error: BaseException | None) -> str:
    return printable(redact("".join(traceback.format_exception(error))))


def _lines(value: str) -> set[str]:
    """A secret's lines, such as those of a PEM key: messages may hold one without the others."""
    lines = (line.strip() for line in value.splitlines())
    return {line for line in lines if len(line) >= _MIN_SECRET_LENGTH}

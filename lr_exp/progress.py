"""How far a stage is: a bar on a terminal, a few plain lines elsewhere, nothing left in a sweep.

Knows counts, rates and terminals; knows nothing of what is counted. All of it goes to stderr, and
one `Progress` is shown at a time.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

BAR, LINES, FEW, NONE = "bar", "lines", "few", "none"

_REDRAW = 0.1  # seconds between two drawings of a bar
_LINE_AFTER = 5.0  # seconds until a plain line says that a stage has begun
_LINE_EVERY = 30.0  # seconds between two plain lines of a stage
_FEW_EVERY = 600.0  # the same in a sweep: a sign of life in stages that take hours
_WIDEST = 120  # columns; a longer bar says no more
_SHORTEST = 5  # marks; a shorter bar is left out
_CLEAR = "\r\x1b[K"  # to the line's start, and all of it erased

_chosen: tuple[str, bool] | None = None  # way and whether the bar leaves its last state
_current: "Progress | None" = None  # whose bar stands in the terminal's last line
_lock = threading.RLock()  # warnings may come from other threads


def choose(way: str | None, *, leave: bool = True) -> None:
    """How progress is shown from now on in this process.

    Args:
        way: BAR: a bar; LINES: a line where a stage ends, of a longer one where it began (after
            5 s) and one each 30 s between;
            FEW: a line for a stage that took more than 30 s, and one each 10 min; NONE: nothing.
            None is a bar on a terminal, else lines.
        leave: whether a bar stays on the screen when its stage is done.
    """
    global _chosen
    _chosen = None if way is None else (way, leave)


def choose_for_cells(*, side_by_side: bool) -> None:
    """How a sweep shows progress: its cells' tables stay, the stages' bars go.

    Args:
        side_by_side: cells run in several processes, whose bars would overwrite each other.
    """
    choose(BAR if on_terminal() and not side_by_side else FEW, leave=False)


def on_terminal() -> bool:
    """Whether stderr is a terminal that can move its cursor, with a person before it."""
    term, builds = os.environ.get("TERM", ""), os.environ.get("CI", "")
    return sys.stderr.isatty() and term != "dumb" and builds.lower() in ("", "0", "false")


class Progress:
    """One stage's progress. Use as a context manager: an error finds the bar's line ended."""

    def __init__(
        self, name: str, total: int, unit: str, *, found: int = 0, also: str | None = None
    ) -> None:
        """Args:
        name: what is being done, one word or two.
        total: of what is counted.
        unit: what is counted, in the singular: "question".
        found: how many of them were done before; they are in no rate.
        also: what else is counted, without a total: "token".
        """
        self._name, self._total, self._unit, self._also_unit = name, total, unit, also
        self._done = self._found = found
        self._also = 0
        self._note = ""
        self._timer: threading.Timer | None = None
        self._ended = False
        self._way, self._leave = _chosen or (BAR if on_terminal() else LINES, True)
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        global _current
        self._began = self._said = time.monotonic()
        if self._way == BAR:
            _current = self
            self._draw()
        elif self._way == LINES:
            self._timer = threading.Timer(_LINE_AFTER, self._say_begun)
            self._timer.daemon = True
            self._timer.start()
        return self

    def add(self, count: int = 1, *, also: int = 0, note: str | None = None) -> None:
        """Counts what was done just now.

        Args:
            count: of the unit.
            also: of the other unit.
            note: words to show from now on: "loss 0.0312".
        """
        with _lock:
            self._done += count
            self._also += also
            self._note = self._note if note is None else note
            passed = time.monotonic() - self._said
            if self._way == BAR and passed >= _REDRAW:
                self._draw()
            elif self._done < self._total and (
                (self._way == LINES and passed >= _LINE_EVERY)
                or (self._way == FEW and passed >= _FEW_EVERY)
            ):
                self._say(f"{self._name}: {self._state()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _current
        if self._timer is not None:
            self._timer.cancel()
        with _lock:
            self._ended = True
            if self._way == BAR:
                _current = None
                sys.stderr.write(f"{self._bar()}\n" if self._leave else _CLEAR)
                sys.stderr.flush()
            elif kind is None and (
                self._way == LINES or (self._way == FEW and self._seconds >= _LINE_EVERY)
            ):
                self._say(
                    f"{self._name}: {_count(self._done, self._unit)} in {duration(self._seconds)}"
                    f"{self._rates()}{self._noted()}"
                )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _state(self, *, shorter: bool = False) -> str:
        """Counts, rates and the time that is left."""
        told = f"{self._done:,}/{_count(self._total, self._unit)}{self._rates(shorter=shorter)}"
        new = self._done - self._found
        if self._done >= self._total:
            told += f", {duration(self._seconds)}"
        elif new:
            told += f", {duration(self._seconds / new * (self._total - self._done))} left"
        return told + self._noted()

    def _rates(self, *, shorter: bool = False) -> str:
        told = rate(self._done - self._found, self._seconds, "" if shorter else self._unit)
        if self._also_unit is not None and not shorter:
            told += rate(self._also, self._seconds, self._also_unit)
        return told

    def _noted(self) -> str:
        return f", {self._note}" if self._note else ""

    def _say_begun(self) -> None:
        with _lock:
            if not self._ended:
                self._say(f"{self._name}: {self._state()}")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        self._said = time.monotonic()
        sys.stderr.write(self._bar())
        sys.stderr.flush()

    def _bar(self) -> str:
        # A character in the last column would begin a new line, and so would a ^C after the bar.
        width = min(shutil.get_terminal_size().columns - 3, _WIDEST)
        share = self._done / self._total if self._total else 1.0
        start, state = f"{self._name} {share:4.0%} ", self._state()
        if width - len(start) - len(state) <= _SHORTEST:
            state = self._state(shorter=True)
        room = width - len(start) - len(state) - 1
        bar = ""
        if room >= _SHORTEST:
            filled, empty = _marks(sys.stderr.encoding)
            length = round(share * room)
            bar = f"{filled * length}{empty * (room - length)} "
        return f"{_CLEAR}{f'{start}{bar}{state}'[:width]}"


@contextmanager
def beside() -> Iterator[None]:
    """Takes the bar away while something else is written to the terminal, then draws it again."""
    with _lock:
        if _current is not None:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
        try:
            yield
        finally:
            if _current is not None:
                _current._draw()


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records to stderr on lines of their own, also while a bar is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        with beside():
            super().emit(record)


def duration(seconds: float) -> str:
    """`3.2 s`, `42 s`, `4 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(count: int, seconds: float, unit: str) -> str:
    """`, 38.2 questions/s`, or `, 4.1 s per question` for what is slow; "" before the first.

    Without a unit it is `, 38.2/s` and `, 4.1 s each`.
    """
    if not count or seconds <= 0:
        return ""
    a_second = count / seconds
    if a_second < 1:
        return f", {duration(1 / a_second)} {f'per {unit}' if unit else 'each'}"
    return f", {a_second:,.{0 if a_second >= 99.95 else 1}f}{f' {unit}s' if unit else ''}/s"


def _count(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def _marks(encoding: str | None) -> tuple[str, str]:
    try:
        "━─".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "#", "."
    return "━", "─"

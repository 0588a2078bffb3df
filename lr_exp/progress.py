"""Progress of a stage on stderr: a bar on a terminal, a few plain lines elsewhere.

One `Progress` is shown at a time.
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

_REDRAW_INTERVAL = 0.1  # seconds
_FIRST_LINE_AFTER = 5.0  # seconds from a stage's start
_LINE_INTERVAL = 30.0  # seconds
_FEW_INTERVAL = 600.0  # seconds; the same in a sweep
_MAX_COLUMNS = 120
_MIN_BAR_LENGTH = 5  # characters; a shorter bar is omitted
_CLEAR = "\r\x1b[K"  # moves to the line's start and erases it

# State of the terminal, of which a process has one.
_chosen: tuple[str, bool] | None = None  # style, and whether a finished bar stays
_current: "Progress | None" = None  # whose bar is in the terminal's last line
_lock = threading.RLock()  # other threads may log


def choose(way: str | None, *, leave: bool = True) -> None:
    """Sets how this process shows progress.

    Args:
        way: BAR: a bar; LINES: a line when a stage ends, one after its first 5 s and one every
            30 s; FEW: a line when a stage ends that took more than 30 s, and one every 10 min;
            NONE: nothing. None: a bar on a terminal, else lines.
        leave: whether a finished bar stays on the screen.
    """
    global _chosen
    _chosen = None if way is None else (way, leave)


def choose_for_cells(*, side_by_side: bool) -> None:
    """Sets how a sweep shows progress: finished bars are removed, only the cells' tables stay.

    Args:
        side_by_side: whether cells run in several processes, whose bars would overwrite each other.
    """
    choose(BAR if on_terminal() and not side_by_side else FEW, leave=False)


def on_terminal() -> bool:
    """Whether stderr is an interactive terminal that can move its cursor."""
    term, builds = os.environ.get("TERM", ""), os.environ.get("CI", "")
    return sys.stderr.isatty() and term != "dumb" and builds.lower() in ("", "0", "false")


class Progress:
    """The progress of one stage, as a context manager."""

    def __init__(
        self, name: str, total: int, unit: str, *, found: int = 0, also: str | None = None
    ) -> None:
        """Args:
        name: the stage, in one or two words.
        total: number of units.
        unit: what is counted, in the singular: "question".
        found: units that were done before; rates exclude them.
        also: a second unit, without a total: "token".
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
            self._timer = threading.Timer(_FIRST_LINE_AFTER, self._say_begun)
            self._timer.daemon = True
            self._timer.start()
        return self

    def add(self, count: int = 1, *, also: int = 0, note: str | None = None) -> None:
        """Adds finished units.

        Args:
            count: number of units.
            also: number of the second unit.
            note: text to show from now on: "loss 0.0312".
        """
        with _lock:
            self._done += count
            self._also += also
            self._note = self._note if note is None else note
            passed = time.monotonic() - self._said
            if self._way == BAR and passed >= _REDRAW_INTERVAL:
                self._draw()
            elif self._done < self._total and (
                (self._way == LINES and passed >= _LINE_INTERVAL)
                or (self._way == FEW and passed >= _FEW_INTERVAL)
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
                self._way == LINES or (self._way == FEW and self._seconds >= _LINE_INTERVAL)
            ):
                self._say(
                    f"{self._name}: {_count(self._done, self._unit)} in {duration(self._seconds)}"
                    f"{self._rates()}{self._noted()}"
                )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _state(self, *, shorter: bool = False) -> str:
        """Counts, rates and the remaining time."""
        text = f"{self._done:,}/{_count(self._total, self._unit)}{self._rates(shorter=shorter)}"
        new = self._done - self._found
        if self._done >= self._total:
            text += f", {duration(self._seconds)}"
        elif new:
            text += f", {duration(self._seconds / new * (self._total - self._done))} left"
        return text + self._noted()

    def _rates(self, *, shorter: bool = False) -> str:
        text = rate(self._done - self._found, self._seconds, "" if shorter else self._unit)
        if self._also_unit is not None and not shorter:
            text += rate(self._also, self._seconds, self._also_unit)
        return text

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
        # A character in the last column would start a new line, as would a ^C after the bar.
        width = min(shutil.get_terminal_size().columns - 3, _MAX_COLUMNS)
        share = self._done / self._total if self._total else 1.0
        start, state = f"{self._name} {share:4.0%} ", self._state()
        if width - len(start) - len(state) <= _MIN_BAR_LENGTH:
            state = self._state(shorter=True)
        room = width - len(start) - len(state) - 1
        bar = ""
        if room >= _MIN_BAR_LENGTH:
            filled, empty = _marks(sys.stderr.encoding)
            length = round(share * room)
            bar = f"{filled * length}{empty * (room - length)} "
        return f"{_CLEAR}{f'{start}{bar}{state}'[:width]}"


@contextmanager
def beside() -> Iterator[None]:
    """Removes the bar while something else is written to the terminal, then redraws it."""
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
    """Writes records to stderr on separate lines, even while a bar is shown."""

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
    """`, 38.2 questions/s`, or `, 4.1 s per question` below one per second; "" for a count of 0.

    Without a unit: `, 38.2/s` and `, 4.1 s each`.
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

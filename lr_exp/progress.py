"""Shows the progress of a stage on stderr: a bar on a terminal, a few plain lines elsewhere."""

import os
import sys
from contextlib import ExitStack
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

BAR, LINES, FEW, NONE = "bar", "lines", "few", "none"

_LINE_INTERVAL = 30.0  # seconds
_FEW_INTERVAL = 600.0  # seconds; in a sweep
_LINE = "{desc}: {n_fmt}/{total_fmt}{unit}s, {rate_noinv_fmt}, {remaining} left{postfix}"
_LAST_LINE = "{desc}: {n_fmt}{unit}s in {elapsed}, {rate_noinv_fmt}{postfix}"

# How this process shows progress, and whether a finished stage leaves a line; None: see `choose`.
_chosen: tuple[str, bool] | None = None


def choose(style: str | None, *, leave: bool = True) -> None:
    """Sets how this process shows progress.

    Args:
        style: BAR, LINES (every 30 s), FEW (every 10 min), NONE; None: BAR on a terminal, or LINES
        leave: whether a finished stage leaves a line; with FEW, only if it took at least 30 s.
    """
    global _chosen
    _chosen = None if style is None else (style, leave)


def choose_for_cells(*, side_by_side: bool) -> None:
    """Sets how a sweep shows progress. On a terminal, only the cells' tables remain.

    The bars of cells that run side by side would overwrite each other.
    """
    if on_terminal() and not side_by_side:
        choose(BAR, leave=False)
    else:
        choose(FEW)


def on_terminal() -> bool:
    """Whether stderr is an interactive terminal that can move its cursor."""
    term, builds = os.environ.get("TERM", ""), os.environ.get("CI", "")
    return sys.stderr.isatty() and term != "dumb" and builds.lower() in ("", "0", "false")


def announce(text: str) -> None:
    """Prints a line before work that shows no progress, such as loading a model."""
    style, leave = _style()
    if style in (BAR, LINES) and leave:
        print(text, file=sys.stderr, flush=True)


class Progress:
    def __init__(
        self, name: str, total: int, unit: str, *, found: int = 0, also: str | None = None
    ) -> None:
        """Args:
        name: the stage, in one or two words.
        unit: what is counted, in the singular: "question".
        found: units that were done before; rates exclude them.
        also: a second unit, without a total: "token".
        """
        self._options: dict[str, Any] = {"desc": name, "total": total, "initial": found}
        self._options["unit"] = f" {unit}"
        self._also_unit, self._also, self._note = also, 0, ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._style, self._leave = _style()
        if self._style == BAR:
            self._stack.enter_context(logging_redirect_tqdm(tqdm_class=_Bar))
            self._options |= {"file": sys.stderr, "dynamic_ncols": True}
        else:
            interval = _LINE_INTERVAL if self._style == LINES else _FEW_INTERVAL
            self._options |= {"file": _Lines(), "bar_format": _LINE, "mininterval": interval}
            self._options["delay"] = 1  # no line at the start
        # disable: passed, since a sweep disables the bars of libraries by tqdm's variable.
        bar = _Bar(leave=False, miniters=1, disable=self._style == NONE, **self._options)
        self._bar = self._stack.enter_context(bar)
        return self

    def add(self, count: int = 1, *, also: int = 0, note: str | None = None) -> None:
        """Adds finished units and second units, and replaces the `note`: "loss 0.0312"."""
        self._also += also
        self._note = note or self._note
        parts = [self._note] if self._note else []
        if self._also_unit and self._seconds:
            parts.insert(0, f"{self._also / self._seconds:,.1f} {self._also_unit}s/s")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(count)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_long = self._style != FEW or self._seconds >= _LINE_INTERVAL
        if kind is None and self._leave and is_long:
            self._bar.leave, self._bar.delay, self._bar.bar_format = True, 0, _LAST_LINE
        self._stack.close()

    @property
    def _seconds(self) -> float:
        return self._bar.format_dict["elapsed"]


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that starts no thread, since cells of a sweep may fork."""

    monitor_interval = 0


class _Lines:
    """A file for tqdm that prints each state as a line, instead of over the one before."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None: ...


def _style() -> tuple[str, bool]:
    return _chosen or (BAR if on_terminal() else LINES, True)


def duration(seconds: float) -> str:
    """`3.2 s`, `42 s`, `4 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"

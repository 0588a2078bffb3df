"""Compares two symbolic expressions with math-verify.

Answers are untrusted: expressions that are long or expensive to evaluate are rejected beforehand,
and every comparison has a timeout, on any thread.
"""

import ctypes
import logging
import math
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MAX_CHARACTERS = 400  # the benchmarks' longest reference has 230
_TIMEOUT_SECONDS = 10  # for parsing and comparing, which usually take milliseconds
_MAX_EXPONENT = 3_000  # product of the numbers in an exponent and in the powers it is nested in
_MAX_FACTORIAL = 1_000
_MAX_DEPTH = 20  # of brackets; the parser takes seconds on hundreds, references have at most 4

# math-verify warns that its own timeout, which works on the main thread only, is disabled.
logging.getLogger("math_verify").setLevel(logging.ERROR)

# Functions that build matrices of any size, or are slow even on small ones.
_MATRIX_FUNCTIONS = re.compile(
    r"eye|zeros|ones|hstack|vstack|nullspace|orthogonalize|diagonalize|eigen|svd|rref|rank"
)
_LONG_EXPONENT = re.compile(r"\d\s?[eE]\s?[+-]?\s?\d{4}")
_POWER_MARK = re.compile(r"\^|\*\*")
_SPECIAL = re.compile(r"\\(?:binom|choose|Gamma)")
_LARGE_OR_POWER = re.compile(r"\d{5}|\d\s?\}?\s?(?:\^|\*\*)")
_INTEGER = re.compile(r"\d+")
_RUN = re.compile(r"\\[A-Za-z]+|\d+|.")
_NEXT_POWER = re.compile(r"\s*(?:\^|\*\*)")
_OPENING, _CLOSING = "({[", ")}]"


def symbolically_equal(gold: str, answer: str) -> bool:
    """Whether two expressions are equal; False if either is invalid or too expensive to compare."""
    if _is_expensive(gold) or _is_expensive(answer):
        return False
    # Imported here because sympy takes a second to import, and most answers do not need it.
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from math_verify import verify as math_verify

    # boxed: its patterns backtrack, and the `$...$` below already anchors the expression (without
    # an anchor, "1/2 ..." is parsed as 1). units: it reduces `2ab` to 2 and `6m` to 6.
    notation = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="none",
        equations=False,
    )
    config = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=notation)]

    def parsed(text: str) -> list[Any]:
        return parse(
            f"${text}$",
            config,
            fallback_mode="no_fallback",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType] - None is documented
            raise_on_error=True,
        )

    try:
        with _time_limit(_TIMEOUT_SECONDS):
            golds = parsed(gold)
            answers = parsed(answer) if golds else []
            return bool(golds and answers) and bool(
                math_verify(
                    golds,
                    answers,
                    allow_set_relation_comp=True,
                    timeout_seconds=None,
                    raise_on_error=True,
                )
            )
    # An answer that makes sympy fail is wrong, and must not end the run.
    except (Exception, _TimeLimitExceeded):
        return False


class _TimeLimitExceeded(BaseException):
    """A BaseException, so that `except Exception` in sympy and math-verify does not catch it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises _TimeLimitExceeded in this thread after `seconds`, and every second from then on.

    It repeats because Python drops exceptions raised inside a finalizer.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    use_signal = hasattr(signal, "SIGALRM") and is_main_thread
    with _limit_by_signal(seconds) if use_signal else _limit_by_thread(seconds):
        yield


@contextmanager
def _limit_by_signal(seconds: float) -> Iterator[None]:
    """Raises from a signal handler, which works on the main thread only."""
    is_done = False

    def on_alarm(*_: object) -> None:
        if not is_done:
            raise _TimeLimitExceeded

    handler = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1)
        try:
            yield
        finally:
            is_done = True  # a later alarm must not raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _limit_by_thread(seconds: float) -> Iterator[None]:
    """Raises in this thread from a second thread, with PyThreadState_SetAsyncExc.

    A call hook (`sys.setprofile`) would slow sympy threefold and miss loops without calls.
    """
    caller = ctypes.c_ulong(threading.get_ident())
    is_done = threading.Event()
    lock = threading.Lock()  # nothing is raised after `is_done` is set

    def watch() -> None:
        wait = seconds
        while not is_done.wait(wait):
            with lock:
                if not is_done.is_set():
                    _raise_in_thread(caller, ctypes.py_object(_TimeLimitExceeded))
            wait = 1

    def stop() -> None:
        with lock:
            is_done.set()
        _raise_in_thread(caller, None)  # cancels an exception that is still pending

    try:
        threading.Thread(target=watch, daemon=True).start()
        yield
    finally:
        # Exceptions are a second apart: at most one of the two calls is interrupted.
        try:
            stop()
        finally:
            stop()


_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


def _is_expensive(text: str) -> bool:
    """Whether evaluating `text` might not terminate, judged by its powers and factorials.

    Python cannot interrupt a power of integers, so a timeout does not help with `9^{9^{9^9}}`. Errs
    on the side of True, since it runs only after the simpler comparisons failed. Quadratic in the
    length, which is at most 400.
    """
    if len(text) > _MAX_CHARACTERS or _depth(text) > _MAX_DEPTH:
        return True
    if _MATRIX_FUNCTIONS.search(text) or _LONG_EXPONENT.search(text):
        return True
    if text.count("\\exp") + text.count("\\Gamma") > 3 or re.search(r"\d{60}", text):
        return True
    if _SPECIAL.search(text) and _LARGE_OR_POWER.search(text):
        return True
    return _growth(text) > _MAX_EXPONENT or any(
        _is_expensive_factorial(text[_operand_start(text, mark.start()) : mark.start()])
        for mark in re.finditer("!", text)
    )


def _depth(text: str) -> int:
    """The deepest nesting of brackets, closed or not."""
    depth = deepest = 0
    for character in text:
        depth = max(0, depth + _depth_change(character))
        deepest = max(deepest, depth)
    return deepest


def _depth_change(character: str) -> int:
    return (character in _OPENING) - (character in _CLOSING)


def _is_expensive_factorial(operand: str) -> bool:
    return "!" in operand or bool(_POWER_MARK.search(operand)) or _product(operand) > _MAX_FACTORIAL


def _growth(text: str) -> float:
    """The largest product of nested exponents; inf for a tower of numbers."""
    powers: list[tuple[int, float]] = []  # position and growth of each power
    for mark in _POWER_MARK.finditer(text):
        exponent = text[mark.end() : _operand_end(text, mark.end())]
        tower = _POWER_MARK.search(exponent)
        if tower:
            # 10^{2^{n}} and 9^{9^9} grow without bound; e^{-x^2} and e^{a t^{2}} do not.
            below = exponent[: tower.start()].rstrip()[-1:]
            if not below.isalpha() or _POWER_MARK.search(exponent, tower.end()):
                return math.inf
        start = _operand_start(text, mark.start())
        base = text[start : mark.start()]
        inner = max((growth for position, growth in powers if position >= start), default=1.0)
        if "!" in base:
            inner *= _product(base)
        powers.append((mark.start(), inner * _product(exponent)))
    return max((growth for _, growth in powers), default=1.0)


def _product(text: str) -> float:
    """Product of the integers in `text`, each at least 2 so as to bound the sum; 1 if none."""
    result = 1.0
    for integer in _INTEGER.findall(text):
        result *= float(max(2, int(integer))) if len(integer) < 10 else math.inf
    return result


def _operand_end(text: str, start: int) -> int:
    """The end of the operand at `start`: signs, a group or a run, and all its exponents."""
    position = start
    while True:
        while position < len(text) and text[position] in " +-":
            position += 1
        if position < len(text) and text[position] in _OPENING:
            depth = 0
            while position < len(text):
                depth += _depth_change(text[position])
                position += 1
                if depth == 0:
                    break
        elif run := _RUN.match(text, position):
            position = run.end()
        power = _NEXT_POWER.match(text, position)
        if power is None or power.end() == len(text):
            return position
        position = power.end()


def _operand_start(text: str, end: int) -> int:
    """The start of the operand that ends at `end`: a group or a run, and its factorials."""
    position = end
    while position > 0 and text[position - 1] in " !":
        position -= 1
    if position > 0 and text[position - 1] in _CLOSING:
        depth = 0
        while position > 0:
            position -= 1
            depth += _depth_change(text[position])
            if depth == 0:
                break
    else:
        while position > 0 and text[position - 1].isalnum():
            position -= 1
    return position

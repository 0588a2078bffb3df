"""Whether two expressions are equal, by math-verify.

Knows which texts are safe to evaluate and for how long; knows neither notations nor questions.
Answers are hostile data, so what reaches math-verify is short, passed a screen against expressions
that explode, and has a deadline on every thread.
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

_MAX_SYMBOLIC_CHARACTERS = 400  # handed to math-verify; the longest reference known has 230
_SECONDS = 10  # for both parses and the comparison, which take milliseconds as a rule
_MAX_EXPONENT = 3_000  # product of the numbers in one exponent, and through nested powers
_MAX_FACTORIAL = 1_000
_MAX_DEPTH = 20  # of brackets; the parser takes seconds on hundreds, references have up to 4

# math-verify warns that its own time-out, which needs the main thread, is off.
logging.getLogger("math_verify").setLevel(logging.ERROR)

# Functions that build matrices of any size, or take ages on a small one.
_MATRIX_FUNCTIONS = re.compile(
    r"eye|zeros|ones|hstack|vstack|nullspace|orthogonalize|diagonalize|eigen|svd|rref|rank"
)
_LONG_EXPONENT = re.compile(r"\d\s?[eE]\s?[+-]?\s?\d{4}")
_POWER_MARK = re.compile(r"\^|\*\*")
_SPECIAL = re.compile(r"\\(?:binom|choose|Gamma)")
_LARGE_OR_POWER = re.compile(r"\d{5}|\d\s?\}?\s?(?:\^|\*\*)")
_INTEGER = re.compile(r"\d+")
_RUN = re.compile(r"\\[A-Za-z]+|\d+|.")
_POWER_ABOVE = re.compile(r"\s*(?:\^|\*\*)")
_OPENING, _CLOSING = "({[", ")}]"


def symbolically_equal(gold: str, answer: str) -> bool:
    if _may_explode(gold) or _may_explode(answer):
        return False
    # Importing sympy takes a second; most answers never come here.
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from math_verify import verify as math_verify

    # No boxes: their patterns backtrack, and `$...$` around the whole already anchors it (without
    # an anchor, "1/2 ..." is read as 1).
    # Its units go too far: they make 2 of `2ab` and 6 of `6m`.
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
        with _deadline(_SECONDS):
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
    # Whatever sympy makes of a model's answer, the answer is wrong and the run goes on.
    except (Exception, _OutOfTime):
        return False


class _OutOfTime(BaseException):
    """No Exception, so that the handlers of sympy and math-verify let it pass."""


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _OutOfTime in this thread after `seconds`, and again every second until it is over.

    Again, because Python drops what is raised while it runs a finalizer.
    """
    main = threading.current_thread() is threading.main_thread()
    by_alarm = hasattr(signal, "SIGALRM") and main
    with _alarm(seconds) if by_alarm else _watch(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """The deadline by a signal, which reaches the main thread only."""
    over = False

    def ring(*_: object) -> None:
        if not over:
            raise _OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1)
        try:
            yield
        finally:
            over = True  # from here on an alarm is late, and must not raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _watch(seconds: float) -> Iterator[None]:
    """The deadline by a second thread, which has the interpreter raise in this one.

    A hook on calls (`sys.setprofile`) slows sympy threefold, and never sees a loop without calls.
    """
    watched = ctypes.c_ulong(threading.get_ident())
    over = threading.Event()
    lock = threading.Lock()  # what is raised, is raised before `over`

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    _raise_in_thread(watched, ctypes.py_object(_OutOfTime))
            wait = 1

    def stop() -> None:
        with lock:
            over.set()
        _raise_in_thread(watched, None)  # takes back what has not arrived yet

    try:
        threading.Thread(target=watch, daemon=True).start()
        yield
    finally:
        # What is raised comes a second apart: if the first clean-up is hit, the second is not.
        try:
            stop()
        finally:
            stop()


_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


def _may_explode(text: str) -> bool:
    """Whether evaluating `text` might not end: a cheap look at its powers and factorials.

    A power of integers is one uninterruptible operation, so no deadline helps against
    `9^{9^{9^9}}`. Too careful rather than too lax: it runs only where plainer comparisons failed.
    Quadratic in the length, which is at most 400.
    """
    if len(text) > _MAX_SYMBOLIC_CHARACTERS or _depth(text) > _MAX_DEPTH:
        return True
    if _MATRIX_FUNCTIONS.search(text) or _LONG_EXPONENT.search(text):
        return True
    if text.count("\\exp") + text.count("\\Gamma") > 3 or re.search(r"\d{60}", text):
        return True
    if _SPECIAL.search(text) and _LARGE_OR_POWER.search(text):
        return True
    return _growth(text) > _MAX_EXPONENT or any(
        _explosive_factorial(text[_operand_start(text, mark.start()) : mark.start()])
        for mark in re.finditer("!", text)
    )


def _depth(text: str) -> int:
    """The deepest nesting of brackets, whether or not they are closed."""
    depth = deepest = 0
    for character in text:
        depth = max(0, depth + _step(character))
        deepest = max(deepest, depth)
    return deepest


def _step(character: str) -> int:
    return (character in _OPENING) - (character in _CLOSING)


def _explosive_factorial(operand: str) -> bool:
    return "!" in operand or bool(_POWER_MARK.search(operand)) or _product(operand) > _MAX_FACTORIAL


def _growth(text: str) -> float:
    """The largest product of exponents that stand above one another; inf for a numeric tower."""
    powers: list[tuple[int, float]] = []  # where each mark stands, and the growth of its power
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
    """Product of the integers in `text` (1 without any), at least as large as their sum."""
    result = 1.0
    for integer in _INTEGER.findall(text):
        result *= float(max(2, int(integer))) if len(integer) < 10 else math.inf
    return result


def _operand_end(text: str, start: int) -> int:
    """The end of what follows an operator: a sign, a group or run, and all powers above it."""
    position = start
    while True:
        while position < len(text) and text[position] in " +-":
            position += 1
        if position < len(text) and text[position] in _OPENING:
            depth = 0
            while position < len(text):
                depth += _step(text[position])
                position += 1
                if depth == 0:
                    break
        elif run := _RUN.match(text, position):
            position = run.end()
        above = _POWER_ABOVE.match(text, position)
        if above is None or above.end() == len(text):
            return position
        position = above.end()


def _operand_start(text: str, end: int) -> int:
    """The start of what an operator follows: a group or a run, with the factorials on it."""
    position = end
    while position > 0 and text[position - 1] in " !":
        position -= 1
    if position > 0 and text[position - 1] in _CLOSING:
        depth = 0
        while position > 0:
            position -= 1
            depth += _step(text[position])
            if depth == 0:
                break
    else:
        while position > 0 and text[position - 1].isalnum():
            position -= 1
    return position

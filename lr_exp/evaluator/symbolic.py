"""Compares two symbolic expressions with math-verify, in a process of its own.

Answers are untrusted: expressions that are long or expensive to evaluate are rejected beforehand,
and a comparison that takes too long ends its process.
"""

import atexit
import json
import math
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast

from lr_exp.errors import UserError

_MAX_CHARACTERS = 400  # the benchmarks' longest reference has 230
_TIMEOUT_SECONDS = 1.0  # of CPU time for parsing and comparing, which usually take milliseconds
_MAX_EXPONENT = 3_000  # product of the numbers in an exponent and in the powers it is nested in
_MAX_FACTORIAL = 1_000
_MAX_DEPTH = 20  # of brackets; the parser takes seconds on hundreds, references have at most 4
_WORKER = Path(__file__).with_name("symbolic_worker.py")

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
    """Whether two expressions are equal; False if either is invalid or too expensive to compare.

    Raises UserError if math-verify cannot be started, TimeoutError after one second of comparing.
    """
    if _is_expensive(gold) or _is_expensive(answer):
        return False
    return _comparer.are_equal(gold, answer)


class _Comparer:
    """A process that compares, started at the first comparison and again after it was ended.

    Not a pool of multiprocessing: one that does not fork imports the user's script again, and
    forking a process with torch's threads may deadlock.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def are_equal(self, gold: str, answer: str) -> bool:
        with self._lock:
            try:
                process = self._process or self._start()
                reply = self._reply(process, json.dumps([gold, answer]) + "\n")
            except BaseException:  # also Ctrl-C: the reply must not be read as the next one's
                self.stop()
                raise
        if not reply:
            raise TimeoutError
        return reply == "true\n"

    def _start(self) -> subprocess.Popen[str]:
        # -P: otherwise Python imports this folder's `numbers` instead of its own.
        words = [sys.executable, "-P", str(_WORKER), str(_TIMEOUT_SECONDS)]
        self._process = process = subprocess.Popen(  # noqa: S603 - our own program
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process
        )
        if not self._reply(process):
            raise UserError(
                "math-verify, which grades symbolic answers, cannot be started (its error is "
                "above): install lr_exp again."
            )
        return process

    def _reply(self, process: subprocess.Popen[str], request: str = "") -> str:
        """The line that the process answers, or "" if it has ended."""
        stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
        try:
            stdin.write(request)
            stdin.flush()
            reply = stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            self.stop()
        return reply

    def stop(self) -> None:
        """Ends the process; the next comparison starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_comparer = _Comparer()
atexit.register(_comparer.stop)


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

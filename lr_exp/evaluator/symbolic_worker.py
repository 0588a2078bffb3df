"""The program that compares expressions with math-verify, started by `symbolic`.

Reads two expressions and a limit in seconds of CPU time from stdin. Writes whether they are equal
and the seconds left to stdout, one JSON value a line; null for a comparison that exceeds the limit.
The kernel ends even an operation that Python cannot interrupt. It imports nothing of this package,
so that it starts fast.
"""

import json
import logging
import os
import random
import re
import resource
import signal
import sys
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from latex2sympy2_extended.math_normalization import normalize_latex
from latex2sympy2_extended.symbols import GREEK_LETTER_MAP
from math_verify import verify

# units: it reduces `2ab` to 2 and `6m` to 6.
_NOTATION = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_SYMBOL = re.compile(
    r"(\\[A-Za-z]+|[A-Za-z])(?:\s?_\s?(\w|\\[A-Za-z]+|\{(?:[^{}]|\{[^{}]*\})*\}))?((?:'|\^\s?\{?(?:\s?\\prime)+\s?\}?)*)"
)
_GREEK = frozenset(GREEK_LETTER_MAP.values())
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_SEVERAL = re.compile(r"\b(?:or|and)\b|\\cup|,")
_EITHER = re.compile(r"\s*(?:\\cup|,?\s*\\text\s?\{\s*or\s*\}|,?\s*\bor\b)\s*")
_BOTH = re.compile(r"\s*(?:\\text\s?\{\s*and\s*\}|\band\b)\s*")
_IMAGINARY_UNIT = {sympy.I: sympy.Symbol("I"), sympy.Symbol("i", real=True): sympy.I}
_PIECEWISE = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Mod, sympy.Min, sympy.Max, sympy.sign)
_DISCRETE = (sympy.factorial, sympy.binomial)
_MAX_BYTES = 2**32
_DECIMAL_TOLERANCE = 1e-4  # as between numbers


def _as_name(symbol: re.Match[str]) -> str:
    r"""Wraps symbols that the grammar rejects (`E_1`, `L_\odot`) or whose primes it drops."""
    base, index, primes = symbol.groups()
    is_function = symbol.string[symbol.end() :].lstrip().startswith("(")
    is_gamma = base == "\\gamma" or (base == "\\Gamma" and not is_function)
    index = index or ""
    is_letter = len(base) == 1 or base[1:] in _GREEK
    is_indexed = is_letter and index and (base in "Ee" or len(index) > len("{1}"))
    if not (primes or is_gamma or is_indexed):
        return symbol[0]
    name = re.sub(r"\\text|[{}\s\\]", "", f"{base}_{index}")
    count = primes.count("'") + primes.count("prime")
    return rf"\text{{{name}{'p' * count}}}"


def _parsed(text: str) -> Any:
    for letter, name in GREEK_LETTER_MAP.items():
        text = text.replace(letter, f"\\{name} ") if len(letter) == 1 else text
    text = normalize_latex(_SYMBOL.sub(_as_name, text), _NOTATION)
    value: Any = latex2sympy(
        text, is_real=True, normalization_config=None, conversion_config=_CONVERSION
    )
    complex_value = value.has(sympy.I) or sympy.Symbol("i", real=True) in value.free_symbols
    return value.xreplace(_IMAGINARY_UNIT) if complex_value else value


def _are_equal(gold: str, answer: str) -> bool:
    if any(_RELATION.search(text) and _SEVERAL.search(text) for text in (gold, answer)):
        return _as_set(gold) == _as_set(answer)
    first, second = _parsed(gold), _parsed(answer)
    if all(isinstance(one, sympy.Expr) and not one.is_Matrix for one in (first, second)):
        agree = _agree(first, second)
        if agree is not None:
            return agree
    options = {"timeout_seconds": None, "raise_on_error": True}
    return bool(verify(first, second, allow_set_relation_comp=True, **options))


def _as_set(text: str) -> sympy.Set:
    r"""The set that `x < 0 \text{ or } x > 1` or `(-\infty,0) \cup (1,\infty)` states."""
    if not re.search(r"[(\[{]", text):
        text = text.replace(",", " or ")
    return sympy.Union(
        *(sympy.Intersection(*map(_region, _BOTH.split(part))) for part in _EITHER.split(text))
    )


def _region(text: str) -> sympy.Set:
    value = _parsed(text)
    return value if isinstance(value, sympy.Set) else value.as_set()


def _agree(first: Any, second: Any) -> bool | None:
    """Whether two expressions have equal values at random points; None if they have no values.

    Analytic expressions that agree on an interval are equal there, so roots and logarithms are
    those of positive quantities. Simplifying instead takes seconds for some logarithms.
    """
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    rounded = first.has(sympy.Float) or second.has(sympy.Float)
    is_discrete = bool(symbols) and (first.has(*_DISCRETE) or second.has(*_DISCRETE))
    is_piecewise = bool(symbols) and (first.has(*_PIECEWISE) or second.has(*_PIECEWISE))
    verdicts = []
    for seed in range(30 if is_piecewise or is_discrete else 2):
        numbers = random.Random(seed)
        low, high, step = (-9, 30, seed % 2 * 3 + 1) if is_piecewise else (seed, seed + 1, 10**6)
        low, high, step = (0, 30, 1) if is_discrete else (low, high, step)
        point: Any = {
            symbol: sympy.Rational(numbers.randint(low * step + 1, high * step), step)
            for symbol in symbols
        }
        gap = (first - second).subs(point).doit().evalf(2, maxn=3_000)
        size = max(abs(first.subs(point).evalf()), abs(second.subs(point).evalf()))
        if not (gap.is_number and gap.is_finite and size.is_finite):
            if is_discrete:  # the factorial of a negative number
                continue
            return None
        zero = all(part == 0 or part._prec == 1 for part in gap.as_real_imag())
        verdicts.append(zero or (rounded and bool(abs(gap) <= _DECIMAL_TOLERANCE * size)))
    return (all if is_piecewise or is_discrete else any)(verdicts) if verdicts else None


def main() -> None:
    """Compares until stdin ends, in a child process: the kernel ends it if a comparison takes long.

    Forking another child takes milliseconds, starting another program a second.
    """
    logging.disable()  # math-verify warns that its own timeouts are disabled
    results, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    _are_equal("x^2-1", "(x-1)(x+1)")  # loads what the first comparison needs
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    while child := os.fork():
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return  # stdin has ended
        print("null", file=results, flush=True)
    for line in sys.stdin:
        gold, answer, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
        try:
            equal = _are_equal(gold, answer)
        except Exception:  # an answer that makes sympy fail is wrong
            equal = False
        left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([equal, left]), file=results, flush=True)


if __name__ == "__main__":
    main()

"""Finds the first false `expression = number` in a text, such as `13 - 8 = 6`."""

import re
from fractions import Fraction

_NUMBER = r"\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,9})?"
_OPERATOR = r"(?:\\times|\\cdot|\\div|[-+*/x×·÷−])"  # noqa: RUF001
_PART = re.compile(rf"\s{{0,3}}({_OPERATOR})\s{{0,3}}[$€£]?({_NUMBER})")
_EQUATION = re.compile(
    rf"(?<![\d.,)\]}}^])(?P<left>{_NUMBER}(?:{_PART.pattern}){{1,20}})\s{{0,3}}=\s{{0,3}}[$€£]?"
    # Not before a percent sign or the rest of another expression.
    rf"(?P<right>-?{_NUMBER})(?![\d%^]|\s\d|\.\d|\s{{0,3}}{_OPERATOR}\s{{0,3}}[\d(\\a-z])"
)
_OPEN = re.compile(rf"(?:{_OPERATOR}|\^)\s{{0,3}}[$€£]?$")  # the expression began earlier


def first_false_equation(text: str) -> tuple[int, int] | None:
    r"""The span of the number of the first false `expression = number`; None if there is none.

    Reads sums, differences, products (also `\times`) and quotients of numbers, in exact arithmetic.
    A number with decimal places may differ by one unit of its last place. Expressions with
    brackets, powers, percentages, variables or words are skipped.
    """
    for found in _EQUATION.finditer(text):
        value, written = _value(found["left"]), found["right"]
        places = len(written.partition(".")[2])
        tolerance = Fraction(1, 10**places) if places else 0
        is_open = _OPEN.search(text[max(0, found.start() - 12) : found.start()])
        if not is_open and value is not None and abs(value - _number(written)) > tolerance:
            return found.span("right")
    return None


def _value(expression: str) -> Fraction | None:
    """The value of an expression; None if it divides by 0."""
    first, *_ = _PART.split(expression)
    terms = [_number(first)]
    for operator, digits in _PART.findall(expression):
        number = _number(digits)
        if operator in "+-−":  # noqa: RUF001
            terms.append(number if operator == "+" else -number)
        elif operator not in ("/", "÷", "\\div"):
            terms[-1] *= number
        elif number:
            terms[-1] /= number
        else:
            return None
    return sum(terms, Fraction(0))


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))

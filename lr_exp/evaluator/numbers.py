"""Parses numbers with units and percent signs as exact fractions; compares them with tolerance."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from lr_exp.evaluator.normalize import without_unit

RELATIVE_TOLERANCE = Fraction(1, 10_000)  # between a decimal and another number, as the toolkit's
MIN_ROUNDED_DIGITS = 3  # a decimal with as many significant digits equals what rounds to it


@dataclass(frozen=True)
class WrittenNumber:
    value: Fraction  # before the percent sign is applied
    # Decimal places without trailing zeros (negative for 4.5e33); None for integers and fractions,
    # which are exact.
    places: int | None = None
    percent: bool = False


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,300})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{0,300}})?|\.\d{{1,300}})"
_POWER = r"10\s*(?:\^|\*\*)\s*(?:\{\s*(?P<power>[+-]?\s?\d{1,4})\s*\}|(?P<power_digits>-?\d{1,4}))"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\s*[€£¥]?\s*(?:
      (?:(?P<whole>{_DIGITS})\s*)?\\frac\{{\s*(?P<top>-?{_DECIMAL})\s*\}}\{{\s*(?P<bottom>{_DECIMAL})\s*\}}
    | (?P<mixed>{_DIGITS})\s+(?P<mixed_top>\d{{1,9}})\s?/\s?(?P<mixed_bottom>\d{{1,9}})(?![\d./])
    | (?P<left>{_DECIMAL})\s*/\s*(?P<right>{_DECIMAL})(?![\d./^])
    | {_POWER}
    | (?P<decimal>{_DECIMAL})
      (?:\s*(?:\\times|\\cdot|\*|x)\s*{_POWER.replace("power", "scale")}
        |[eE](?P<exponent>[+-]?\d{{1,4}})(?!\d))?
    )""",
    re.VERBOSE,
)
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORD_VALUES = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
# Any text without digits may be the unit of an answer that must be a number.
_LOOSE_UNIT = re.compile(
    r"(?:(?=[\s(\\])(?!\s*(?:\\text\s?\{)?\s*(?:and|or|dozen)\b)|(?=[a-z]{2,3}\b))"
    r"(?:[^\d=+%^,]|\^\s?\{?-?\d\}?|\\cdot)*"
)


def parse_number(text: str, *, strict_units: bool) -> WrittenNumber | None:
    r"""Parses a number with an optional currency, percent sign and unit; None for other text.

    Expects `normalize`d text. Reads integers, decimals, fractions (`2/3`, `\frac{2}{3}`), mixed
    numbers, `4.5e33`, `4.5 \times 10^{33}`, `10^{-8}` and thousands separators.

    strict_units: units of one or two letters must be known ones, such as `cm`: `2 x` is a product.
    """
    text = text.strip()
    negative = False
    for _ in range(2):  # (5), -(1/3)
        inner = re.fullmatch(r"(-?)\s*\(([^(),]*)\)", text)
        if inner:
            negative ^= inner[1] == "-"
            text = inner[2].strip()
    text = as_digits(text)
    text = without_unit(text, symbols=False)
    match = _NUMBER.match(text)
    if match is None:
        return None
    unit = text[match.end() :]
    percent = unit.lstrip().startswith("%")
    unit = unit.lstrip()[1:] if percent else unit
    if unit.strip() and (strict_units or not _LOOSE_UNIT.fullmatch(unit)):
        return None
    number = _value(match)
    if number is None:
        return None
    value, places = number
    return WrittenNumber(-value if negative ^ (match["sign"] == "-") else value, places, percent)


def _value(match: re.Match[str]) -> tuple[Fraction, int | None] | None:
    """The unsigned value and its `places`; None if the denominator is zero."""
    digits = {
        name: (text or "").replace(",", "").rstrip(".") for name, text in match.groupdict().items()
    }
    if match["top"]:
        whole, top, bottom = digits["whole"], digits["top"], digits["bottom"]
    elif match["mixed"]:
        whole, top, bottom = digits["mixed"], digits["mixed_top"], digits["mixed_bottom"]
    elif match["left"]:
        whole, top, bottom = "", digits["left"], digits["right"]
    else:
        scale = match["power"] or match["power_digits"] or match["exponent"]
        scale = scale or match["scale"] or match["scale_digits"] or "0"
        exponent = int(scale.replace(" ", ""))
        written = digits["decimal"] or "1"
        places = len(written.partition(".")[2].rstrip("0")) - exponent
        measured = match["exponent"] or match["scale"] or match["scale_digits"]
        exact = places <= 0 and not measured
        return Fraction(written) * Fraction(10) ** exponent, None if exact else places
    if not Fraction(bottom):
        return None
    return Fraction(whole or 0) + Fraction(top) / Fraction(bottom), None


def as_digits(text: str) -> str:
    """`twenty-five apples` as `25 apples`."""
    first, space, rest = text.partition(" ")
    values = [_WORD_VALUES.get(word, -1) for word in first.casefold().split("-")]
    return text if min(values) < 0 else f"{sum(values)}{space}{rest}"


def numbers_equal(first: WrittenNumber, second: WrittenNumber) -> bool:
    """Whether two numbers are equal by the rules in `verify`. Symmetric."""
    if first.percent == second.percent:
        return _is_close(first, second)
    percent, plain = (first, second) if first.percent else (second, first)
    return _is_close(percent, plain) or _is_close(_apply_percent(percent), plain)


def _apply_percent(number: WrittenNumber) -> WrittenNumber:
    """Divides by 100: 45 becomes the decimal 0.45; fractions stay exact."""
    places = number.places
    if places is None and number.value.denominator == 1:
        places = 0
    return WrittenNumber(number.value / 100, None if places is None else places + 2)


def _is_close(first: WrittenNumber, second: WrittenNumber) -> bool:
    if first.value == second.value:
        return True
    if first.places is None and second.places is None:
        return False  # both are exact
    largest = max(abs(first.value), abs(second.value))
    if abs(first.value - second.value) <= RELATIVE_TOLERANCE * largest:
        return True
    return _rounds_to(first.value, second) or _rounds_to(second.value, first)


def _rounds_to(value: Fraction, decimal: WrittenNumber) -> bool:
    """Whether `value` rounds (half away from zero) to the decimal, at the decimal's precision."""
    if decimal.places is None or decimal.places <= 0:
        return False
    scale = 10**decimal.places
    digits = abs(decimal.value) * scale
    if digits < 10 ** (MIN_ROUNDED_DIGITS - 1) or value * decimal.value < 0:
        return False
    return math.floor(abs(value) * scale + Fraction(1, 2)) == digits

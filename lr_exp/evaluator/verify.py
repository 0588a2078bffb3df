r"""Whether an extracted answer equals the reference. The second of three grading steps.

Knows notations of mathematics; knows neither models nor questions. In this order, the first "yes"
counts: the same text after normalizing LaTeX; the same number (exact fractions, units and currency
aside); the same words; math-verify. Answers are hostile data, so what reaches math-verify is short,
passed a screen against expressions that explode, and has a deadline on every thread.
"""

import logging
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lr_exp.data import LETTERS
from lr_exp.errors import UserError
from lr_exp.evaluator.extract import choice_letter

RELATIVE_TOLERANCE = Fraction(1, 10_000)
"""Between a decimal and another number: the toolkit's tolerance."""
ROUNDED_DIGITS = 3
"""A decimal also equals what rounds to it, if it shows this many significant digits or more."""

_MAX_CHARACTERS = 2_000  # of an answer; a longer one is compared as text only
_MAX_SYMBOLIC_CHARACTERS = 400  # handed to math-verify; the longest reference known has 230
_SECONDS = 5  # for each parse and comparison; off the main thread, half of all three together
_MAX_EXPONENT = 3_000  # product of the numbers in one exponent, and through nested powers
_MAX_FACTORIAL = 1_000

# math-verify warns whenever its own time-out is off or hits; both are handled here.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def check_reference(reference: str, kind: str, choices: Sequence[str] = ()) -> None:
    """Raise UserError for a reference that no answer could ever be compared with.

    kind `number`: it must be a number; `choice`: a letter of one of the options; `math`: it must
    hold something, with balanced braces. A `math` reference that math-verify cannot parse (a
    time, a name, `f(x)=ax+b, where ...`) is legitimate and is compared as text.
    """
    text = normalize(reference)
    if not text:
        raise UserError(f"the reference {reference!r} is empty.")
    if kind == "choice":
        letters = LETTERS[: len(choices) or len(LETTERS)]
        if len(reference.strip()) != 1 or reference.strip() not in letters:
            raise UserError(f"the reference {reference!r} is none of the options {letters}.")
    elif kind == "number":
        if parse_number(text, strict_units=False) is None:
            raise UserError(f"the reference {reference!r} is not a number (answer: number).")
    elif kind == "math":
        if not _braces_balance(text):
            raise UserError(f"the reference {reference!r} has braces that do not balance.")
    else:
        raise ValueError(f"kind {kind!r} is none of number, math, choice")


def verify(extracted: str | None, reference: str, kind: str, choices: Sequence[str] = ()) -> bool:
    r"""Whether the extracted answer is right.

    Numbers are compared as numbers: `1,234`, `1234.0`, `\$1234` and `1234 dollars` are the same.
    Two integers must be equal. A decimal equals a number within a relative 1e-4, or one that
    rounds to it if it shows three significant digits (`0.667` is 2/3, `0.67` is not). If exactly
    one side has a percent sign it may be read or overlooked, as in the toolkit (`9\%` is 9 and
    0.09); the toolkit also takes 900 for 9 without any sign, which is not done here.
    A choice is right by its letter, or by its text where no other option has the same.

    Raises UserError for a broken reference; whatever goes wrong with the answer makes it wrong.
    """
    check_reference(reference, kind, choices)
    if extracted is None or not extracted.strip():
        return False
    try:
        return matches(extracted, reference, kind, choices)
    # One strange answer among thousands must not end a run: it is wrong, and it is kept.
    except Exception:
        return False


def matches(extracted: str, reference: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """`verify` for a checked reference and an answer; what goes wrong with the answer raises."""
    if len(extracted) > _MAX_CHARACTERS:
        return extracted.strip() == reference.strip()
    if kind == "choice":
        return _same_choice(extracted, reference.strip(), choices)
    answer, gold = normalize(extracted), normalize(reference)
    if not answer:
        return False
    if _key(answer) == _key(gold):
        return True
    gold_number = parse_number(gold, strict_units=kind == "math")
    if gold_number is not None:
        sides = [answer, _right_side(answer)]
        for side in sides:
            number = parse_number(side, strict_units=kind == "math")
            if number is not None:
                return numbers_equal(number, gold_number)
    if _is_words(gold):
        return _words(answer) == _words(gold)
    return _symbolically_equal(gold, answer)


# Text.

_CHARACTERS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u00d7": "\\times ",
        "\u00f7": "/",
        "\u00b7": "\\cdot ",
        "\u03c0": "\\pi ",
        "\u221e": "\\infty ",
        "\u222a": "\\cup ",
        "\u2264": "\\le ",
        "\u2265": "\\ge ",
        "\u2248": "\\approx ",
        "\u00b0": "^\\circ ",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00bd": "\\frac{1}{2}",
        "\u2044": "/",
    }
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])")
_SPACING = re.compile(r"(?<!\\)\\(?:[!,;: ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~")
_THOUSANDS = re.compile(r"(?<=\d),\\!\s{0,3}(?=\d{3})|(?<=\d)\{,\}(?=\d{3})")
_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|rm)\s?(?=\{)"
)
_FRACTION_COMMAND = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_ARGUMENT = r"(\{[^{}]*\}|\d|[A-Za-z])"
_SHORT_FRACTION = re.compile(rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d|[A-Za-z])")
_DEGREES = re.compile(
    r"\^\s?(?:\{\s?\\(?:circ|degree)\s?\}|\\(?:circ|degree)(?![A-Za-z]))(?:\s?[CF](?![A-Za-z]))?"
)
_SYNONYMS = re.compile(r"\\(leq|leqslant|geq|geqslant|neq|lbrace|rbrace|emptyset)(?![A-Za-z])")
_SYNONYM = {
    "leq": "\\le",
    "leqslant": "\\le",
    "geq": "\\ge",
    "geqslant": "\\ge",
    "neq": "\\ne",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "emptyset": "\\varnothing",
}
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s?\(([^()]*)\)")
_PLAIN_NAMES = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infty)(?![A-Za-z])"
)
_MEMBERSHIP = re.compile(r"^[A-Za-z]\s*\\in(?![A-Za-z])\s*")
_SINGLE_BRACES = re.compile(r"([_^])\{\s?(\w)\s?\}")
_DELIMITED = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_BOX = re.compile(r"^\\(?:boxed|fbox)\s?\{(.*)\}$", re.DOTALL)


def normalize(text: str) -> str:
    """One notation for what is written in many ways in LaTeX. Changes no value."""
    text = _CONTROL.sub("", text.translate(_CHARACTERS)).strip()
    for _ in range(4):  # delimiters and boxes within each other
        for opening, closing in _DELIMITED:
            enclosed = text.startswith(opening) and text.endswith(closing)
            if enclosed and len(text) > len(opening) + len(closing):
                text = text[len(opening) : -len(closing)].strip()
        text = text.rstrip(".,;: \t\n")
        box = _BOX.match(text)
        if box:
            text = box.group(1).strip()
    text = _THOUSANDS.sub(lambda match: ",", text)
    text = text.replace("\\%", "%").replace("\\$", "").replace("$", "")
    text = _SPACING.sub(" ", _SIZING.sub("", text))
    text = _SYNONYMS.sub(lambda match: _SYNONYM[match.group(1)], _TEXT_COMMAND.sub(r"\\text", text))
    text = _DEGREES.sub(" ", text)
    text = _FRACTION_COMMAND.sub(r"\\frac", text)
    text = _SHORT_FRACTION.sub(
        lambda match: "\\frac{" + match[1].strip("{} ") + "}{" + match[2].strip("{} ") + "}", text
    )
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _PLAIN_NAMES.sub(r"\\\1 ", _PLAIN_ROOT.sub(r"\\sqrt{\1}", text))
    text = _MEMBERSHIP.sub("", text.strip())
    return " ".join(text.split())


def _key(text: str) -> str:
    """Text for comparison: no spaces, no case, no braces around a single character."""
    return _SINGLE_BRACES.sub(r"\1\2", text).replace(" ", "").casefold()


def _braces_balance(text: str) -> bool:
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text):
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0


def _right_side(text: str) -> str:
    """The right side of a single `=` or of an approximation: `x = 5` states 5."""
    _, mark, right = text.rpartition("\\approx")
    if not mark and text.count("=") == 1:
        _, mark, right = text.partition("=")
    return right.strip() if mark else text


_WORD_TEXT = re.compile(r"[A-Za-z0-9 .,:'()-]+")
_ARTICLES = ("the", "a", "an")


def _unwrap_text(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)


def _is_words(text: str) -> bool:
    """Names, times and option letters in parentheses: no symbol in them is mathematics."""
    plain = _unwrap_text(text).strip()
    if not _WORD_TEXT.fullmatch(plain):
        return False
    return (
        re.fullmatch(r"\([A-Z]\)|\d{1,3}\s*:\s*\d{1,3}(?:\s*:\s*\d{1,3})?", plain) is not None
        or re.search(r"[A-Za-z]{3}", plain) is not None
        or re.search(r"\d\s*[ap]\.?m\b", plain) is not None
    )


def _words(text: str) -> list[str]:
    """Lower-case words without articles and points: `The 60th caller.` as `60th caller`."""
    plain = _unwrap_text(text).casefold().replace(".", "").replace("'", "")
    plain = re.sub(r"\s*:\s*", ":", plain)
    plain = re.sub(r"(\d)\s+([ap]m)\b", r"\1\2", plain)
    words = re.findall(r"[a-z0-9:]+", plain)
    return [word for word in words if word not in _ARTICLES] or words


# Numbers.


@dataclass(frozen=True)
class WrittenNumber:
    """A number and what its notation says. value: without the percent sign applied."""

    value: Fraction
    # Digits after the point, trailing zeros aside (below 0 for 4.5e33); None for what is exact:
    # integers and fractions.
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
_LENGTHS = ("cm", "mm", "km", "dm", "nm", "ft", "in", "yd", "mi")
_MASSES = ("kg", "mg", "lb", "lbs", "oz", "ml", "cl", "dl")
_TIMES = ("hr", "hrs", "min", "sec", "ms", "mph", "kph", "hz", "am", "pm")
_ORDINALS = ("st", "nd", "rd", "th")
_SHORT_UNITS = frozenset([*_LENGTHS, *_MASSES, *_TIMES, *_ORDINALS, "ev", "usd", "eur"])
_UNIT_PART = re.compile(r"\\text\{[^{}]*\}|[A-Za-z]+|\^\s*\{?\s*-?\d\s*\}?|\S")


def parse_number(text: str, *, strict_units: bool) -> WrittenNumber | None:
    r"""A number with an optional currency, percent sign and unit, else None. Expects `normalize`d.

    Integers, decimals, fractions (`2/3`, `\frac{2}{3}`), mixed numbers, `4.5e33`,
    `4.5 \times 10^{33}`, `10^{-8}`; commas between thousands.

    strict_units: a lone letter after the number is then no unit, for `2x` and `6m` are products.
    """
    text = text.strip()
    negative = False
    for _ in range(2):  # (5), -(1/3)
        inner = re.fullmatch(r"(-?)\s*\(([^(),]*)\)", text)
        if inner:
            negative ^= inner[1] == "-"
            text = inner[2].strip()
    match = _NUMBER.match(text)
    if match is None:
        return None
    percent = _percent_of_unit(text[match.end() :], strict_units)
    if percent is None:
        return None
    number = _value(match)
    if number is None:
        return None
    value, places = number
    return WrittenNumber(-value if negative ^ (match["sign"] == "-") else value, places, percent)


def _value(match: re.Match[str]) -> tuple[Fraction, int | None] | None:
    """The unsigned value and its `places`; None for a denominator of zero."""

    def number(name: str) -> Fraction:
        return Fraction(_point(match[name]))

    if match["top"]:
        whole, top, bottom = match["whole"], number("top"), number("bottom")
    elif match["mixed"]:
        whole, top, bottom = match["mixed"], number("mixed_top"), number("mixed_bottom")
    elif match["left"]:
        whole, top, bottom = None, number("left"), number("right")
    else:
        scale = match["power"] or match["power_digits"] or match["exponent"]
        scale = scale or match["scale"] or match["scale_digits"] or "0"
        exponent = int(scale.replace(" ", ""))
        written = _point(match["decimal"] or "1")
        places = len(written.partition(".")[2].rstrip("0")) - exponent
        measured = match["exponent"] or match["scale"] or match["scale_digits"]
        exact = places <= 0 and not measured
        return Fraction(written) * Fraction(10) ** exponent, None if exact else places
    if bottom == 0:
        return None
    return (Fraction(_point(whole)) if whole else 0) + top / bottom, None


def _point(digits: str) -> str:
    """`1,234.` as `1234.0`, which Fraction reads."""
    plain = digits.replace(",", "")
    return plain + "0" if plain.endswith(".") else plain


def _percent_of_unit(rest: str, strict: bool) -> bool | None:
    """Whether the unit has a percent sign; None where `rest` is more than a unit."""
    spaced = rest[:1] in (" ", "(")
    rest = rest.strip()
    percent = rest.startswith("%")
    if percent:
        rest = rest[1:].strip()
    first = True
    for part in _UNIT_PART.findall(rest):
        if part.startswith("\\text"):
            content = part[6:-1].casefold()
            if re.search(r"\d", content):
                return None
            percent = percent or "percent" in content
        elif part.isalpha():
            if first and not _unit_word(part, spaced, strict):
                return None
            percent = percent or part.casefold() == "percent"
        elif part[0] == "^":
            if first:
                return None  # 2^3 is a power
        elif part in "()." or (part == "/" and not first):
            continue
        else:
            return None
        first = False
    return percent


def _unit_word(word: str, spaced: bool, strict: bool) -> bool:
    if word.casefold() in _SHORT_UNITS:
        return True
    return spaced and len(word) >= (3 if strict else 1)


def numbers_equal(first: WrittenNumber, second: WrittenNumber) -> bool:
    """Equal as `verify` describes; symmetric."""
    if first.percent and not second.percent:
        first, second = second, first
    shifts = (0, -2) if second.percent and not first.percent else (0,)
    return any(_close(first, _shifted(second, shift)) for shift in shifts)


def _shifted(number: WrittenNumber, shift: int) -> WrittenNumber:
    """The number times 10**shift; 45% becomes the decimal 0.45."""
    if shift == 0:
        return number
    places = number.places
    if places is None and number.value.denominator == 1:
        places = 0
    return WrittenNumber(
        number.value * Fraction(10) ** shift, None if places is None else places - shift
    )


def _close(first: WrittenNumber, second: WrittenNumber) -> bool:
    if first.value == second.value:
        return True
    if first.places is None and second.places is None:
        return False  # both are exact
    largest = max(abs(first.value), abs(second.value))
    if abs(first.value - second.value) <= RELATIVE_TOLERANCE * largest:
        return True
    return _rounds_to(first.value, second) or _rounds_to(second.value, first)


def _rounds_to(value: Fraction, decimal: WrittenNumber) -> bool:
    """Whether `value`, rounded half away from zero, is the decimal with all its digits."""
    if decimal.places is None or decimal.places <= 0:
        return False
    scale = 10**decimal.places
    digits = abs(decimal.value) * scale
    if digits < 10 ** (ROUNDED_DIGITS - 1) or value * decimal.value < 0:
        return False
    return math.floor(abs(value) * scale + Fraction(1, 2)) == digits


# Choices.


def _same_choice(extracted: str, letter: str, choices: Sequence[str]) -> bool:
    answer = _key(normalize(extracted))
    texts = [_key(normalize(choice)) for choice in choices]
    index = LETTERS.index(letter)
    if len(answer) > 1 and answer in texts:  # the text of an option, even if it begins like `(A)`
        return texts.count(answer) == 1 and texts.index(answer) == index
    stated = choice_letter(extracted, choices)
    if stated is not None:
        return stated == letter
    number = parse_number(normalize(extracted), strict_units=False)
    if number is None:
        return False
    numbers = [parse_number(normalize(choice), strict_units=False) for choice in choices]
    equal = [
        position
        for position, option in enumerate(numbers)
        if option is not None and option.value == number.value
    ]
    return equal == [index]


# Expressions, by math-verify.

# Functions that build matrices of any size, or take ages on a small one.
_MATRIX_FUNCTIONS = re.compile(
    r"eye|zeros|ones|hstack|vstack|nullspace|orthogonalize|diagonalize|eigen|svd|rref|rank"
)
_LONG_EXPONENT = re.compile(r"\d\s?[eE]\s?[+-]?\s?\d{4}")
_POWER_MARK = re.compile(r"\^|\*\*")
_INTEGER = re.compile(r"\d+")
_CLOSING = {")": "(", "}": "{", "]": "["}
_OPENING = {opening: closing for closing, opening in _CLOSING.items()}


def _symbolically_equal(gold: str, answer: str) -> bool:
    if _may_explode(gold) or _may_explode(answer):
        return False
    # Importing sympy takes a second; most answers never come here.
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from math_verify import verify as math_verify
    from math_verify.errors import TimeoutException

    alarm = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    seconds: int | None = _SECONDS if alarm else None
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
            parsing_timeout=seconds,  # pyright: ignore[reportArgumentType] - None is documented
            raise_on_error=True,
        )

    try:
        with _deadline(None if alarm else 2 * _SECONDS, TimeoutException):
            golds = parsed(gold)
            answers = parsed(answer) if golds else []
            return bool(golds and answers) and bool(
                math_verify(
                    golds,
                    answers,
                    allow_set_relation_comp=True,
                    timeout_seconds=seconds,
                    raise_on_error=True,
                )
            )
    # Whatever sympy makes of a model's answer, the answer is wrong and the run goes on. The
    # time-out is no Exception, so that sympy's own handlers let it pass.
    except (Exception, TimeoutException):
        return False


@contextmanager
def _deadline(seconds: float | None, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in this thread at the first call after `seconds`; None sets no deadline.

    An alarm signal reaches the main thread only. A profile hook runs at every call on its own
    thread; it slows sympy about threefold, which is why the main thread keeps the signal.
    """
    if seconds is None:
        yield
        return
    end = time.monotonic() + seconds
    previous = sys.getprofile()

    def check(frame: object, event: str, argument: object) -> None:
        if time.monotonic() > end:
            raise error("grading took too long")

    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(previous)


def _may_explode(text: str) -> bool:
    """Whether evaluating `text` might not end: a cheap look at its powers and factorials.

    A power of integers is one uninterruptible operation, so no deadline helps against
    `9^{9^{9^9}}`. Too careful rather than too lax: it runs only where plainer comparisons failed.
    """
    if len(text) > _MAX_SYMBOLIC_CHARACTERS or _MATRIX_FUNCTIONS.search(text):
        return True
    if _LONG_EXPONENT.search(text) or text.count("\\exp") + text.count("\\Gamma") > 3:
        return True
    if re.search(r"\d{60}", text) or _growth(text) > _MAX_EXPONENT:
        return True
    special = "\\binom" in text or "\\choose" in text or "\\Gamma" in text
    if special and (re.search(r"\d{5}|\d\s?\}?\s?(?:\^|\*\*)", text)):
        return True
    return any(
        _explosive_factorial(_operand_before(text, match.start()))
        for match in re.finditer("!", text)
    )


def _explosive_factorial(operand: str) -> bool:
    return "!" in operand or bool(_POWER_MARK.search(operand)) or _product(operand) > _MAX_FACTORIAL


def _growth(text: str) -> float:
    """The largest product of exponents that stand above one another; inf for a numeric tower."""
    largest = 1.0
    for mark in _POWER_MARK.finditer(text):
        exponent = _operand_after(text, mark.end())
        tower = _POWER_MARK.search(exponent)
        if tower:
            # 10^{2^{n}} and 9^{9^9} grow without bound; e^{-x^2} and e^{a t^{2}} do not.
            below = exponent[: tower.start()].rstrip()[-1:]
            if not below.isalpha() or _POWER_MARK.search(exponent, tower.end()):
                return math.inf
        base = _operand_before(text, mark.start())
        inner = _growth(base[1:-1]) if base[:1] in _OPENING else 1.0
        largest = max(largest, inner * _product(exponent))
    return largest


def _product(text: str) -> float:
    """Product of the integers in `text` (1 without any), at least as large as their sum."""
    result = 1.0
    for integer in _INTEGER.findall(text):
        result *= float(max(2, int(integer))) if len(integer) < 10 else math.inf
    return result


def _operand_after(text: str, start: int) -> str:
    """What stands after an operator: a group, or a sign and a run, with all powers above it."""
    position = start
    while position < len(text) and text[position] in " +-":
        position += 1
    if position < len(text) and text[position] in _OPENING:
        depth = 0
        while position < len(text):
            depth += (text[position] in _OPENING) - (text[position] in _CLOSING)
            position += 1
            if depth == 0:
                break
    else:
        run = re.compile(r"\\[A-Za-z]+|\d+|.").match(text, position)
        position = run.end() if run else position
    above = re.compile(r"\s*(?:\^|\*\*)").match(text, position)
    if above and above.end() < len(text):
        return text[start : above.end()] + _operand_after(text, above.end())
    return text[start:position]


def _operand_before(text: str, end: int) -> str:
    """What stands before an operator: a group with its brackets, or a run of letters or digits."""
    position = end
    while position > 0 and text[position - 1] == " ":
        position -= 1
    if position > 0 and text[position - 1] == "!":
        return "!"
    if position > 0 and text[position - 1] in _CLOSING:
        stop, depth = position, 0
        while position > 0:
            position -= 1
            depth += (text[position] in _CLOSING) - (text[position] in _OPENING)
            if depth == 0:
                break
        return text[position:stop]
    run = re.compile(r"[A-Za-z0-9]+$").search(text, 0, position)
    return run.group() if run else ""

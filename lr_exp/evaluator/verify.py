"""Grading, part 2 of 3: verify whether an extracted answer equals the reference.

Comparisons in this order: as normalized LaTeX, as numbers, as words, as symbolic expressions.
"""

from collections.abc import Sequence

from lr_exp.data.formats import LETTERS
from lr_exp.errors import UserError
from lr_exp.evaluator.extract import choice_letter
from lr_exp.evaluator.normalize import (
    braces_balance,
    compact,
    is_words,
    normalize,
    right_side,
    words,
)
from lr_exp.evaluator.numbers import numbers_equal, parse_number
from lr_exp.evaluator.symbolic import symbolically_equal

_MAX_CHARACTERS = 2_000  # longer answers are compared as plain text only


def check_reference(reference: str, kind: str, choices: Sequence[str] = ()) -> None:
    """Raises UserError for an invalid reference.

    For kind `number` it must be a number; for `choice` the letter of an option; for `math` it must
    be non-empty, with balanced braces. A `math` reference that math-verify cannot parse (a time, a
    name, `f(x)=ax+b, where ...`) is valid and is compared as text.
    """
    text = normalize(reference)
    if not text:
        raise UserError("the reference is empty: write the answer, or remove the question.")
    if kind == "choice":
        letters = LETTERS[: len(choices) or len(LETTERS)]
        if len(reference.strip()) != 1 or reference.strip() not in letters:
            raise UserError(
                f"the reference {reference!r} is not the letter of an option: write one of "
                f"{', '.join(letters)}."
            )
    elif kind == "number":
        if parse_number(text, strict_units=False) is None:
            raise UserError(
                f"the reference {reference!r} is not a number: correct it, or compare answers as "
                "expressions (answer: math)."
            )
    elif kind == "math":
        if not braces_balance(text):
            raise UserError(
                f"the reference {reference!r} has braces that do not balance: close each one."
            )
    else:
        raise ValueError(f"unknown kind {kind!r}: use number, math or choice")


def verify(extracted: str | None, reference: str, kind: str, choices: Sequence[str] = ()) -> bool:
    r"""Whether the extracted answer is correct.

    Numbers are compared by value: `1,234`, `1234.0`, `\$1234` and `1234 dollars` are equal. Two
    integers must be exactly equal. A decimal equals any number within a relative 1e-4, and any that
    rounds to it if it has at least three significant digits (`0.667` is 2/3, `0.67` is not). If
    only one side has a percent sign, it may be applied or ignored, as in the toolkit (`9\%` is 9
    and 0.09). Without a percent sign 900 is not 9, unlike in the toolkit.
    A choice is identified by its letter, or by its text if no other option has the same text.

    Raises UserError for an invalid reference. An answer that cannot be parsed is wrong.
    """
    check_reference(reference, kind, choices)
    if extracted is None or not extracted.strip():
        return False
    try:
        return matches(extracted, reference, kind, choices)
    except UserError:  # math-verify is not installed correctly
        raise
    # One malformed answer among thousands must not end the run.
    except Exception:
        return False


def matches(extracted: str, reference: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """As `verify`, for a valid reference and a non-empty answer, but lets exceptions through."""
    if len(extracted) > _MAX_CHARACTERS:
        return extracted.strip() == reference.strip()
    if kind == "choice":
        return _same_choice(extracted, reference.strip(), choices)
    answer, gold = normalize(extracted), normalize(reference)
    if not answer:
        return False
    if compact(answer) == compact(gold):
        return True
    gold_number = parse_number(gold, strict_units=kind == "math")
    if gold_number is not None:
        for side in (answer, right_side(answer)):
            number = parse_number(side, strict_units=kind == "math")
            if number is not None:
                return numbers_equal(number, gold_number)
    if is_words(gold):
        return words(answer) == words(gold)
    return symbolically_equal(gold, answer)


def _same_choice(extracted: str, letter: str, choices: Sequence[str]) -> bool:
    answer = compact(normalize(extracted))
    texts = [compact(normalize(choice)) for choice in choices]
    index = LETTERS.index(letter)
    if len(answer) > 1 and answer in texts:  # an option's text, even if it starts with a letter
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

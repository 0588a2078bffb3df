"""Whether an extracted answer equals the reference. The second of three grading steps.

Knows the order of comparisons, in which the first "yes" counts: the same text after normalizing
LaTeX; the same number; the same words; the same expression. Knows neither models nor how each
comparison is made.
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

_MAX_CHARACTERS = 2_000  # of an answer; a longer one is compared as text only


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
        if not braces_balance(text):
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

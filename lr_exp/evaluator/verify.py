"""Grading, part 2 of 3: verify whether an extracted answer equals the reference.

Comparisons in this order: as normalized LaTeX, as numbers, as words, as symbolic expressions.
"""

import re
from collections.abc import Sequence
from functools import partial

from lr_exp.data.formats import LETTERS
from lr_exp.errors import UserError
from lr_exp.evaluator.extract import choice_letter
from lr_exp.evaluator.normalize import (
    braces_balance,
    compact,
    is_words,
    normalize,
    ratio,
    same_words,
    split_equation,
    split_values,
    time_of_day,
    without_unit,
)
from lr_exp.evaluator.numbers import as_digits, numbers_equal, parse_number
from lr_exp.evaluator.symbolic import start_answer, symbolically_equal

_NUMERAL = re.compile(r"([0-9A-Z]+)_([0-9a-z]+)")  # in a base: 101_2, 101_two
_OPTIONS = re.compile(r"[A-Z](?:,[A-Z])+")
_JOINED = re.compile(r"\\?&|\band\b|[\s,;(){}]|\\text")
_BOTH, _EITHER = re.compile(r"\band\b"), re.compile(r"\bor\b|\\cup")
_RELATION = re.compile(r"[<>]|\\[lg]e(?![A-Za-z])")
_MAX_CHARACTERS = 2_000  # longer answers are compared as plain text only


def check_reference(reference: str, kind: str, choices: Sequence[str] = ()) -> None:
    """Raises UserError for an invalid reference.

    A `math` reference that math-verify cannot parse (a name, `f(x)=ax+b, where ...`) is valid.
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
    """Whether the extracted answer is correct, by the conventions in docs/evaluation.md.

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
    """Like `verify`, but for a valid reference and a non-empty answer; exceptions propagate."""
    if len(extracted) > _MAX_CHARACTERS:
        return extracted.strip() == reference.strip()
    if kind == "choice":
        return choice_letter(extracted, choices) == reference.strip()
    answer, gold = normalize(extracted), normalize(reference)
    if not answer:
        return False
    start_answer()
    try:
        # Either side of an approximation states the value.
        sides = [side.strip() for side in answer.split("\\approx")]
        return any(_are_equal(side, gold, strict_units=kind == "math") for side in sides if side)
    except TimeoutError:
        return False


def _are_equal(answer: str, gold: str, *, strict_units: bool) -> bool:
    if compact(answer) == compact(gold):
        return True
    decided = _same_value(answer, gold, strict_units=strict_units)
    if decided is not None:
        return decided
    (name, value), (gold_name, gold_value) = split_equation(answer), split_equation(gold)
    values, gold_values = split_values(answer), split_values(gold)
    if _RELATION.search(answer) and _EITHER.search(gold) and _BOTH.search(answer):
        pass  # a union, and an intersection
    elif len(values[1]) == len(gold_values[1]) > 1:
        same = _same_values(values, gold_values, strict_units=strict_units)
        if same or (values[0] and gold_values[0]):  # tuples have one notation
            return same
    elif (
        (name or gold_name)
        and (not name or not gold_name or compact(name) == compact(gold_name))
        and _is_name(gold_name)
        and _are_equal(value, gold_value, strict_units=strict_units)
    ):
        return True
    if symbolically_equal(gold, answer):
        return True
    unitless, unitless_gold = without_unit(answer, symbols=True), without_unit(gold, symbols=False)
    return (unitless, unitless_gold) != (answer, gold) and (
        compact(unitless) == compact(unitless_gold) or symbolically_equal(unitless_gold, unitless)
    )


def _same_value(answer: str, gold: str, *, strict_units: bool) -> bool | None:
    """Compares numbers, times, ratios and words; None if the reference is none of them."""
    joined, gold_joined = _JOINED.sub("", answer), _JOINED.sub("", gold)
    numeral, gold_numeral = _NUMERAL.fullmatch(joined), _NUMERAL.fullmatch(gold_joined)
    if numeral and gold_numeral:
        return numeral[1] == gold_numeral[1] and as_digits(numeral[2]) == as_digits(gold_numeral[2])
    if _OPTIONS.fullmatch(compact(gold)) and joined.isalpha():
        return sorted(joined) == sorted(gold_joined)
    gold_number = parse_number(gold, strict_units=strict_units)
    if gold_number is not None:
        for side in (answer, split_equation(answer)[1]):
            for text in (side, without_unit(side, symbols=True)):
                number = parse_number(text, strict_units=strict_units)
                if number is not None:
                    return numbers_equal(number, gold_number)
    gold_time, time = time_of_day(gold), time_of_day(answer)
    gold_ratio = ratio(gold)
    if gold_time and time:
        same = gold_time[0] == time[0] and len({gold_time[1], time[1], ""}) < 3
        if same or not gold_ratio:
            return same
    if gold_ratio:
        number = parse_number(answer, strict_units=True)
        if number is not None and len(gold_ratio) == 2 and gold_ratio[1]:
            return number.value == gold_ratio[0] / gold_ratio[1]
        return ratio(answer) == gold_ratio
    return same_words(answer, gold) if is_words(gold) else None


def _is_name(text: str) -> bool:
    """Whether `text = 5` names the value 5: `x`, `f(x)`, `P(A)`, unlike `2x + y = 5`."""
    return not re.search(r"[-+*^<>]|(?<![\w{(])\d|\\(?:le|ge|cdot|times)(?![A-Za-z])", text)


def _same_values(
    answer: tuple[str, list[str]], gold: tuple[str, list[str]], *, strict_units: bool
) -> bool:
    """Compares tuples and intervals in order, sets and lists in any order."""
    equal = partial(_are_equal, strict_units=strict_units)
    if answer[0] or gold[0]:
        return answer[0] == gold[0] and all(map(equal, answer[1], gold[1]))
    left = list(answer[1])
    for expected in gold[1]:
        found = next((value for value in left if equal(value, expected)), None)
        if found is None:
            return False
        left.remove(found)
    return True

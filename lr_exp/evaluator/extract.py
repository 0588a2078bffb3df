r"""Grading, part 1 of 3: extract the final answer, as text, from a model's output.

Outputs are untrusted: every pattern is bounded or consumes what it scans, so that the time is
linear in the length of the output.
"""

import re
from collections.abc import Sequence

from lr_exp.data.formats import LETTERS, last_boxed

_ANSWER_PHRASE = re.compile(
    r"answer(?:\s(?:to|of|for)\s[^.\n:=]{1,80}?)?\**\s{1,3}(?:is|are)\b\s{0,3}:?|answer\**\s{0,3}[:=]",
    re.IGNORECASE,
)
_MAX_STATED_CHARACTERS = 400  # longer text after an answer phrase is an explanation
_MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_SENTENCE_END = re.compile(r"[.!](?:\s|$)")
_DECIMAL = r"(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)"
# A minus directly after a letter, digit or closing bracket is a subtraction, not a sign.
_NUMBER = re.compile(
    rf"(?:(?<![\w)}}])[-\u2212])?(?:\\[dt]?frac\{{-?\d{{1,40}}\}}\{{\d{{1,40}}\}}"
    rf"|\\?\$?{_DECIMAL}(?:\s?/\s?\d+(?![\d.]))?)(?:\s?\\?%)?"
)
_WRAPPED_LETTER = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mathbf|boldsymbol)\s?\{\s*|[*$({\[])*"
    r"([A-Za-z])\s*(?:[.:,)\]}*$](?![A-Za-z0-9]).*|$)",
    re.DOTALL,
)
_LETTER = re.compile(r"\(([A-Za-z])\)|(?<![A-Za-z0-9\\'])([A-Z])(?![A-Za-z0-9'])")
_ARTICLE = re.compile(r"\s[a-z]")


def extract(output: str, kind: str, choices: Sequence[str] = ()) -> str | None:
    r"""The final answer in `output`, or None if there is none.

    Tried in this order: the last balanced, non-empty `\boxed{...}` or `\fbox{...}`; the text after
    the last "answer is" or "answer:"; for kinds `number` and `math` the last number in the text (as
    in the toolkit); for kind `choice` the last stand-alone letter of an option.

    choices: the options of a multiple-choice question; other letters are ignored.
    """
    boxed = last_boxed(output)
    if boxed is not None:
        return (choice_letter(boxed, choices) or boxed) if kind == "choice" else boxed
    stated = _stated_answer(output)
    if kind == "choice":
        return (stated and _first_letter(stated, choices)) or _last_letter(output, choices)
    if stated and kind == "number":
        stated = _stated_number(stated)
    if stated:
        return stated
    number = _last(_NUMBER, output)
    return number.group().strip() if number else None


def choice_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""The letter of an option at the start of `text`: `B`, `(b)`, `\text{B}`, `B. Paris`."""
    match = _WRAPPED_LETTER.match(text[:_MAX_STATED_CHARACTERS])
    return _option_letter(match.group(1), choices) if match else None


def _option_letter(letter: str, choices: Sequence[str]) -> str | None:
    upper = letter.upper()
    return upper if upper in LETTERS[: len(choices) or len(LETTERS)] else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007 - only the last match is needed
        pass
    return match


def _stated_answer(output: str) -> str | None:
    """The rest of the sentence after the last "answer is", without math delimiters."""
    phrase = _last(_ANSWER_PHRASE, output)
    if phrase is None:
        return None
    tail = output[phrase.end() : phrase.end() + _MAX_STATED_CHARACTERS].lstrip(" \t\n:*")
    for opening, closing in _MATH_DELIMITERS:
        if tail.startswith(opening):
            end = tail.find(closing, len(opening))
            if end > 0:
                return tail[len(opening) : end].strip() or None
    tail = tail.partition("\n")[0]
    end = _SENTENCE_END.search(tail)
    if end:
        tail = tail[: end.start()]
    return tail.strip(" \t*.,;:") or None


def _stated_number(stated: str) -> str | None:
    """The first number of a stated answer, or the first after its last `=` or approximation."""
    for sign in ("=", "\\approx", "≈"):
        stated = stated.rpartition(sign)[2]
    number = _NUMBER.search(stated)
    return number.group().strip() if number else None


def _option_letters(text: str, choices: Sequence[str]) -> list[str]:
    letters = []
    for match in _LETTER.finditer(text):
        letter = match.group(1) or match.group(2)
        # "A bird ..." and "I think ..." begin with words, not options.
        is_word = match.group(2) in ("A", "I") and _ARTICLE.match(text, match.end())
        option = None if is_word else _option_letter(letter, choices)
        if option:
            letters.append(option)
    return letters


def _first_letter(stated: str, choices: Sequence[str]) -> str | None:
    return choice_letter(stated, choices) or next(iter(_option_letters(stated, choices)), None)


def _last_letter(output: str, choices: Sequence[str]) -> str | None:
    return (_option_letters(output, choices) or [None])[-1]

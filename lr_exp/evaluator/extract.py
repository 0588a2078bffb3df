r"""From a model's output to its final answer, as text. The first of three grading steps.

Knows how models state answers; knows neither the reference nor mathematics. Outputs are hostile
data: every pattern is bounded or consumes what it scans, so the time is linear in the length.
"""

import re
from collections.abc import Sequence

from lr_exp.data.formats import LETTERS, last_boxed

_PHRASE = re.compile(
    r"answer(?:\s(?:to|of|for)\s[^.\n:=]{1,80}?)?\**\s{1,3}(?:is|are)\b\s{0,3}:?|answer\**\s{0,3}[:=]",
    re.IGNORECASE,
)
_PHRASE_CHARACTERS = 400  # of a stated answer; a longer one is an explanation
_MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_SENTENCE_END = re.compile(r"[.!](?:\s|$)")
_DECIMAL = r"(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)"
# A minus is a sign unless something to subtract from stands right before it.
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
    r"""The final answer that `output` states, or None.

    In this order: the last balanced, non-empty `\boxed{...}` or `\fbox{...}`; what follows the last
    "answer is" or "answer:"; for kinds `number` and `math` the last number of the text (the
    toolkit does so for both); for kind `choice` the last stand-alone letter of an option.

    choices: the options of a multiple-choice question; letters beyond them are not answers.
    """
    boxed = last_boxed(output)
    if boxed is not None:
        return (choice_letter(boxed, choices) or boxed) if kind == "choice" else boxed
    stated = _stated(output)
    if kind == "choice":
        return (stated and _first_letter(stated, choices)) or _last_letter(output, choices)
    if stated and kind == "number":
        stated = _stated_number(stated)
    if stated:
        return stated
    number = _last(_NUMBER, output)
    return number.group().strip() if number else None


def choice_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""The option's letter if `text` begins with one: `B`, `(b)`, `\text{B}`, `B. Paris`."""
    match = _WRAPPED_LETTER.match(text[:_PHRASE_CHARACTERS])
    return _as_option(match.group(1), choices) if match else None


def _as_option(letter: str, choices: Sequence[str]) -> str | None:
    upper = letter.upper()
    return upper if upper in LETTERS[: len(choices) or len(LETTERS)] else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - only the last one matters
        pass
    return found


def _stated(output: str) -> str | None:
    """The rest of the sentence after the last "answer is", without math delimiters."""
    phrase = _last(_PHRASE, output)
    if phrase is None:
        return None
    tail = output[phrase.end() : phrase.end() + _PHRASE_CHARACTERS].lstrip(" \t\n:*")
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
    """The number that a stated answer begins with, or that stands after its last `=`."""
    for sign in ("=", "\\approx", "≈"):
        stated = stated.rpartition(sign)[2]
    number = _NUMBER.search(stated)
    return number.group().strip() if number else None


def _letters(text: str, choices: Sequence[str]) -> list[str]:
    found = []
    for match in _LETTER.finditer(text):
        letter = match.group(1) or match.group(2)
        # "A bird ..." and "I think ..." are words, not options.
        word = match.group(2) in ("A", "I") and _ARTICLE.match(text, match.end())
        option = None if word else _as_option(letter, choices)
        if option:
            found.append(option)
    return found


def _first_letter(stated: str, choices: Sequence[str]) -> str | None:
    return choice_letter(stated, choices) or next(iter(_letters(stated, choices)), None)


def _last_letter(output: str, choices: Sequence[str]) -> str | None:
    return (_letters(output, choices) or [None])[-1]

r"""Grading, part 1 of 3: extract the final answer, as text, from a model's output.

Outputs are untrusted: every pattern is bounded or consumes what it scans, so that the time is
linear in the length of the output.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lr_exp.data.formats import LETTERS, boxes
from lr_exp.evaluator.normalize import compact, normalize
from lr_exp.evaluator.numbers import parse_number

_MAX_STATED_CHARACTERS = 400  # longer text after an answer phrase is an explanation
_MAX_PHRASES = 50  # the last ones
_IS = r"(?:\**\s{1,3}(?:is|are|(?:would|must|should|will)\sbe)\b\s{0,3}:?|\**\s{0,3}[:=])"
_ANSWER_PHRASE = re.compile(
    rf"answers?(?P<subject>\s(?:to|of|for|so)\s[^.\n:=]{{1,80}}?)?{_IS}", re.IGNORECASE
)
_CHOICE_PHRASE = re.compile(
    rf"(?:answers?(?:\s(?:to|of|for)\s[^.\n:=]{{1,80}}?)?|choice|option|selection|statement){_IS}"
    r"|\b(?:choose|select|pick|go\swith)\s(?=(?:option\s|choice\s)?\W{0,3}[A-Z]\b)|(?<![A-Za-z0-9])(?=\(?[A-Z]\)?\**\s(?:is|and\s\(?[A-Z]\)?\sare|(?:would|must|should)\sbe)\s(?:(?:the|a)\s)?"
    r"(?:\w{1,12}\s(?:and\s\w{1,12}\s)?)?(?<!not\s)(?:correct|right|true|best|only|answer)\b)",
    re.IGNORECASE,
)
# `answer to part (a)`, `first answer`: not the conclusion if more numbers follow.
_PART = re.compile(
    r"\b(?:part|step|first|second|third|sub|intermediate|so far|partial|one)|\(?\b[a-e]\)",
    re.IGNORECASE,
)
_MARKED = re.compile(r"^#{4}\s{0,3}(?P<text>[-+\d\\$(\[{.].*|\S+\s*\Z|.*\S\s*\Z)", re.MULTILINE)
_HEDGE = re.compile(
    r"^(?:approximately|about|around|roughly|exactly|simply|just|only|therefore|thus|equal to"
    r"|given by|found to be|either|that|then|actually|indeed|in fact|instead"
    r"|now|\\?[\"\u201c]|[\s:*,])+",
    re.IGNORECASE,
)
_ABBREVIATION = "".join(rf"(?<!\b{name})" for name in ("Mr", "Mrs", "Ms", "Dr", "Prof", "St"))
_SENTENCE_END = re.compile(rf"{_ABBREVIATION}(?<!\\)[.!](?=\s|\**$)|\n", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$([^$]{1,400})\$\$|(?<!\\)\$((?:\\.|[^$\\\n]){1,400})\$"
    r"|\\\(((?:(?!\\\)).){1,400})\\\)|\\\[((?:(?!\\\])[\s\S]){1,400})\\\]"
)
_TEXT = re.compile(r"\\text\w{0,8}\s?\{[^{}]*\}")
# Text between two amounts of money: `$5 and he keeps $3`, `$5 + $3`.
_PROSE = re.compile(
    r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}\b|^\d.*(?:[A-Za-z]{3,}|[-+*/=,])\s*$"
)
_DELIMITER = re.compile(r"^(?:\$\$?|\\[(\[])|(?:(?<!\\)\$\$?|\\[)\]])$")
_JOINING_WORD = re.compile(
    r"\b(?:and|or|also|the|first|second|third|other|one|is|are|either|for|part|[a-z])\b"
)
_DECIMAL = (
    r"(?<!\d)(?<![A-Za-z]{2})(?:\d{1,3}(?: \d{3})+(?!\d)"
    r"|\d+(?:(?:,(?:\\!)?|\{,\}|\\,)\d{3}(?!\d))*(?:\.\d+)?|\.\d+)"
)
# A minus directly after a letter, digit or closing bracket is a subtraction, not a sign.
_NUMBER = re.compile(
    rf"(?:(?<![\w)}}])[-\u2212])?(?:(?:\\?\$?\d{{1,9}}\s?)?\\[dt]?frac\{{-?\d{{1,40}}\}}\{{\d{{1,40}}\}}"
    rf"|\\?\$?{_DECIMAL}(?:(?: \d+)?\s?/\s?\d+(?!\d|\.\d))?)"
    r"(?:\s?\\?%|\s(?:hundred|thousand|million|billion|trillion|dozen)\b)?"
)
_MATH_NUMBER = re.compile(  # also `5:6`, `3:30 p.m.`
    rf"(?<![\d:])\d+(?:\s?:\s?\d+)+(?:\s?[ap]\.?m\b)?|{_NUMBER.pattern}", re.IGNORECASE
)
_STARTS_WITH_VALUE = re.compile(
    r"[-+]?(?:\\[^A-Za-z ]|\\(?:frac|dfrac|sqrt|pi)|[$(\[{]|\.?\d)|(?:yes|no)\b", re.I
)
_LAST_IS = re.compile(
    r".*(?:\b(?:is|are|was|were|equals|gives|be)\b)\s*(?=[-$\\(\[{.\d])", re.DOTALL
)
# Not one that is ruled out: `not B`, `B is wrong`.
_LETTER = re.compile(
    r"(?<!\bnot )(?<!\bnot \*\*)(?:\(([A-Za-z])\)"
    r"|(?<![A-Za-z0-9\\'])(?<!\bnot \()([A-Z])(?![A-Za-z0-9']))"
    r"(?!\W{0,3}\s(?:is|are)\s(?:wrong|incorrect|false|not)\b)"
)
_ARTICLE = re.compile(r"\s(?!or\b|and\b|is\s(?:the|correct|right|true|best)\b)[a-z]")
_WRAPPED_LETTER = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mathbf|boldsymbol)\s?\{\s*|[*$({\[]|(?:[Oo]ption|[Cc]hoice)\s+)*"
    r"([A-Za-z])\s*(?:[.:,)\]}*$](?![A-Za-z0-9]).*|$)",
    re.DOTALL,
)
_SEVERAL_LETTERS = re.compile(
    r"\W*(?:(?:both|either)\W+)?\b([A-Z])(?:[\s)}\]$*]*(?:,?[\s{]*\b(?:and|or)\b|[,;/&])[\s({\[}$*]*"
    r"(?!\1)[A-Z]\b(?!\s+(?:is|being|fails|does|are\s(?:wrong|incorrect|false|not|too))\b)|\s{0,3}[A-Z]\W*$)"
)
_FIRST_LETTER = re.compile(
    r"\W{0,4}(?:Option\s)?\W{0,3}(?P<letter>[A-Z])(?:\W{0,2}[.:)](?!\W*is\b)|,\sas\b|,?\s(?:because|since|fits|works)\b"
    r"|\W{0,3}(?:\n|$)|\s?[-\u2013\u2014])"
)
_OPTION_LIST = re.compile(r"[\s*]{0,5}\(?A[.:)].{1,100}?(?<![A-Za-z])\(?B[.:)][\s*]", re.DOTALL)


class Extracted(NamedTuple):
    text: str | None = None
    rule: str | None = None  # that read it: `box`, `statement` or `last` (number, formula, letter)


def extract(output: str, kind: str, choices: Sequence[str] = ()) -> Extracted:
    r"""The final answer in `output`, if there is one, and the rule that read it.

    It is stated in a balanced, non-empty `\boxed{...}` or `\fbox{...}`, after "answer is" or
    "answer:", or after `####`: the last of them counts, but a statement after a box only if it is
    "final" or starts with a value. Without any, it is the last formula or number (kind `math`), the
    last number (`number`, as in the toolkit) or the last letter of an option (`choice`). Boxes or
    formulas that are joined by commas, "and" or "or" are one list (`math`).

    choices: the options of a multiple-choice question; other letters are ignored.
    """
    found = boxes(output)
    if kind == "choice":
        return _chosen(output, found, choices)
    box_end = found[-1][1] if found else 0
    marked, stated = _last_match(_MARKED, output), _last_statement(output)
    mark = marked.start() if marked else -1
    if stated and stated[0] >= max(box_end, mark):
        is_final = output[max(0, stated[0] - 6) : stated[0]].lower() == "final "
        if not (found or marked) or is_final or _STARTS_WITH_VALUE.match(_HEDGE.sub("", stated[1])):
            value = _value(stated[1], kind)
            if value:
                return Extracted(value, "statement")
    if marked and mark >= box_end:
        text = marked["text"].strip(" *\n")[:_MAX_STATED_CHARACTERS]
        return Extracted((kind == "number" and _value(text, kind)) or text, "statement")
    if found:
        boxed = _joined(output, found) if kind == "math" else output[slice(*found[-1])].strip()
        return Extracted(boxed, "box")
    value = _last_value(output, kind)
    return Extracted(value, "last") if value else Extracted()


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), 1)), None)


def _last_statement(output: str) -> tuple[int, str] | None:
    """Position of the last answer phrase and the rest of its sentence."""
    for phrase in reversed(deque(_ANSWER_PHRASE.finditer(output), _MAX_PHRASES)):
        before = output[max(0, phrase.start() - 14) : phrase.start()]
        is_part = _PART.search(before + (phrase["subject"] or ""))
        if is_part and len(_NUMBER.findall(output[phrase.end() :][:2_000])) > 1:
            continue
        rest = _rest_of_sentence(output, phrase.end())
        if rest.strip(" *:."):
            return phrase.start(), rest
    return None


def _rest_of_sentence(output: str, start: int) -> str:
    tail = output[start : start + _MAX_STATED_CHARACTERS].lstrip(" \t\n:*")
    formulas = list(_formulas(tail))
    for end in _SENTENCE_END.finditer(tail):
        if not any(first < end.start() < last for first, last in formulas):
            return tail[: end.start()]
    return tail


def _formulas(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the formulas in `text`, with their delimiters; `$5 and $7` is not a formula."""
    position = 0
    while match := _FORMULA.search(text, position):
        is_formula = match[2] is None or not _PROSE.search(_TEXT.sub("", match[2]))
        position = match.end() if is_formula else match.start() + 1
        if is_formula:
            yield match.span()


def _joined(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The last of the spans, and those before it that are joined to it, without delimiters."""
    first = len(spans) - 1
    while first > 0 and _joins_values(text[spans[first - 1][1] : spans[first][0]]):
        first -= 1
    return ", ".join(_DELIMITER.sub("", text[slice(*span)]).strip() for span in spans[first:])


def _joins_values(between: str) -> bool:
    """Whether the text between two values makes them a list: `, `, ` apples and `, ` or $x=`."""
    between = re.sub(r"\\[A-Za-z]+|\w+_\{?\w\}?\s?=|^\}?[\s$]*[a-z]+ (?=and\b)", " ", between)
    words = between.lower()
    if len(between) > 60 or re.search(r"[.!?:\d]\s*\w", between):
        return False
    if re.search(r"\b(?:and|or)\b", words):
        return not re.search("[a-z]", _JOINING_WORD.sub("", words))
    return not re.search(r"[^\s$\\()\[\]{},;]", between)


def _value(stated: str, kind: str) -> str | None:
    """The value in a sentence: `34` in `the largest $n$ is 34`; the sentence if it has none."""
    stated = _HEDGE.sub("", stated)
    if not _STARTS_WITH_VALUE.match(stated):
        last_is = _LAST_IS.match(stated)
        stated = stated[last_is.end() :] if last_is else stated
    formulas = list(_formulas(stated))
    if formulas and formulas[0][0] == 0:
        end = 1
        while end < len(formulas) and _joins_values(
            stated[formulas[end - 1][1] : formulas[end][0]]
        ):
            end += 1
        value = _joined(stated, formulas[:end])
    elif re.match(r"[A-Za-z]{2,}\s", stated) and not _STARTS_WITH_VALUE.match(stated):
        has_value = re.search(r"\d", stated) and len(stated.split()) > 2
        value = (has_value and _last_value(stated, kind)) or stated
    else:
        value = stated
    value = value.strip(" \t*").rstrip(" \t*.,;:")
    if kind == "number":
        value = re.split(r"=|\\approx|\u2248", value)[-1]
        number = _NUMBER.search(value)
        value = number[0].strip() if number else value
        return value if parse_number(normalize(value), strict_units=False) else None
    return value or None


def _last_value(output: str, kind: str) -> str | None:
    """The last number; for kind `math` also a formula, time or ratio, whichever is last."""
    number = _last_match(_NUMBER if kind == "number" else _MATH_NUMBER, output)
    tail = output[-5 * _MAX_STATED_CHARACTERS :]
    formulas = list(_formulas(tail)) if kind == "math" else []
    end = len(output) - len(tail) + formulas[-1][1] if formulas else 0
    if number is not None and number.start() >= end:
        return number[0].strip()
    return _joined(tail, formulas) if formulas else None


def _chosen(output: str, found: Sequence[tuple[int, int]], choices: Sequence[str]) -> Extracted:
    """The letter in the last box, `####` or phrase that states an option; else the last letter.

    Returns text that names several options unchanged.
    """
    stated = [(found[-1][0], _joined(output, found))] if found else []
    stated += [(marked.start(), marked["text"]) for marked in _MARKED.finditer(output)][-1:]
    for phrase in deque(_CHOICE_PHRASE.finditer(output), _MAX_PHRASES):
        if not _OPTION_LIST.match(output, phrase.end()):
            stated.append((phrase.start(), _rest_of_sentence(output, phrase.end())))
    for start, text in sorted(stated, reverse=True):
        is_box = bool(found) and start == found[-1][0]
        rule = "box" if is_box else "statement"
        letter = choice_letter(text, choices)
        if letter is None and _names_several(text):
            return Extracted(text, rule)
        beginning = re.split(r",\s|\s(?:because|since|as|which)\b", text)[0]
        letter = letter or choice_letter(beginning, choices)
        if letter is None and not is_box:
            letter = next(iter(_letters(text, choices)), None)
        if letter:
            return Extracted(letter, rule)
    first = _FIRST_LETTER.match(output)
    if first and not _OPTION_LIST.match(output):
        letter = _option(first["letter"], choices)
        return Extracted(letter, "statement") if letter else Extracted()
    letters = _letters(output, choices)
    return Extracted(letters[-1], "last") if letters else Extracted()


def choice_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""The letter of the option that `text` states: `B`, `(b)`, `\text{B}`, `B. Paris`, `Paris`.

    None if `text` states no option, or several.
    """
    text = text[:_MAX_STATED_CHARACTERS].strip(" \t\n:*")
    options, answer = [normalize(choice) for choice in choices], normalize(text)
    texts = [compact(option).casefold() for option in options]
    number = parse_number(answer, strict_units=False)
    equal = [option == compact(answer).casefold() for option in texts]
    if len(answer) == 1 or not any(equal):  # a text counts even if it starts with a letter
        if _names_several(text):
            return None
        if letter := _WRAPPED_LETTER.match(text):
            return _option(letter[1], choices)
        numbers = [parse_number(option, strict_units=False) for option in options]
        equal = [
            number is not None and option is not None and option.value == number.value
            for option in numbers
        ]
    return LETTERS[equal.index(True)] if sum(equal) == 1 else None


def _names_several(text: str) -> bool:
    return _SEVERAL_LETTERS.match(re.sub(r"\\[A-Za-z]+", " ", text)) is not None


def _option(letter: str, choices: Sequence[str]) -> str | None:
    upper = letter.upper()
    return upper if upper in LETTERS[: len(choices) or len(LETTERS)] else None


def _letters(text: str, choices: Sequence[str]) -> list[str]:
    """The letters of options in `text`; not the article "A" or the pronoun "I"."""
    letters = [
        _option(match[1] or match[2], choices)
        for match in _LETTER.finditer(text)
        if not (match[2] in ("A", "I") and _ARTICLE.match(text, match.end()))
    ]
    return [letter for letter in letters if letter]

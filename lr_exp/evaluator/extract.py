r"""Grading, part 1 of 3: extract the final answer, as text, from a model's output.

Outputs are untrusted: every pattern is bounded or consumes what it scans, so that the time is
linear in the length of the output.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence

from lr_exp.data.formats import LETTERS, boxes
from lr_exp.evaluator.normalize import compact, normalize
from lr_exp.evaluator.numbers import parse_number

_IS = r"\**\s{1,3}(?:is|are)\b\s{0,3}:?|\**\s{0,3}[:=]"
_ANSWER_PHRASE = re.compile(
    rf"answers?(?:\s(?:to|of|for)\s(?P<subject>[^.\n:=]{{1,80}}?))?(?:{_IS})", re.IGNORECASE
)
_CHOICE_PHRASE = re.compile(
    rf"(?:answers?(?:\s(?:to|of|for)\s[^.\n:=]{{1,80}}?)?|choice|option|selection)(?:{_IS})",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\b(?:parts?|steps?|first|second|third|\(?[a-e]\)|sub\w+|intermediate)\b|^\(?[a-e]\)?$",
    re.IGNORECASE,
)
_MARKED = re.compile(r"^#{4}\s{0,3}(?=(\S.*))", re.MULTILINE)
_MARKED_VALUE = re.compile(r"[-+\d\\$(\[{.]|\S+\s*\Z")  # not a heading
_MAX_STATED_CHARACTERS = 400  # longer text after an answer phrase is an explanation
_MAX_LAST_CHARACTERS = 2_000  # the end of an output in which formulas are looked for
_MAX_PHRASES = 50
_HEDGE = re.compile(
    r"(?:approximately|about|around|roughly|exactly|simply|just|only|therefore|thus|equal to|given by"
    r"|found to be|that|then|so|\\?[\"\u201c]|[\s:*,])+",
    re.IGNORECASE,
)
_ABBREVIATION = "".join(rf"(?<!\b{word})" for word in ("Mr", "Mrs", "Ms", "Dr", "St", "Jr", "Mt"))
_SENTENCE_END = re.compile(rf"{_ABBREVIATION}[.!](?=\s|\**$)|\n", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$([^$]{1,400})\$\$|(?<!\\)\$((?:\\.|[^$\\\n]){1,400})\$"
    r"|\\\(((?:(?!\\\)).){1,400})\\\)|\\\[((?:(?!\\\])[\s\S]){1,400})\\\]"
)
_TEXT = re.compile(r"\\text\w{0,8}\s?\{[^{}]*\}")
# Text between two amounts of money: `$5 and he keeps $3`, `$5 + $3`.
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}\b|^\d.*(?:[A-Za-z]{3,}|[-+*/=,])\s*$")
_JOINT = re.compile(
    r"[\s$.,;]*(?:\\quad|\\[()\[\], ])*[\s$]*(?:(?:,|\\text\s?\{)?\s*\b(?:and|or)\b\s*\}?|[,;])?"
    r"[\s$]*(?:\\quad|\\[()\[\], ])*[\s$]*(?:[A-Za-z]\w{0,2}(?:_\{?\w\}?)?\s*=\s*)?"
)
_DECIMAL = r"(?<!\d)(?<![A-Za-z]{2})(?:\d{1,3}(?: \d{3})+(?!\d)|\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)"
# A minus directly after a letter, digit or closing bracket is a subtraction, not a sign.
_NUMBER = re.compile(
    rf"(?:(?<![\w)}}])[-\u2212])?(?:\\[dt]?frac\{{-?\d{{1,40}}\}}\{{\d{{1,40}}\}}"
    rf"|\\?\$?{_DECIMAL}(?:\s?/\s?\d+(?!\d|\.\d))?)(?:\s?\\?%)?"
)
_LAST_IS = re.compile(
    r".*(?:\b(?:is|are|was|were|equals|gives|be)\b|=)\s*(?=[-$\\(\[{.\d])", re.DOTALL
)
_WRAPPED_LETTER = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mathbf|boldsymbol)\s?\{\s*|[*$({\[]|(?:[Oo]ption|[Cc]hoice)\s+)*"
    r"([A-Za-z])\s*(?:[.:,)\]}*$](?![A-Za-z0-9]).*|$)",
    re.DOTALL,
)
_LETTER = re.compile(r"\(([A-Za-z])\)|(?<![A-Za-z0-9\\'])([A-Z])(?![A-Za-z0-9'])")
_ARTICLE = re.compile(r"\s(?!or\b|and\b)[a-z]")
_NEXT_LETTER = re.compile(
    r"[A-Z]?\W{0,4}(?:\s(?:and|or)\s|[,/&])\W{0,4}(?:text\s?\{)?\(?([A-Z])\b(?!'|\s+(?:is|are)\b)"
)
_CORRECT_LETTER = re.compile(
    r"(?<![A-Za-z0-9])\(?([A-Z])\)?\**\s+is\s+(?:(?:the|a)\s+)?(?!not\b|in)(?:\w{1,12}\s+)?"
    r"(?:correct|right|true|answer|choice|option)\b"
)
_FIRST_LETTER = re.compile(
    r"\s{0,3}(?:[Oo]ption\s)?\W{0,3}([A-Z])(?:\W{0,2}[.:)](?!\W*is\b)|\W{0,3}(?:\n|$))"
)
_OPTION_LIST = re.compile(
    r"[\s*]{0,5}(?:\(?A[.:)]|\(A\)).{1,100}?(?<![A-Za-z])(?:\(?B[.:)]|\(B\))\s", re.DOTALL
)


def extract(output: str, kind: str, choices: Sequence[str] = ()) -> str | None:
    r"""The final answer in `output`, or None if there is none.

    It is stated in a balanced, non-empty `\boxed{...}` or `\fbox{...}`, after "answer is" or
    "answer:", or after `####`: the last of them counts, but a statement after a box only if it is a
    value. Without any, it is the last formula or number of the text (kind `math`), the last number
    (`number`, as in the toolkit) or the last stand-alone letter of an option (`choice`).
    Several boxes or formulas that are joined by commas, "and" or "or" are one list.

    choices: the options of a multiple-choice question; other letters are ignored.
    """
    if kind == "choice":
        return _extract_choice(output, choices)
    found = boxes(output)
    box_end = found[-1][1] if found else 0
    marked = _marked(output)
    if marked and marked[0] >= box_end:
        return _value(marked[1], kind) or marked[1]
    stated = _last_statement(output)
    if stated and stated[0] >= box_end:
        value = _value(stated[1], kind, only_leading=bool(found))
        if value:
            return value
    if found:
        return _joined(output, found) if kind == "math" else output[slice(*found[-1])].strip()
    return _last_value(output, kind)


def _joined(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The last span, and those before it that are joined to it, as a list."""
    first = len(spans) - 1
    while first and _is_joint(text[spans[first - 1][1] : spans[first][0]]):
        first -= 1
    return ", ".join(text[start:end].strip() for start, end in spans[first:])


def _is_joint(between: str) -> bool:
    between = re.sub(r"^\}|\\(?:boxed|fbox)\s?\{$", "", between)
    return len(between) < 60 and ". " not in between and _JOINT.fullmatch(between) is not None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007 - only the last match is needed
        pass
    return match


def _marked(output: str) -> tuple[int, str] | None:
    """Position and text of the last `#### ...` that is not a heading."""
    marked = None
    for match in _MARKED.finditer(output):
        text = match[1].strip(" *")
        is_last = not output[match.end(1) :].strip()
        if _MARKED_VALUE.match(text) or is_last:
            marked = match.start(), text[:_MAX_STATED_CHARACTERS]
    return marked


def _last_statement(output: str) -> tuple[int, str] | None:
    """Position and text of the rest of the sentence after the last answer phrase.

    Skips the answer to a part of the question if a number follows its sentence.
    """
    for phrase in reversed(deque(_ANSWER_PHRASE.finditer(output), _MAX_PHRASES)):
        rest = _rest_of_sentence(output, phrase.end())
        is_part = _PART.search(phrase["subject"] or "")
        if is_part and re.search(r"\d", output[phrase.end() + len(rest) + 1 :]):
            continue
        if rest.strip(" *:."):
            return phrase.start(), rest
    return None


def _rest_of_sentence(output: str, start: int) -> str:
    tail = output[start : start + _MAX_STATED_CHARACTERS]
    skipped = len(tail) - len(tail.lstrip(" \t\n:*"))
    end = skipped
    while stop := _SENTENCE_END.search(tail, end):
        inside = next(
            (formula for formula in _formulas(tail) if formula[0] < stop.start() < formula[1]), None
        )
        if inside is None:
            return tail[: stop.start()]
        end = inside[1]
    return tail


def _formulas(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the formulas in `text`, with their delimiters; `$5 and $7` is none."""
    position = 0
    while match := _FORMULA.search(text, position):
        content = next(group for group in match.groups() if group is not None)
        is_formula = content.strip() and (match[2] is None or not _PROSE.search(_TEXT.sub("", content)))
        position = match.end() if is_formula else match.start() + 1
        if is_formula:
            yield match.span()


def _content(formula: str) -> str:
    return formula.strip("$") if formula[0] == "$" else formula[2:-2]


def _value(stated: str, kind: str, *, only_leading: bool = False) -> str | None:
    """The value in a sentence: `34` in `the largest $n$ is 34`; the sentence if it has none.

    only_leading: None unless the sentence starts with its value.
    """
    stated = stated.strip(" \t\n*:")
    hedge = _HEDGE.match(stated)
    stated = stated[hedge.end() :] if hedge else stated
    if kind == "number":
        return (
            None
            if only_leading and not _NUMBER.match(stated.lstrip("$\\([ *"))
            else _stated_number(stated)
        )
    formulas = list(_formulas(stated))
    if not formulas or formulas[0][0] > 0:
        last_is = _LAST_IS.match(stated)
        if last_is and not re.match(r"[-$\\(\[{.\d]", stated):
            return None if only_leading else _value(stated[last_is.end() :], kind)
    if formulas and formulas[0][0] == 0:
        end = 1
        while end < len(formulas) and _is_joint(stated[formulas[end - 1][1] : formulas[end][0]]):
            end += 1
        return ", ".join(_content(stated[slice(*span)]).strip() for span in formulas[:end])
    if only_leading and not re.match(r"[-+\\$]?\.?\d|[-+]?\\", stated):
        return None
    if re.match(r"[A-Za-z]{2,}\s", stated) and not re.search(r"\d:\d\d|\d\s?[ap]\.?m\b", stated):
        if formulas:
            return _content(stated[slice(*formulas[-1])]).strip()
        if re.search(r"\d", stated) and len(stated.split()) > 3:
            return _stated_number(stated, first=False)
    return stated.strip(" \t*").rstrip(" \t*.,;:") or None


def _stated_number(stated: str, *, first: bool = True) -> str | None:
    """The first number of a stated answer, or the first after its last `=` or approximation."""
    for sign in ("=", "\\approx", "≈"):
        stated = stated.rpartition(sign)[2]
    if not _NUMBER.match(stated.lstrip("$\\([ *")):
        last_is = _LAST_IS.match(stated)
        stated = stated[last_is.end() :] if last_is else stated
    number = _NUMBER.search(stated) if first else _last(_NUMBER, stated)
    return number.group().strip() if number else None


def _last_value(output: str, kind: str) -> str | None:
    """The last number, or for kind `math` the last formula if no number follows it."""
    number = _last(_NUMBER, output)
    if kind == "math":
        text = output[-_MAX_LAST_CHARACTERS:]
        spans = list(_formulas(text))
        offset = len(output) - len(text)
        if spans and (number is None or number.start() < offset + spans[-1][1]):
            first = len(spans) - 1
            while first and _is_joint(text[spans[first - 1][1] : spans[first][0]]):
                first -= 1
            return ", ".join(_content(text[slice(*span)]).strip() for span in spans[first:])
    return number.group().strip() if number else None


def choice_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""The letter of the option that `text` states: `B`, `(b)`, `\text{B}`, `B. Paris`, `Paris`.

    None if `text` states no option, or several.
    """
    text = text[:_MAX_STATED_CHARACTERS]
    options = [normalize(choice) for choice in choices]
    answer = normalize(text)
    texts = [compact(option).casefold() for option in options]
    if len(answer) > 1 and compact(answer).casefold() in texts:  # also if it starts with a letter
        return _only([compact(answer).casefold() == option for option in texts])
    if match := _WRAPPED_LETTER.match(text):
        return None if _names_another(text, match) else _option_letter(match[1], choices)
    number = parse_number(answer, strict_units=False)
    if number is None:
        return None
    numbers = [parse_number(option, strict_units=False) for option in options]
    return _only([option is not None and option.value == number.value for option in numbers])


def _only(matches: Sequence[bool]) -> str | None:
    return LETTERS[matches.index(True)] if sum(matches) == 1 else None


def _option_letter(letter: str, choices: Sequence[str]) -> str | None:
    upper = letter.upper()
    return upper if upper in LETTERS[: len(choices) or len(LETTERS)] else None


def _names_another(text: str, letter: re.Match[str]) -> bool:
    other = _NEXT_LETTER.match(text, letter.end(letter.lastindex or 0))
    return other is not None and other[1] != letter[letter.lastindex or 0].upper()


def _extract_choice(output: str, choices: Sequence[str]) -> str | None:
    """The last box, `####` or phrase that states an option; else the last letter."""
    candidates = [(start, output[start:end].strip(), False) for start, end in boxes(output)]
    marked = _marked(output)
    if marked:
        candidates.append((*marked, False))
    for phrase in deque(_CHOICE_PHRASE.finditer(output), _MAX_PHRASES):
        if not _OPTION_LIST.match(output, phrase.end()):
            candidates.append((phrase.start(), _rest_of_sentence(output, phrase.end()), True))
    for phrase in deque(_CORRECT_LETTER.finditer(output), _MAX_PHRASES):
        candidates.append((phrase.start(), phrase[1], True))
    for _, text, is_sentence in sorted(candidates, reverse=True)[:_MAX_PHRASES]:
        stated = text.strip(" \t\n:*")
        letter = choice_letter(stated, choices)
        if letter:
            return letter
        letters = _option_letters(stated, choices) if is_sentence or len(stated) < 20 else []
        if letters:
            several = len(set(letters)) > 1 and any(
                _names_another(stated, match) for match in _LETTER.finditer(stated)
            )
            return stated if several else letters[0]
    first = _FIRST_LETTER.match(output)
    if first and not _OPTION_LIST.match(output):
        return _option_letter(first[1], choices)
    return (_option_letters(output, choices) or [None])[-1]


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

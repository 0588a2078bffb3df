"""Rewrites LaTeX, and plain-text variants of it, in one canonical notation."""

import re
import unicodedata
from fractions import Fraction

_CHARACTERS = str.maketrans("\u2212\u2013\u00a0\u202f\u2009\u00f7\u2044\u2032", "--   //'") | {
    ord(character): latex
    for character, latex in (
        ("\u00d7", "\\times "),
        ("\u00b7", "\\cdot "),
        ("\u03c0", "\\pi "),
        ("\u221e", "\\infty "),
        ("\u222a", "\\cup "),
        ("\u2260", "\\ne "),
        ("\u2264", "\\le "),
        ("\u2265", "\\ge "),
        ("\u2248", "\\approx "),
        ("\u00b0", "^\\circ "),
        ("\u00bd", " \\frac{1}{2}"),
        ("\u00b5", "\\mu "),
        ("\u03bc", "\\mu "),
    )
}
_SUPERSCRIPTS = re.compile(r"[\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u207b]+")
_ROOT = re.compile(
    r"([\u221a-\u221c]|(?<![\\A-Za-z])sqrt(?=\s?\())\s?"
    r"(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|\\pi))"
)
_DEGREE = {"\u221b": "[3]", "\u221c": "[4]"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])")
_SPACING = re.compile(r"(?<!\\)\\(?:[!,;: ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~")
_THOUSANDS = re.compile(
    r"(?<![\d.,/])\d{1,3}(?:(?:,\\!|\{,\}|\\[,;:! ]|~| )\s{0,3}\d{3})+(?!\d|,\d|\s?/)"
)
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:[a-z]{2}|normal)?|math(?!bb)(?:[a-z]{2}|normal)|[mh]box|emph|underline|boldsymbol|bm"
    r"|rm|bf|large|Large)\s?(?=\{)|(\{)\\(?:rm|bf|it|large|Large)(?![A-Za-z{])"
)
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_TEXT_NUMBER = re.compile(r"\\text\s?\{\s*([^{}A-Za-z]*[\d:][^{}A-Za-z]*)\}")
_WHOLE_TEXT = re.compile(r"(?:\\text)?\s?\{(.*)\}$", re.DOTALL)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(?<=\d)\s*(\\text\s?\{{\s*)?({'|'.join(_SCALES)})s?(?![A-Za-z])")
_DOZEN = re.compile(r"(?<![\d.,/])(\d{1,4}(?:\.\d)?)\s*(\\text\s?\{\s*)?dozens?(?![A-Za-z])")
_PERCENT = re.compile(r"\\text\s?\{\s*percent\s*\}|\bpercent\b")
_SET_BUILDER = re.compile(r"^\\\{\s*[a-z]\s*(?::|\\mid|\|)\s*(.*)\\\}$")
_FRACTION_COMMAND = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_ARGUMENT = r"(\{[^{}]*\}|\d|[A-Za-z]|\\[A-Za-z]+)"
_SHORT_FRACTION = re.compile(rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_SHORT_ROOT = re.compile(r"\\(sqrt|d?dot|hat|bar|vec|tilde)\s*(\d|[A-Za-z]|\\[a-z]+)")
_DEGREES = re.compile(
    r"(?:(?:\{\s?\})?\^\s?(?:\{\s?\\(?:circ|degree)\s?\}|\\circ(?![A-Za-z]))|\^?\s?\\(?:text)?degree(?![A-Za-z])"
    r"|(?<=\d)\s?\^\s?(?:\{\s?)?(?:\\text\s?\{\s?o\s?\}|o(?![A-Za-z]))\s?\}?)"
    r"(?:\s?[CF](?![A-Za-z]))?"
)
_SYNONYM = {
    "lt": "<",
    "gt": ">",
    "simeq": "\\approx",
    "lor": "\\text{ or }",
    "land": "\\text{ and }",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "emptyset": "\\varnothing",
    "imath": "i",
    "AA": "\u00c5",
    "colon": ":",
}
_INEQUALITIES = re.compile(r"\\([lgn]e)q(?:slant)?(?![A-Za-z])")
_SYNONYMS = re.compile(rf"\\({'|'.join(_SYNONYM)})(?![A-Za-z])")
_PLAIN_NAMES = re.compile(
    r"(?<![\\A-Za-z])(?:np\.)?(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infty)(?![A-Za-z])"
)
_SINGLE_BRACES = re.compile(r"([_^])\{\s?(\w)\s?\}")
_DELIMITED = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_BOX = re.compile(r"^\\(?:boxed|fbox)\s?\{(.*)\}$", re.DOTALL)


def normalize(text: str) -> str:
    """Canonical notation of an answer. Does not change its value."""
    text = _SUPERSCRIPTS.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _ROOT.sub(
        lambda root: f"\\sqrt{_DEGREE.get(root[1], '')}{{{root[2] or root[3] or root[4]}}}", text
    )
    text = _CONTROL.sub("", text.translate(_CHARACTERS)).strip()
    text = _TEXT_COMMAND.sub(r"\\text\1", text)
    for _ in range(4):  # delimiters and boxes may be nested
        for opening, closing in _DELIMITED:
            enclosed = text.startswith(opening) and text.endswith(closing)
            if enclosed and len(text) > len(opening) + len(closing):
                text = text[len(opening) : -len(closing)].strip()
        text = text.strip(" \t\n").rstrip(".,;: \t\n")
        if box := _BOX.match(text):
            text = box[1].strip()
        if (whole := _WHOLE_TEXT.match(text)) and braces_balance(whole[1]):
            text = whole[1].strip()
    text = _THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), text)
    text = text.replace("\\%", "%").replace("\\$", "").replace("$", "")
    text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ")
    text = _SPACING.sub(" ", _SIZING.sub("", text))
    text = _SYNONYMS.sub(lambda match: _SYNONYM[match[1]], _INEQUALITIES.sub(r"\\\1", text))
    text = _SET_BUILDER.sub(r"\1", _PERCENT.sub("%", _TEXT_NUMBER.sub(r"\1", text)))
    text = _DOZEN.sub(lambda dozens: f"{12 * float(dozens[1]):g}{dozens[2] or ''}", text)
    text = _SCALE.sub(lambda word: f"e{_SCALES[word[2]]}{word[1] or ''}", text)
    text = _DEGREES.sub(" ", text).replace("{:}", ":")
    text = _FRACTION_COMMAND.sub(r"\\frac", text)
    text = _SHORT_FRACTION.sub(
        lambda match: "\\frac{" + match[1].strip("{} ") + "}{" + match[2].strip("{} ") + "}", text
    )
    text = _SHORT_ROOT.sub(r"\\\1{\2}", text)
    text = _PLAIN_NAMES.sub(r"\\\1 ", text)
    return " ".join(text.split())


def compact(text: str) -> str:
    r"""Removes spaces, `\text` and braces around one character, for comparison as text."""
    return _SINGLE_BRACES.sub(r"\1\2", _TEXT.sub(r"\1", text)).replace(" ", "")


def braces_balance(text: str) -> bool:
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text):
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0


# Units

_POWER = r"\s?\^\s?(?:\{\s?-?\d\s?\}|-?\d)"
_UNIT_POWER = rf"(?:{_POWER})?"
_SOLAR = r"(?:\s?_\s?(?:\{\s?)?\\odot(?:\s?\})?)"
_NO_UNIT = r"(?:and|or|if|for|when|where|with|of|is|to|mod|in(?!\s*[}^.])|base|dozens?|" + "|".join(
    _SCALES
)
_UNIT_TEXT = rf"(?:\\mu\s?)?\\text\s?\{{(?!\s*{_NO_UNIT})\b)(?:{_POWER}|[^{{}}\d])*\}}{_SOLAR}?"
_UNIT_NAME = rf"\(?(?<![\\A-Za-z])(?!{_NO_UNIT})\b)[A-Za-z]{{3,}}\)?"
_SHORT_UNIT = (
    r"(?:[cmkdn]m|[mk]g|[mcd]l|ft|in|yd|mi|lbs?|oz|hrs?|ms|[ap]m|kph|mph|hz|eV)(?![A-Za-z])"
)
# Units whose symbols may also be variables: `2 m` may be a product.
_SI_UNIT = (
    rf"[MLR]{_SOLAR}|(?:\\mu\s?|da|[munpkMGTcdh])?(?:\\Omega|\u03a9|\u212b|\u00c5|mol|Hz|Pa|eV|[mgsAKNJWVCFTHL])"
    r"(?![A-Za-z_])"
)


def _unit_pattern(first: str, others: str) -> re.Pattern[str]:
    units = (
        rf"(?:{first}){_UNIT_POWER}"
        rf"(?:\s?(?:/|\\cdot|\*|\\times|\s|(?=\\))\s?\(?(?:{others}){_UNIT_POWER}\)?)*"
    )
    fraction = rf"\s*\\frac\s?\{{\s?{units}\s?\}}\s?\{{\s?{units}\s?\}}"
    return re.compile(
        rf"(?<=[\w)}}\]%])(?:{fraction}|\s*(?=\\text|{_SHORT_UNIT}){units}|\s+{units}"
        rf"|\s*(?:{first})\s?/\s?{units}|(?<=\d)(?:st|nd|rd|th))$"
    )


_ANY_UNIT = "|".join((_UNIT_TEXT, _SHORT_UNIT, _UNIT_NAME, _SI_UNIT))
_REFERENCE_UNIT = _unit_pattern("|".join((_UNIT_TEXT, _SHORT_UNIT, _UNIT_NAME)), _ANY_UNIT)
_ANSWER_UNIT = _unit_pattern(_ANY_UNIT, _ANY_UNIT)


def without_unit(text: str, *, symbols: bool) -> str:
    r"""Removes a unit from the end: `7\pi \text{ cm}^2`, `60 \frac{km}{h}`, `5 square inches`.

    symbols: also remove units whose symbols are one letter, which are variables elsewhere.
    """
    return (_ANSWER_UNIT if symbols else _REFERENCE_UNIT).sub("", text)


# Equations and lists

_EQUALS = re.compile(r"(?<![<>!])=")
_SEPARATOR = re.compile(
    r"\\cup|\\text\s?\{\s*(?:,|,?\s*(?:and|or))\s*\}|\b(?:and|or)\b|[,;]|\\[{}]|[\[\](){}]"
)


def split_equation(text: str) -> tuple[str, str]:
    """Splits `x = 4/2 = 2` into its name and its value; the name is "" if there is no `=`."""
    parts = [part.strip(" &") for part in _EQUALS.split(text)]
    return (parts[0], parts[-1]) if len(parts) > 1 else ("", text)


def split_values(text: str) -> tuple[str, list[str]]:
    r"""Splits a tuple, interval, set or list into its brackets and values.

    The brackets of a set (`\{1,2\}`) and of a list (`1, 2 and 3`), which have no order, are "".
    """
    depth, start, values, outer = 0, 0, [], True
    for mark in _SEPARATOR.finditer(text):
        if mark[0][-1] in "([{":
            depth += 1
        elif mark[0] in (")", "]", "}", "\\}"):
            depth -= 1
            outer &= depth > 0 or mark.end() == len(text)
        elif depth == 0:
            values.append(text[start : mark.start()])
            start = mark.end()
    if not values and outer and re.match(r"\\?[(\[{]", text) and text[-1:] in (")", "]", "}"):
        opening, closing = len(text) - len(text.lstrip("\\")) + 1, 1 + text.endswith("\\}")
        brackets, inner = split_values(text[opening:-closing])
        own = text[0] + text[-1] if text[0] in "([" and text[-1] in ")]" else ""
        return (own, inner) if not brackets and len(inner) > 1 else ("", [text])
    values.append(text[start:])
    return "", [value.strip() for value in values if value.strip()]


# Words, times and ratios

_WORD_TEXT = re.compile(r"[A-Za-z0-9 .,:'()-]+")
_ARTICLES = ("the", "a", "an")
_TIME = re.compile(
    r"(?<![\d:])(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*(?:([ap])\.?\s?m\b\.?)?(?![\d:])", re.I
)
_RATIO = re.compile(r"\s*(?::|\bto\b)\s*")


def _unwrap_text(text: str) -> str:
    return _TEXT.sub(r" \1 ", text)


def is_words(text: str) -> bool:
    """Whether to compare as words: names, dates, `(A)`. False for `3 and x`, a list of values."""
    plain = _unwrap_text(text).strip()
    return _WORD_TEXT.fullmatch(plain) is not None and (
        re.fullmatch(r"\([A-Z]\)|yes|no", plain, re.IGNORECASE) is not None
        or re.search(r"[A-Za-z]{3}", re.sub(r"\band\b", "", plain)) is not None
    )


def same_words(answer: str, gold: str) -> bool:
    """Whether two texts have the same words, apart from case, articles and full stops.

    After a yes or no, other words do not count.
    """
    given, expected = _words(answer), _words(gold)
    return given[: 1 if expected in (["yes"], ["no"]) else None] == expected


def _words(text: str) -> list[str]:
    plain = _unwrap_text(text).casefold().replace(".", "").replace("'", "")
    all_words = re.findall(r"[a-z0-9:]+", plain)
    return [word for word in all_words if word not in _ARTICLES] or all_words


def time_of_day(text: str) -> tuple[int, str] | None:
    """The only time in the text, in seconds since midnight or noon, and `a`, `p` or ""."""
    found = [time for time in _TIME.finditer(_unwrap_text(text)) if time[2] or time[4]]
    if len(found) != 1:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found[0].group(1, 2, 3))
    half = (found[0][4] or ("p" if hours > 12 else "")).lower()
    return (hours % 12 * 60 + minutes) * 60 + seconds, half


def ratio(text: str) -> list[Fraction] | None:
    """The terms of `5:6` or `10 to 12` as shares of their sum; None for other text."""
    terms = _RATIO.split(_unwrap_text(text).strip())
    if len(terms) < 2 or not all(re.fullmatch(r"\d{1,20}(?:\.\d{1,20})?", term) for term in terms):
        return None
    values = [Fraction(term) for term in terms]
    return [value / (sum(values) or 1) for value in values]

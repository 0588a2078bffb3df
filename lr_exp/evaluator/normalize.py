"""Rewrites LaTeX, and plain-text variants of it, in one canonical notation."""

import re

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
_SYNONYMS = re.compile(rf"\\({'|'.join(_SYNONYM)})(?![A-Za-z])")
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s?\(([^()]*)\)")
_PLAIN_NAMES = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infty)(?![A-Za-z])"
)
_MEMBERSHIP = re.compile(r"^[A-Za-z]\s*\\in(?![A-Za-z])\s*")
_SINGLE_BRACES = re.compile(r"([_^])\{\s?(\w)\s?\}")
_DELIMITED = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_BOX = re.compile(r"^\\(?:boxed|fbox)\s?\{(.*)\}$", re.DOTALL)


def normalize(text: str) -> str:
    """Canonical notation of an answer. Does not change its value."""
    text = _CONTROL.sub("", text.translate(_CHARACTERS)).strip()
    for _ in range(4):  # delimiters and boxes may be nested
        for opening, closing in _DELIMITED:
            enclosed = text.startswith(opening) and text.endswith(closing)
            if enclosed and len(text) > len(opening) + len(closing):
                text = text[len(opening) : -len(closing)].strip()
        text = text.rstrip(".,;: \t\n")
        box = _BOX.match(text)
        if box:
            text = box.group(1).strip()
    text = _THOUSANDS.sub(",", text)
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


def compact(text: str) -> str:
    """Removes spaces, case and braces around a single character, for comparison as text."""
    return _SINGLE_BRACES.sub(r"\1\2", text).replace(" ", "").casefold()


def braces_balance(text: str) -> bool:
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text):
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0


def right_side(text: str) -> str:
    """The right side of a single `=` or of an approximation: `5` for `x = 5`."""
    _, mark, right = text.rpartition("\\approx")
    if not mark and text.count("=") == 1:
        _, mark, right = text.partition("=")
    return right.strip() if mark else text


_WORD_TEXT = re.compile(r"[A-Za-z0-9 .,:'()-]+")
_ARTICLES = ("the", "a", "an")


def _unwrap_text(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)


def is_words(text: str) -> bool:
    """Whether to compare as words: names, times, `(A)`. False for `3 and x`, a list of values."""
    plain = _unwrap_text(text).strip()
    if not _WORD_TEXT.fullmatch(plain):
        return False
    return (
        re.fullmatch(r"\([A-Z]\)|\d{1,3}\s*:\s*\d{1,3}(?:\s*:\s*\d{1,3})?", plain) is not None
        or re.search(r"[A-Za-z]{3}", re.sub(r"\band\b", "", plain)) is not None
        or re.search(r"\d\s*[ap]\.?m\b", plain) is not None
    )


def words(text: str) -> list[str]:
    """Lower-case words without articles and full stops: `The 60th caller.` is `60th caller`."""
    plain = _unwrap_text(text).casefold().replace(".", "").replace("'", "")
    plain = re.sub(r"\s*:\s*", ":", plain)
    plain = re.sub(r"(\d)\s+([ap]m)\b", r"\1\2", plain)
    all_words = re.findall(r"[a-z0-9:]+", plain)
    return [word for word in all_words if word not in _ARTICLES] or all_words

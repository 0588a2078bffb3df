"""An SVG file of matplotlib made part of an HTML page.

Knows SVG; knows nothing of what is drawn. Only listed elements, attributes and properties are kept,
so names that come from users stay text, and nothing in a figure can run, load or restyle the page.
"""

import re
import xml.etree.ElementTree as ET
from html import escape

from lr_exp.report.figures.style import COLOURS, INK

_TAGS = {"g", "path", "defs", "clipPath", "pattern", "rect", "use", "text", "tspan"}
_GEOMETRY = {"d", "x", "y", "width", "height"}
_PROPERTIES = {
    *("fill", "fill-opacity", "opacity", "font-size", "font-style", "font-weight", "stroke"),
    *("stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin"),
    *("stroke-miterlimit", "stroke-opacity", "stroke-width", "text-anchor"),
}
_VALUE = re.compile(r"[-#.,\w ]*(?:url\(#[-\w]+\))?", re.ASCII)  # of a property
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_TARGET = re.compile(r"url\(#([-\w]+)\)", re.ASCII)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_SHORTHAND = re.compile(r"(?:\b(?P<weight>bold|\d00)\s+)?(?P<size>[\d.]+px)")
_VARIABLES = {colour.light: colour.css for colour in COLOURS}


def inline(svg: bytes, name: str, caption: str, wide: bool = False) -> str:
    """An `<svg>` element to stand in HTML: no prolog, no fixed size, no style sheet of its own.

    Its colours are the variables of `style.CSS`, its letters are the page's, and its ids begin with
    `name`, which no other figure of the page may have.

    Args:
        svg: as matplotlib writes it, with text as text.
        name: of the figure.
        caption: what it shows; read aloud where a figure cannot be seen.
        wide: whether it is of two columns.
    """
    root = ET.fromstring(svg)  # noqa: S314  made by matplotlib, which has escaped its text
    prefix = re.sub(r"[^A-Za-z0-9_]", "-", name)
    inside = "".join(_element(child, prefix) for child in root)
    box = " ".join(f"{float(part):g}" for part in root.get("viewBox", "0 0 252 180").split())
    classes = "lr-figure lr-wide" if wide else "lr-figure"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" class="{classes}" role="img" '
        f'aria-labelledby="{prefix}-title" '
        f'style="fill:{INK.css};stroke-linejoin:round;stroke-linecap:butt">'
        f'<title id="{prefix}-title">{escape(caption)}</title>{inside}</svg>'
    )


def _element(element: ET.Element, prefix: str) -> str:
    tag = element.tag.rpartition("}")[2]
    if tag not in _TAGS:
        return ""
    told = "".join(
        f' {key}="{escape(value)}"' for key, value in _attributes(element, prefix).items() if value
    )
    # White space between elements is matplotlib's; in a text it is the author's.
    text = escape(element.text or "") if tag in ("text", "tspan") else ""
    inside = text + "".join(_element(child, prefix) for child in element)
    if tag in ("g", "defs") and not inside:
        return ""
    if tag == "g" and not told:
        return inside
    return f"<{tag}{told}>{inside}</{tag}>" if inside else f"<{tag}{told}/>"


def _attributes(element: ET.Element, prefix: str) -> dict[str, str]:
    kept = {}
    for full, value in element.items():
        key = full.rpartition("}")[2]
        if key == "id":
            # Of groups nobody speaks; what is used again has a name.
            if element.tag.rpartition("}")[2] != "g":
                kept["id"] = f"{prefix}-{_word(value)}"
        elif key == "href" and value.startswith("#"):
            kept["href"] = f"#{prefix}-{_word(value[1:])}"
        elif key == "clip-path":
            kept[key] = _pointed(value, prefix) if _TARGET.fullmatch(value) else ""
        elif key == "style":
            kept[key] = _style(value, prefix)
        elif key in _GEOMETRY:
            kept[key] = _LONG_NUMBER.sub(_rounded, " ".join(value.split()))
        elif key == "transform" and not value.startswith("rotate(-0 "):
            kept[key] = value
        elif key == "patternUnits":
            kept[key] = "userSpaceOnUse"
        elif key in ("fill", "stroke") and (value == "none" or _COLOUR.fullmatch(value)):
            kept[key] = value
    # A variable has its value in a style alone.
    for key in ("fill", "stroke"):
        if key in kept:
            kept["style"] = f"{key}:{_coloured(kept.pop(key))};{kept.get('style', '')}".strip(";")
    return kept


def _style(text: str, prefix: str) -> str:
    told = []
    for part in text.split(";"):
        key, _, value = (word.strip() for word in part.partition(":"))
        if key == "font" and (short := _SHORTHAND.search(value)):  # before matplotlib 3.9
            told.append(f"font-size:{short['size']}")
            told += [f"font-weight:{short['weight']}"] if short["weight"] else []
        elif key in _PROPERTIES and _VALUE.fullmatch(value):
            told.append(f"{key}:{_pointed(_coloured(value), prefix)}")
    return ";".join(told)


def _coloured(value: str) -> str:
    return _COLOUR.sub(lambda found: _VARIABLES.get(found[0], found[0]), value)


def _pointed(value: str, prefix: str) -> str:
    return _TARGET.sub(lambda found: f"url(#{prefix}-{found[1]})", value)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "-", text)


def _rounded(number: re.Match[str]) -> str:
    """To a hundredth of a point, which no screen shows."""
    return f"{float(number[0]):.2f}"

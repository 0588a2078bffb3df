"""Converts matplotlib's SVG files for inline use in HTML.

Only listed elements, attributes and properties are kept, so that nothing in a figure can run, load
or restyle the page.
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
_FONT = re.compile(r"(?:\b(?P<weight>bold|\d00)\s+)?(?P<size>[\d.]+px)")
_VARIABLES = {colour.light: colour.css for colour in COLOURS}


def inline(svg: bytes, name: str, caption: str, wide: bool = False) -> str:
    """An `<svg>` element for HTML, without prolog, fixed size or style sheet.

    It uses the variables of `style.CSS` and the page's font; its ids begin with `name`.

    Args:
        svg: a file written by matplotlib, with text as text.
        name: the figure's name, unique on the page.
        caption: what the figure shows; its accessible name.
        wide: whether it spans two columns.
    """
    root = ET.fromstring(svg)  # noqa: S314  written by matplotlib, with its text escaped
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
    attributes = "".join(
        f' {key}="{escape(value)}"' for key, value in _attributes(element, prefix).items() if value
    )
    # White space matters in text elements only.
    text = escape(element.text or "") if tag in ("text", "tspan") else ""
    inside = text + "".join(_element(child, prefix) for child in element)
    if tag in ("g", "defs") and not inside:
        return ""
    if tag == "g" and not attributes:
        return inside
    return f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"


def _attributes(element: ET.Element, prefix: str) -> dict[str, str]:
    kept = {}
    for full, value in element.items():
        key = full.rpartition("}")[2]
        if key == "id":
            # Nothing refers to groups.
            if element.tag.rpartition("}")[2] != "g":
                kept["id"] = f"{prefix}-{_word(value)}"
        elif key == "href" and value.startswith("#"):
            kept["href"] = f"#{prefix}-{_word(value[1:])}"
        elif key == "clip-path":
            kept[key] = _prefixed_target(value, prefix) if _TARGET.fullmatch(value) else ""
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
    # CSS variables work in styles, not in presentation attributes.
    for key in ("fill", "stroke"):
        if key in kept:
            colour = _with_variables(kept.pop(key))
            kept["style"] = f"{key}:{colour};{kept.get('style', '')}".strip(";")
    return kept


def _style(text: str, prefix: str) -> str:
    rules = []
    for part in text.split(";"):
        key, _, value = (word.strip() for word in part.partition(":"))
        if key == "font" and (font := _FONT.search(value)):  # before matplotlib 3.9
            rules.append(f"font-size:{font['size']}")
            rules += [f"font-weight:{font['weight']}"] if font["weight"] else []
        elif key in _PROPERTIES and _VALUE.fullmatch(value):
            rules.append(f"{key}:{_prefixed_target(_with_variables(value), prefix)}")
    return ";".join(rules)


def _with_variables(value: str) -> str:
    return _COLOUR.sub(lambda match: _VARIABLES.get(match[0], match[0]), value)


def _prefixed_target(value: str, prefix: str) -> str:
    return _TARGET.sub(lambda match: f"url(#{prefix}-{match[1]})", value)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "-", text)


def _rounded(number: re.Match[str]) -> str:
    """Rounded to a hundredth of a point."""
    return f"{float(number[0]):.2f}"

"""HTML as values: whatever is not made by `tag` is text, and text is escaped and shown harmlessly.

Knows characters and elements; knows nothing of pages. Only `raw` lets markup through as it is.
"""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from lr_exp.errors import printable

# What could end a script element or be a line end to an older reader of JavaScript; and halves of
# surrogate pairs, which no file can hold.
_UNSAFE_IN_JSON = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_VOID = {"br", "hr", "input", "link", "meta"}

Attribute = str | int | float | bool | None


class Html(str):
    """Markup that `tag`, `text`, `join` or `raw` made."""

    __slots__ = ()


Child = str | Html | None


def text(value: object) -> Html:
    r"""Text as it is; what would hide, reorder or end it is spelt (`\u202e`)."""
    return Html(html.escape(printable(str(value)), quote=True))


def raw(markup: str) -> Html:
    """Markup of the package's own: a drawing or a file that lies beside this module."""
    return Html(markup)


def tag(name: str, *children: Child | Iterable[Child], **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: the element's.
        children: text (escaped), markup, or iterables of both; None is nothing.
        attributes: `class_` is class, `aria_label` is aria-label; None and False are left out.
    """
    opening = "".join(f" {word}" for word in map(_attribute, attributes.items()) if word)
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: Child | Iterable[Child]) -> Html:
    """Children one after the other."""
    return Html("".join(_flat(children)))


def isolated(value: object) -> Html:
    """A name that may be written from right to left: it reorders nothing beside it."""
    return tag("bdi", str(value))


def embedded_json(identifier: str, value: Any) -> Html:
    """Data for the page's own script, inert whatever it holds: `<`, `>` and `&` are escaped."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", data)
    return Html(f'<script type="application/json" id="{identifier}">{safe}</script>')


def _attribute(item: tuple[str, Attribute]) -> str:
    key, value = item
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return name if value is True else f'{name}="{text(value)}"'


def _flat(children: Iterable[Child | Iterable[Child]]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str):
            yield text(child)
        else:
            yield from _flat(child)

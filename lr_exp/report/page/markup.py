"""Builds HTML safely: every string that is not `Html` is escaped; only `raw` bypasses escaping."""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from lr_exp.errors import printable

# Characters that could end a script element, JavaScript line separators, and lone surrogates,
# which cannot be encoded.
_UNSAFE_IN_JSON = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_VOID = {"br", "hr", "input", "link", "meta"}

Attribute = str | int | float | bool | None


class Html(str):
    """Markup made by `tag`, `text`, `join` or `raw`."""

    __slots__ = ()


Child = str | Html | None


def text(value: object) -> Html:
    r"""Escaped text; control and bidirectional characters are spelled out (`\u202e`)."""
    return Html(html.escape(printable(str(value)), quote=True))


def raw(markup: str) -> Html:
    """Trusted markup, such as a figure made by this package."""
    return Html(markup)


def tag(name: str, *children: Child | Iterable[Child], **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: element name.
        children: text (escaped), markup or iterables of both; None is skipped.
        attributes: `class_` is class, `aria_label` is aria-label; None and False are skipped.
    """
    opening = "".join(f" {word}" for word in map(_attribute, attributes.items()) if word)
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: Child | Iterable[Child]) -> Html:
    """Concatenates children."""
    return Html("".join(_flat(children)))


def embedded_json(identifier: str, value: Any) -> Html:
    """Data for the page's script; `<`, `>` and `&` are escaped, so it cannot become markup."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", data)
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

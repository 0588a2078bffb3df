"""The page around the sections: head, styles, script, navigation and footer, in one file.

Its content security policy allows only the page's own style and script; nothing else is loaded.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from lr_exp.report.figures.style import CSS
from lr_exp.report.page.markup import Child, Html, join, tag

MAX_PAGE_BYTES = 3_000_000  # content is cut to stay below it, with a note

_SCRIPTS = ("page.js", "reader.js", "answers.js")


@dataclass(frozen=True)
class Part:
    """A section of the page with its entry in the navigation."""

    key: str  # its id, which links point to
    title: str
    content: Html
    data: tuple[Html, ...] = field(default=())  # JSON for its script


def page(
    title: str,
    kicker: str,
    head: Sequence[Child],
    parts: Sequence[Part],
    foot: Sequence[Child],
    figure_style: str = "",
) -> str:
    """The whole page.

    Args:
        title: the main heading.
        kicker: the kind of page, above the heading.
        head: content between the heading and the navigation.
        parts: the sections.
        foot: content of the footer.
        figure_style: style rules of the figures.
    """
    body = join(
        tag("a", "Skip to the results", class_="skip", href="#content"),
        tag(
            "header",
            tag("p", kicker, class_="kicker"),
            tag("h1", tag("bdi", title)),
            head,
            _navigation(parts),
        ),
        tag("main", [_section(part) for part in parts], id="content", tabindex="-1"),
        tag("footer", foot),
        [data for part in parts for data in part.data],
    )
    style, script = "\n".join([CSS, read_file("page.css"), figure_style]), _script()
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">',
            tag("title", f"{title} · {kicker}"),
            f"<style>{style}</style>",
            "</head>",
            f"<body>{body}",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _navigation(parts: Sequence[Part]) -> Html:
    links = [tag("li", tag("a", part.title, href=f"#{part.key}")) for part in parts]
    return tag("nav", tag("ul", links), aria_label="Sections")


def _section(part: Part) -> Html:
    heading = f"{part.key}-title"
    return tag(
        "section",
        tag("h2", part.title, id=heading),
        part.content,
        id=part.key,
        aria_labelledby=heading,
    )


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _script() -> str:
    """All scripts, in one function scope."""
    whole = "\n".join(map(read_file, _SCRIPTS))
    return f"(() => {{\n'use strict';\n{whole}\n}})();"


def read_file(name: str) -> str:
    """The text of a file in this package."""
    return (files("lr_exp.report.page") / name).read_text(encoding="utf-8")

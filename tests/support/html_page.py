"""Parses `report.html`."""

import base64
import gzip
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """A parsed page: elements with attributes, and texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # (innermost element, text)
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "input", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop() == tag  # elements are properly nested

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def inside(self, name: str) -> list[str]:
        return [data for tag, data in self.texts if tag == name]

    @property
    def words(self) -> str:
        """The visible text before any script runs."""
        kept = (data for tag, data in self.texts if tag not in ("script", "style"))
        return " ".join(" ".join(kept).split())

    @property
    def images(self) -> list[ET.Element]:
        """The figures; each is an SVG file in a data URI."""
        start = "data:image/svg+xml;base64,"
        sources = [image["src"] or "" for image in self.all("img")]
        assert all(source.startswith(start) for source in sources)
        files = [base64.b64decode(source.removeprefix(start)) for source in sources]
        return [ET.fromstring(file) for file in files]  # noqa: S314  made right here

    def data(self, identifier: str) -> Any:
        match = re.search(rf'id="{identifier}">(.*?)</script>', self.source, re.DOTALL)
        assert match, identifier
        return json.loads(gzip.decompress(base64.b64decode(match.group(1))))

    def section(self, key: str) -> "Page":
        match = re.search(rf'<section id="{key}".*?</section>', self.source, re.DOTALL)
        assert match, key
        return Page(match.group())

"""Embeds figures in a page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lr_exp.report.figures import Figure
from lr_exp.report.page.markup import Html, join, raw, tag

_STYLED = re.compile(r'<([a-zA-Z]+)((?:\s[^<>]*?)?)\sstyle="([^"]*)"')
_CLASS = re.compile(r'\sclass="([^"]*)"')


@dataclass
class PageFigures:
    """A page's figures, up to a size limit, and their shared style rules.

    Inline styles become classes, since the page's security policy allows only its own style sheet.
    """

    max_bytes: int
    used: int = 0
    omitted: list[str] = field(default_factory=list)
    _classes: dict[str, str] = field(default_factory=dict)

    def html(self, figures: Sequence[Figure]) -> Html | None:
        """The figures side by side; None if there are none."""
        shown = [figure for figure in map(self._figure, figures) if figure is not None]
        return tag("div", shown, class_="figures") if shown else None

    def style(self) -> str:
        """The rules of all classes used so far."""
        return "\n".join(f".{name}{{{rules}}}" for rules, name in self._classes.items())

    def _figure(self, figure: Figure) -> Html | None:
        svg = _STYLED.sub(self._with_class, figure.inline)
        self.used += len(svg.encode())
        if self.used > self.max_bytes:
            self.omitted.append(figure.name)
            return None
        return tag(
            "figure",
            tag("div", raw(svg), class_="lr-frame", tabindex="0" if "lr-wide" in svg else None),
            tag("figcaption", tag("strong", figure.title), " ", figure.caption),
        )

    def _with_class(self, match: re.Match[str]) -> str:
        name, others, rules = match.groups()
        class_name = self._classes.setdefault(rules, f"d{len(self._classes)}")
        if _CLASS.search(others):
            return f"<{name}" + _CLASS.sub(rf' class="\1 {class_name}"', others)
        return f'<{name}{others} class="{class_name}"'


def omitted_note(drawings: PageFigures) -> Html:
    """A note on the figures that exceeded the size limit."""
    if not drawings.omitted:
        return join()
    note = f"To keep this page small, {len(drawings.omitted)} figures are only in files beside it."
    return tag("p", note, class_="note")

"""Drawings as part of a page. Knows figures and their captions; knows nothing of runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lr_exp.report.figures import Figure
from lr_exp.report.page.markup import Html, join, raw, tag

_STYLED = re.compile(r'<([a-zA-Z]+)((?:\s[^<>]*?)?)\sstyle="([^"]*)"')
_CLASS = re.compile(r'\sclass="([^"]*)"')


@dataclass
class Drawings:
    """Figures of a page, as far as there is room, and the style that they share.

    Styles of elements become classes: the page's policy allows its own style sheet alone.
    """

    most_bytes: int
    used: int = 0
    left_out: list[str] = field(default_factory=list)
    _classes: dict[str, str] = field(default_factory=dict)

    def html(self, figures: Sequence[Figure]) -> Html | None:
        """The figures side by side; None without any."""
        shown = [one for one in map(self._figure, figures) if one is not None]
        return tag("div", shown, class_="figures") if shown else None

    def style(self) -> str:
        """The rules of all classes that were given."""
        return "\n".join(f".{name}{{{rules}}}" for rules, name in self._classes.items())

    def _figure(self, figure: Figure) -> Html | None:
        drawn = self._classed(figure.inline)
        self.used += len(drawn.encode())
        if self.used > self.most_bytes:
            self.left_out.append(figure.name)
            return None
        return tag(
            "figure",
            tag("div", raw(drawn), class_="lr-frame", tabindex="0" if "lr-wide" in drawn else None),
            tag("figcaption", tag("strong", figure.title), " ", figure.caption),
        )

    def _classed(self, svg: str) -> str:
        return _STYLED.sub(self._with_class, svg)

    def _with_class(self, found: re.Match[str]) -> str:
        name, others, rules = found.groups()
        given = self._classes.setdefault(rules, f"d{len(self._classes)}")
        if _CLASS.search(others):
            return f"<{name}" + _CLASS.sub(rf' class="\1 {given}"', others)
        return f'<{name}{others} class="{given}"'


def notes(drawings: Drawings) -> Html:
    """What is said of figures for which there was no room."""
    if not drawings.left_out:
        return join()
    told = f"{len(drawings.left_out)} figures would make this page too large; they lie beside it."
    return tag("p", told, class_="note")

"""One look for all figures: sizes, the colour, line and marker that each method keeps everywhere.

Every colour has a value for white paper and one for a dark screen. On either it stands out by 3:1
(text by 4.5:1), and methods of one table differ by 9 or more in CIEDE2000 for readers without red,
green or blue cones, too; where methods of different tables come nearer, their lines and markers
differ. Knows nothing of runs. Importing it imports no matplotlib.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STYLE = Path(__file__).with_name("paper.mplstyle")
SINGLE = 3.5  # inches: a journal's column
DOUBLE = 7.0


@dataclass(frozen=True)
class Colour:
    """A colour by the name that it has as a CSS variable, `--lr-NAME`."""

    name: str
    light: str  # on white, as in print: #rrggbb
    dark: str  # on PAPER's dark value

    @property
    def css(self) -> str:
        """For a style sheet or an attribute `style`; without a style sheet it is the light one."""
        return f"var(--lr-{self.name}, {self.light})"


PAPER = Colour("paper", "#ffffff", "#14171c")
INK = Colour("ink", "#16181d", "#e8eaed")  # text
MUTED = Colour("muted", "#5f6368", "#9aa0a6")  # axes, and words beside what they tell
FAINT = Colour("faint", "#d5d9de", "#363b42")  # grid lines, and areas that need not stand out

GREY = Colour("grey", "#777777", "#9aa0a7")
BLUE = Colour("blue", "#0072b2", "#56abf6")
ROSE = Colour("rose", "#cc79a7", "#b2517e")
TEAL = Colour("teal", "#225555", "#a3eade")
VERMILION = Colour("vermilion", "#cc3311", "#f06351")
INDIGO = Colour("indigo", "#332288", "#8665e7")
BROWN = Colour("brown", "#42150a", "#eebca2")
GOLD = Colour("gold", "#c98200", "#c6a222")
SKY = Colour("sky", "#2f9bd6", "#2d77ac")
CRIMSON = Colour("crimson", "#a50026", "#dd1c4c")
PLUM = Colour("plum", "#882e72", "#eac6ef")

HUES = (GREY, BLUE, ROSE, TEAL, VERMILION, INDIGO, BROWN, GOLD, SKY, CRIMSON, PLUM)

# Words on a coloured cell: the cell is the same on paper and on a dark screen, and so are they.
ON_DARK_CELL, ON_PALE_CELL = "#fefefe", "#010101"


Line = str | tuple[float, tuple[float, ...]]  # matplotlib's name, or its own dashes


@dataclass(frozen=True)
class Look:
    """How one line, bar or point is drawn."""

    colour: str  # #rrggbb, on white
    line: Line
    marker: str


_METHODS: dict[str | None, tuple[Colour, Line, str]] = {
    "baseline": (GREY, "--", "X"),
    "rejection_sft": (ROSE, "-", "s"),
    "gt_sft": (TEAL, "-.", "D"),
    "lightreasoner": (BLUE, "-", "o"),
    "no_selection": (VERMILION, "--", "^"),
    "no_contrast": (INDIGO, ":", "v"),
    "neither": (BROWN, "-.", "*"),
    "upft": (GOLD, ":", "P"),
    "selective_ce": (SKY, "-.", "<"),
    "random_steps": (CRIMSON, "-.", ">"),
    "entropy_steps": (PLUM, "--", "d"),
}
_OTHERS = (BLUE, VERMILION, GOLD, INDIGO, ROSE)
# What no listed method has.
_OTHER_LINE: Line = (0, (6, 1.5, 1, 1.5, 1, 1.5))
_OTHER_MARKERS = "hp8H"
_LINES: tuple[Line, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
_MARKERS = "os^vDPX<>d"
_TOWARDS_INK = (0.0, 0.4, 0.8)  # shares of ink in the colours of a method's variants
_LONG = 24  # letters of a label that takes a line of the legend for itself


def of_method(method: str | None) -> Look:
    """A method's look; one that is not listed has the same in every figure, too."""
    if method in _METHODS:
        colour, line, marker = _METHODS[method]
        return Look(colour.light, line, marker)
    marker = _OTHER_MARKERS[_digits(method) // len(_OTHERS) % len(_OTHER_MARKERS)]
    return Look(colour_of(method).light, _OTHER_LINE, marker)


def colour_of(method: str | None) -> Colour:
    """A method's colour, with what it is on a dark screen."""
    if method in _METHODS:
        return _METHODS[method][0]
    return _OTHERS[_digits(method) % len(_OTHERS)]


def _digits(method: str | None) -> int:
    return sum((method or "").encode())


def of_variant(method: str | None, number: int) -> Look:
    """One of several variants of a method: its colour, nearer and nearer to that of the ink.

    The first of them looks as the method does where it stands alone; the first six have lines and
    markers of their own.
    """
    first = of_method(method)
    if number == 0:
        return first
    begin = _LINES.index(first.line) if first.line in _LINES else 0
    line = _LINES[(begin + number) % len(_LINES)]
    marker = _MARKERS[(_MARKERS.find(first.marker) + number) % len(_MARKERS)]
    shade = _shades(colour_of(method))[number % len(_TOWARDS_INK)]
    return Look(shade.light, line, marker)


def _shades(colour: Colour) -> list[Colour]:
    """The colour, then with more and more ink, which only adds to its contrast."""
    mixed = [
        Colour(
            f"{colour.name}-{number}",
            _mix(colour.light, INK.light, share),
            _mix(colour.dark, INK.dark, share),
        )
        for number, share in enumerate(_TOWARDS_INK)
        if share
    ]
    return [colour, *mixed]


def _mix(one: str, other: str, share: float) -> str:
    parts = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


COLOURS = (PAPER, INK, MUTED, FAINT, *(shade for hue in HUES for shade in _shades(hue)))


def _block(selector: str, scheme: str) -> str:
    values = "".join(f"--lr-{one.name}:{getattr(one, scheme)};" for one in COLOURS)
    return f"{selector}{{{values}}}"


# For a page that holds figures as `Figure.inline` gives them. The reader's system chooses the
# scheme, unless the page says `data-theme="light"` or `"dark"` on its root; print is always light.
CSS = "\n".join(
    [
        _block(":root", "light"),
        "@media screen and (prefers-color-scheme:dark){"
        + _block(':root:not([data-theme="light"])', "dark")
        + "}",
        "@media screen{" + _block(':root[data-theme="dark"]', "dark") + "}",
        # A figure of two columns keeps its words legible on a phone; its frame scrolls.
        ".lr-frame{overflow-x:auto}",
        ".lr-figure{display:block;width:100%;height:auto;max-width:36rem}",
        ".lr-wide{min-width:36rem;max-width:60rem}",
        "@media print{.lr-wide{min-width:0}}",
    ]
)


def legend_columns(labels: Iterable[str], most: int) -> int:
    """How many labels stand side by side below a figure."""
    return 1 if max(map(len, labels), default=0) > _LONG else most


@contextmanager
def styled() -> Iterator[Any]:
    """Matplotlib's Figure in this style; without pyplot, so no display is needed."""
    import matplotlib.style
    from matplotlib.figure import Figure

    # After a reset: a user's own settings of matplotlib would change the figures.
    with matplotlib.style.context(STYLE, after_reset=True):
        yield Figure


def rendered(figure: Any, kind: str) -> bytes:
    """The figure as `png` (300 dots an inch) or `svg`, without dates."""
    told = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, metadata=told)
    return buffer.getvalue()

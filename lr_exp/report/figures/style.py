"""The style of all figures: sizes, and a fixed colour, line and marker for each method.

Every colour has a value for white paper and one for a dark screen, each with a contrast of at least
3:1 (text 4.5:1). Methods of one table differ by at least 9 in CIEDE2000, also as seen without red,
green or blue cones; methods of different tables that are closer differ in line and marker.
Importing this module does not import matplotlib.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STYLE = Path(__file__).with_name("paper.mplstyle")
SINGLE = 3.5  # inches: one column of a journal
DOUBLE = 7.0  # inches: two columns


@dataclass(frozen=True)
class Colour:
    """A colour for each scheme."""

    light: str  # on white, as in print: #rrggbb
    dark: str  # on PAPER's dark value


PAPER = Colour("#ffffff", "#14171c")
INK = Colour("#16181d", "#e8eaed")  # text
MUTED = Colour("#5f6368", "#9aa0a6")  # axes and secondary text
FAINT = Colour("#d5d9de", "#363b42")  # grid lines and background areas

GREY = Colour("#777777", "#9aa0a7")
BLUE = Colour("#0072b2", "#56abf6")
ROSE = Colour("#cc79a7", "#b2517e")
TEAL = Colour("#225555", "#a3eade")
VERMILION = Colour("#cc3311", "#f06351")
INDIGO = Colour("#332288", "#8665e7")
BROWN = Colour("#42150a", "#eebca2")
GOLD = Colour("#c98200", "#c6a222")
SKY = Colour("#2f9bd6", "#2d77ac")
CRIMSON = Colour("#a50026", "#dd1c4c")
PLUM = Colour("#882e72", "#eac6ef")

HUES = (GREY, BLUE, ROSE, TEAL, VERMILION, INDIGO, BROWN, GOLD, SKY, CRIMSON, PLUM)

# Text on the cells of a heat map, whose colours are the same in both schemes.
ON_DARK_CELL, ON_PALE_CELL = "#fefefe", "#010101"

Line = str | tuple[float, tuple[float, ...]]  # a matplotlib line style


@dataclass(frozen=True)
class Look:
    """The style of one line, bar or point."""

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
# For methods that are not listed; no listed method has this line or these markers.
_OTHER_COLOURS = (BLUE, VERMILION, GOLD, INDIGO, ROSE)
_OTHER_LINE: Line = (0, (6, 1.5, 1, 1.5, 1, 1.5))
_OTHER_MARKERS = "hp8H"
_LINES: tuple[Line, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
_MARKERS = "os^vDPX<>d"
_INK_SHARES = (0.0, 0.4, 0.8)  # in the colours of a method's variants
_MAX_COLUMN_CHARS = 24  # a legend with a longer label has one column


def method_look(method: str | None) -> Look:
    """A method's look, the same in every figure, also for methods that are not listed."""
    if method in _METHODS:
        colour, line, marker = _METHODS[method]
        return Look(colour.light, line, marker)
    marker = _OTHER_MARKERS[_name_hash(method) // len(_OTHER_COLOURS) % len(_OTHER_MARKERS)]
    return Look(colour_of(method).light, _OTHER_LINE, marker)


def colour_of(method: str | None) -> Colour:
    """A method's colour in both schemes."""
    if method in _METHODS:
        return _METHODS[method][0]
    return _OTHER_COLOURS[_name_hash(method) % len(_OTHER_COLOURS)]


def _name_hash(method: str | None) -> int:
    return sum((method or "").encode())


def variant_look(method: str | None, number: int) -> Look:
    """The look of a method's variant number `number`: its colour, mixed with ink.

    Variant 0 has the method's own look; the first six differ in line and marker.
    """
    first = method_look(method)
    if number == 0:
        return first
    start = _LINES.index(first.line) if first.line in _LINES else 0
    line = _LINES[(start + number) % len(_LINES)]
    marker = _MARKERS[(_MARKERS.find(first.marker) + number) % len(_MARKERS)]
    shade = _shades(colour_of(method))[number % len(_INK_SHARES)]
    return Look(shade.light, line, marker)


def _shades(colour: Colour) -> list[Colour]:
    """The colour and its mixtures with ink, each with more contrast than the last."""
    return [
        Colour(_mix(colour.light, INK.light, share), _mix(colour.dark, INK.dark, share))
        for share in _INK_SHARES
    ]


def _mix(colour: str, other: str, share: float) -> str:
    parts = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


COLOURS = (PAPER, INK, MUTED, FAINT, *(shade for hue in HUES for shade in _shades(hue)))


def legend_columns(labels: Iterable[str], most: int) -> int:
    """Columns of a legend below a figure: `most`, or 1 if a label is long."""
    return 1 if max(map(len, labels), default=0) > _MAX_COLUMN_CHARS else most


@contextmanager
def styled() -> Iterator[None]:
    """Applies this style; a user's matplotlibrc does not change the figures."""
    import matplotlib.style

    with matplotlib.style.context(STYLE, after_reset=True):
        yield

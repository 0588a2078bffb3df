"""The style of all figures: sizes, and a fixed colour, line and marker for each method.

Every colour has a value for white paper and one for a dark screen, each with a contrast of at least
3:1 (text 4.5:1). Methods of one table differ by at least 9 in CIEDE2000, also as seen without red,
green or blue cones; methods of different tables that are closer differ in line and marker.
Importing this module does not import matplotlib.
"""

from collections.abc import Iterator
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

Line = str | tuple[float, tuple[float, ...]]  # a matplotlib line style


@dataclass(frozen=True)
class Look:
    """The style of one line, bar or point."""

    hue: Colour
    line: Line
    marker: str

    @property
    def colour(self) -> str:
        """#rrggbb, on white."""
        return self.hue.light


_METHODS: dict[str | None, Look] = {
    "baseline": Look(GREY, "--", "X"),
    "rejection_sft": Look(ROSE, "-", "s"),
    "gt_sft": Look(TEAL, "-.", "D"),
    "lightreasoner": Look(BLUE, "-", "o"),
    "no_selection": Look(VERMILION, "--", "^"),
    "no_contrast": Look(INDIGO, ":", "v"),
    "neither": Look(BROWN, "-.", "*"),
    "upft": Look(GOLD, ":", "P"),
    "selective_ce": Look(SKY, "-.", "<"),
    "random_steps": Look(CRIMSON, "-.", ">"),
    "entropy_steps": Look(PLUM, "--", "d"),
}
# Methods that are not listed; no listed method has this line or these markers.
_OTHER_LINE: Line = (0, (6, 1.5, 1, 1.5, 1, 1.5))
_OTHERS = [Look(hue, _OTHER_LINE, marker) for hue, marker in zip(HUES[1:6], "hp8H|", strict=True)]
_LINES: tuple[Line, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), _OTHER_LINE)
_MARKERS = "os^vDPX<>d*hp8H|"
_INK_SHARES = (0.0, 0.4, 0.8)  # in the colours of a method's variants


def method_look(method: str | None) -> Look:
    """A method's look, the same in every figure, also for methods that are not listed."""
    return _METHODS.get(method) or _OTHERS[sum((method or "").encode()) % len(_OTHERS)]


def variant_look(method: str | None, number: int) -> Look:
    """The look of a method's variant number `number`: its colour, mixed with ink.

    Variant 0 has the method's own look; the first six differ in line and marker.
    """
    first = method_look(method)
    line = _LINES[(_LINES.index(first.line) + number) % len(_LINES)]
    marker = _MARKERS[(_MARKERS.index(first.marker) + number) % len(_MARKERS)]
    return Look(_shades(first.hue)[number % len(_INK_SHARES)], line, marker)


def _shades(hue: Colour) -> list[Colour]:
    """The colour and its mixtures with ink, each with more contrast than the last."""
    return [
        Colour(_mix(hue.light, INK.light, share), _mix(hue.dark, INK.dark, share))
        for share in _INK_SHARES
    ]


def _mix(colour: str, other: str, share: float) -> str:
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in pairs).hex()


COLOURS = (PAPER, INK, MUTED, FAINT, *(shade for hue in HUES for shade in _shades(hue)))


@contextmanager
def styled() -> Iterator[None]:
    """Applies this style; a user's matplotlibrc does not change the figures."""
    import matplotlib.style

    with matplotlib.style.context(STYLE, after_reset=True):
        yield

"""The style of all figures: sizes, and a fixed colour, line and marker for each method.

Every colour has a contrast of at least 3:1 on white (text 4.5:1). Methods of one table differ by at
least 9 in CIEDE2000, also as seen without red, green or blue cones; methods of different tables
that are closer differ in line and marker. A page inverts figures on a dark screen. Importing this
module does not import matplotlib.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STYLE = Path(__file__).with_name("paper.mplstyle")
SINGLE = 3.5  # inches: one column of a journal
DOUBLE = 7.0  # inches: two columns

PAPER = "#ffffff"
INK = "#16181d"  # text
MUTED = "#5f6368"  # axes and secondary text
FAINT = "#d5d9de"  # grid lines and background areas

GREY = "#777777"
BLUE = "#0072b2"
ROSE = "#cc79a7"
TEAL = "#225555"
VERMILION = "#cc3311"
INDIGO = "#332288"
BROWN = "#42150a"
GOLD = "#c98200"
SKY = "#2f9bd6"
CRIMSON = "#a50026"
PLUM = "#882e72"

HUES = (GREY, BLUE, ROSE, TEAL, VERMILION, INDIGO, BROWN, GOLD, SKY, CRIMSON, PLUM)

Line = str | tuple[float, tuple[float, ...]]  # a matplotlib line style


@dataclass(frozen=True)
class Look:
    """The style of one line, bar or point."""

    colour: str  # #rrggbb
    line: Line
    marker: str


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
    return Look(_with_ink(first.colour, _INK_SHARES[number % len(_INK_SHARES)]), line, marker)


def _with_ink(colour: str, share: float) -> str:
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(INK[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in pairs).hex()


@contextmanager
def styled() -> Iterator[None]:
    """Applies this style; a user's matplotlibrc does not change the figures."""
    import matplotlib.style

    with matplotlib.style.context(STYLE, after_reset=True):
        yield

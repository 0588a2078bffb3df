"""One look for all figures: size, type, and a colour for each method that it keeps everywhere.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; since there are more methods
than colours, lines and markers tell them apart too. Knows nothing of runs.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

SINGLE = 3.5  # inches: a journal's column
DOUBLE = 7.0

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#777777"

# colour, line, marker
_METHODS = {
    "baseline": (GREY, "--", "o"),
    "rejection_sft": (GREEN, "-", "s"),
    "gt_sft": (PURPLE, "-", "D"),
    "lightreasoner": (BLUE, "-", "o"),
    "no_selection": (SKY, "-", "^"),
    "no_contrast": (ORANGE, "-", "v"),
    "neither": (VERMILION, "-", "X"),
    "upft": (GREEN, "--", "P"),
    "selective_ce": (PURPLE, "--", "<"),
    "random_steps": (BLACK, ":", ">"),
    "entropy_steps": (VERMILION, "--", "d"),
}
_OTHERS = [(colour, "-.", "h") for colour in (BLACK, SKY, ORANGE, GREEN, BLUE)]
_PAIRS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)
_LINES = ("-", "--", ":", "-.")
_MARKERS = "os^vDPX<>d"
_PALEST = 0.65  # share of white in the palest of several variants of a method
_LONG = 24  # letters of a label that takes a line of the legend for itself

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.03,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lr_exp",  # the same figure is the same file
    "text.parse_math": False,  # names are shown, not interpreted
}


def of_method(method: str | None) -> tuple[str, str, str]:
    """Colour, line and marker; a method that is not listed has the same ones in every figure."""
    if method in _METHODS:
        return _METHODS[method]
    return _OTHERS[sum((method or "").encode()) % len(_OTHERS)]


def of_variant(method: str | None, number: int, count: int) -> tuple[Any, str, str]:
    """Colour, line and marker of one of several variants of a method: its colour, paler and paler.

    The first of them looks as the method does where it stands alone.
    """
    from matplotlib.colors import to_rgb

    colour, line, marker = of_method(method)
    if number == 0:
        return colour, line, marker
    white = _PALEST * number / (count - 1)
    paler = tuple(white + (1 - white) * part for part in to_rgb(colour))
    return paler, _LINES[number % len(_LINES)], _MARKERS[number % len(_MARKERS)]


def of_pair(number: int) -> tuple[str, str]:
    """Colour and line where these tell pairs apart."""
    return _PAIRS[number % len(_PAIRS)], _LINES[number // len(_PAIRS) % len(_LINES)]


def legend_columns(labels: Iterable[str], most: int) -> int:
    """How many labels stand side by side below a figure."""
    return 1 if max(map(len, labels), default=0) > _LONG else most


@contextmanager
def styled() -> Iterator[Any]:
    """Matplotlib's Figure in this style; without pyplot, so no display is needed."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        yield Figure


def rendered(figure: Any) -> dict[str, bytes]:
    """The figure as PNG (300 dots an inch) and SVG, without dates."""
    files = {}
    for kind, told in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=300, metadata=told)
        files[kind] = buffer.getvalue()
    return files

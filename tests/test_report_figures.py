"""Figures: distinguishable looks, sizes fit for print, and safe inline SVG."""

import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lr_exp.report.figures import CSS, STYLE, Figure, draw, draw_all, draw_run
from lr_exp.report.figures.run import _wilson as wilson
from lr_exp.report.figures.run import gain_by_benchmark, kept_by_position, kl_histogram
from lr_exp.report.figures.style import (
    COLOURS,
    HUES,
    INK,
    MUTED,
    PAPER,
    colour_of,
    method_look,
    rendered,
    styled,
    variant_look,
)
from lr_exp.report.figures.svg import inline
from lr_exp.report.names import METHODS
from lr_exp.report.rows import sweeps
from lr_exp.report.runs import Run, find_runs
from lr_exp.report.summary import parse_summary
from tests.support.run_folders import everything, write_metrics, write_run

SCHEMES = ("light", "dark")
ABLATION = list(METHODS)[:7]  # methods of one table share each of its figures
BASELINES = ["baseline", "lightreasoner", *list(METHODS)[7:]]
BY_POSITION = {"bin_tokens": 8, "steps": [40, 30, 3], "kept": [10, 2, 0]}

# Colour blindness in linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.
_SIGHT = {
    "all cones": np.eye(3),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, from 1 to 21."""
    dark, pale = sorted(float(_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (pale + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, under D65."""
    relative = _XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one: Sequence[float], other: Sequence[float]) -> float:
    """The difference of two colours in CIELAB; 1 is just noticeable."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    dh = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = h1 + h2 if c1 * c2 == 0 else (h1 + dh / 2) % 360
    c, off = (c1 + c2) / 2, ((l1 + l2) / 2 - 50) ** 2
    weights = ((-30, 1, -0.17), (0, 2, 0.24), (6, 3, 0.32), (-63, 4, -0.20))
    t = 1 + sum(w * math.cos(math.radians(n * hue + shift)) for shift, n, w in weights)
    light = (l2 - l1) / (1 + 0.015 * off / math.sqrt(20 + off))
    chroma = (c2 - c1) / (1 + 0.045 * c)
    around = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(dh / 2)) / (1 + 0.015 * c * t)
    turn = math.sin(math.radians(60 * math.exp(-(((hue - 275) / 25) ** 2))))
    turn *= -2 * math.sqrt(c**7 / (c**7 + 25**7))
    return math.sqrt(light**2 + chroma**2 + around**2 + turn * chroma * around)


def differences(one: str, other: str) -> dict[str, float]:
    """CIEDE2000 of two colours for each kind of sight."""
    seen = [[lab(sight @ linear(c)) for sight in _SIGHT.values()] for c in (one, other)]
    return {kind: ciede2000(*pair) for kind, *pair in zip(_SIGHT, *seen, strict=True)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [  # from Sharma, Wu and Dalal 2005, table 1
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
        ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_matches_published_values(
    one: tuple[float, ...], other: tuple[float, ...], expected: float
) -> None:
    assert ciede2000(one, other) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_methods_of_one_table_differ_in_colour_also_for_colour_blind_readers(scheme: str) -> None:
    near = []
    for table in (ABLATION, BASELINES):
        for pair in itertools.combinations(table, 2):
            seen = differences(*(getattr(colour_of(method), scheme) for method in pair))
            near += [(*pair, kind, round(far, 1)) for kind, far in seen.items() if far < 9]
    assert near == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_methods_with_similar_colours_differ_in_line_and_marker(scheme: str) -> None:
    for one, other in itertools.combinations(METHODS, 2):
        seen = differences(*(getattr(colour_of(method), scheme) for method in (one, other)))
        assert seen["all cones"] >= 14, (one, other)
        assert min(seen.values()) >= 6, (one, other)
        if min(seen.values()) < 9:
            assert method_look(one).line != method_look(other).line, (one, other)
    assert len({method_look(method).marker for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lines_have_a_contrast_of_3_and_text_of_4_5(scheme: str) -> None:
    paper = getattr(PAPER, scheme)
    shades = [one for one in COLOURS if one.name.split("-")[0] in {hue.name for hue in HUES}]
    assert len(shades) == 3 * len(HUES)
    weak = [one.name for one in shades if contrast(getattr(one, scheme), paper) < 3]
    assert weak == []
    for words in (INK, MUTED):
        assert contrast(getattr(words, scheme), paper) >= 4.5


def test_a_colour_keeps_its_hue_on_a_dark_screen() -> None:
    for hue in HUES:
        light, dark = (lab(linear(getattr(hue, scheme))) for scheme in SCHEMES)
        if math.hypot(*light[1:]) > 15:
            turned = math.degrees(math.atan2(dark[2], dark[1]) - math.atan2(light[2], light[1]))
            assert abs((turned + 180) % 360 - 180) < 30, hue.name


def test_the_style_file_uses_exactly_the_palette() -> None:
    found = re.findall(r"\b[0-9a-f]{6}\b", STYLE.read_text("utf-8"))
    assert {f"#{one}" for one in found} <= {colour.light for colour in COLOURS}
    assert {hue.light[1:] for hue in HUES} <= set(found)
    with styled():
        import matplotlib

        assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert matplotlib.rcParams["text.parse_math"] is False


def test_a_user_s_matplotlib_settings_do_not_change_figures(tmp_path: Path) -> None:
    import matplotlib

    write_run(tmp_path / "0")
    first = [figure.svg for figure in draw_run(_run(tmp_path))]
    with matplotlib.rc_context({"axes.grid": True, "lines.linestyle": ":", "font.size": 30}):
        assert [figure.svg for figure in draw_run(_run(tmp_path))] == first


def test_css_defines_every_variable_in_both_schemes(tmp_path: Path) -> None:
    for figure in _all_figures(everything(tmp_path)):
        for name, value in re.findall(r"var\((--lr-[a-z0-9-]+), (#\w+)\)", figure.inline):
            assert f"{name}:{value};" in CSS
            assert CSS.count(f"{name}:") == 3  # light, dark by the system, dark by the page
        assert "var(" in figure.inline


def test_unlisted_methods_have_a_fixed_look_unlike_all_listed_ones() -> None:
    listed = {(method_look(one).line, method_look(one).marker) for one in METHODS}
    own = method_look("my_own")
    assert (own.line, own.marker) not in listed
    assert own == method_look("my_own")
    assert len({method_look(f"my_{letter}") for letter in "abcdefghij"}) > 5


def test_variants_of_a_method_differ_in_line_and_marker() -> None:
    for method in METHODS:
        looks = [variant_look(method, number) for number in range(6)]
        assert looks[0] == method_look(method)
        assert len({look.line for look in looks}) == len({look.marker for look in looks}) == 6


# Drawings ----------------------------------------------------------------------------------------


def _run(folder: Path) -> Run:
    return find_runs(folder).runs[0]


def _all_figures(folder: Path) -> list[Figure]:
    made = []
    for number, sweep in enumerate(sweeps(find_runs(folder))):
        made += draw_all(sweep, f"s{number}_{{}}".format)
    return made


def _whole_run(folder: Path, **changed: Any) -> Run:
    benchmarks = {name: [0, 0, 1, 1] for name in ("gsm8k", "math500", "micro_add")}
    graded: dict[str, Any] = {"before": benchmarks, "after": benchmarks} | changed
    write_run(folder / "0", sample__by_position=BY_POSITION, **graded)
    write_metrics(folder / "0", {1: 0.5, 50: 0.4, 100: 0.3})
    return _run(folder)


def _names(figures: Sequence[Figure]) -> list[str]:
    return [figure.name.removeprefix("run_") for figure in figures]


def test_a_run_has_four_figures_and_each_is_left_out_without_its_data(
    tmp_path: Path,
) -> None:
    whole = ["gain_by_benchmark", "kl_histogram", "kept_by_position", "training_curves"]
    assert _names(draw_run(_whole_run(tmp_path / "all"))) == whole
    write_run(tmp_path / "old" / "0")
    assert _names(draw_run(_run(tmp_path / "old"))) == ["gain_by_benchmark", "kl_histogram"]
    nothing = {"histogram": {"bin_nats": 0.1, "counts": [0, 0]}, "steps": 0, "by_position": {}}
    write_run(tmp_path / "none" / "0", sample=nothing, evaluate=None, distill=None)
    assert draw_run(_run(tmp_path / "none")) == []
    one = write_run(tmp_path / "one" / "0", sample=None, evaluate__tuned={})
    write_metrics(one, {1: 0.5})  # a single optimizer step gives no curve
    assert draw_run(_run(tmp_path / "one")) == []


def test_an_unfinished_run_gets_the_figures_for_which_it_has_data(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    write_metrics(folder, {1: 0.5, 2: 0.4})
    known = {"method": None, "amateur": None, "alpha": None, "beta": None, "settings": {}}
    summary = parse_summary({**known, "expert": "micro", "seed": 0})
    unfinished = Run(folder, "0", summary)
    assert _names(draw_run(unfinished)) == ["training_curves"]


def test_training_curves_skip_values_that_are_not_numbers(tmp_path: Path) -> None:
    run = _whole_run(tmp_path)
    (run.folder / "metrics.jsonl").write_text(
        '{"family": "distill", "step": 1, "loss": "low", "grad_norm": NaN, "learning_rate": 1}\n'
        '{"family": "distill", "step": 2, "loss": null, "grad_norm": 1e999, "learning_rate": 0}\n'
    )
    (curves,) = [one for one in draw_run(run) if one.name == "run_training_curves"]
    assert [axes.get_ylabel() for axes in curves.canvas.axes] == ["learning rate"]


def test_the_histogram_marks_beta_and_hatches_kept_steps(tmp_path: Path) -> None:
    steps = {"settings__method": {"name": "lightreasoner", "steps": "kl_above_beta"}}
    counts = [100, 10, 5, 0, 4, 3]
    run = _whole_run(
        tmp_path, beta=0.25, sample__histogram={"bin_nats": 0.1, "counts": counts}, **steps
    )
    with styled() as new_figure:
        (axes,) = kl_histogram(new_figure, run).axes
    below, above = axes.patches
    assert (below.get_hatch(), bool(above.get_hatch())) == (None, True)
    # The bin that contains beta is drawn on both sides with the same height.
    assert below.get_data().edges.tolist() == pytest.approx([0, 0.1, 0.2, 0.25])
    assert above.get_data().edges[:2].tolist() == pytest.approx([0.25, 0.3])
    assert below.get_data().values.tolist() == [100, 10, 5]
    assert above.get_data().values.tolist()[:4] == [5, 0.7, 4, 3]
    assert [text.get_text() for text in axes.texts] == ["β = 0.25"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["not kept", "kept"]
    (figure,) = [one for one in draw_run(run) if "kl" in one.name]
    assert "β = 0.25 (hatched) are kept" in figure.caption
    assert "the last bin is open" in figure.caption  # since it is not empty


def test_the_histogram_has_no_beta_under_another_step_rule(tmp_path: Path) -> None:
    method = {"name": "random_steps", "steps": "random"}
    run = _whole_run(tmp_path, method="random_steps", settings__method=method)
    with styled() as new_figure:
        (axes,) = kl_histogram(new_figure, run).axes
    assert len(axes.patches) == 1
    assert axes.get_legend() is None
    (figure,) = [one for one in draw_run(run) if "kl" in one.name]
    assert "does not keep steps by a threshold" in figure.caption


def test_kept_shares_are_drawn_with_errors_and_counts(tmp_path: Path) -> None:
    with styled() as new_figure:
        upper, lower = kept_by_position(new_figure, _whole_run(tmp_path)).axes
    (line,) = [
        one for one in upper.lines if len(one.get_xdata()) == 3 and one.get_linestyle() == "-"
    ]
    assert line.get_xdata().tolist() == [4, 12, 20]
    assert line.get_ydata().tolist() == pytest.approx([25, 100 / 15, 0])
    assert lower.patches[0].get_data().values.tolist() == [40, 30, 3]


def test_a_share_of_0_has_a_positive_error() -> None:
    low, share, high = wilson(0, 3)
    assert (low, share) == (0, 0)
    assert high == pytest.approx(1 / (3 + 1))
    low, share, high = wilson(500, 1000)  # close to the binomial error for many steps
    assert (high - share, share - low) == pytest.approx([math.sqrt(0.25 / 1000)] * 2, rel=1e-2)


def test_gains_are_in_the_order_of_the_settings_with_their_counts(tmp_path: Path) -> None:
    right = {name: [1, 1, 0, 1] for name in ("svamp", "gsm8k", "math500")}
    run = _whole_run(tmp_path, before=right, after={**right, "gsm8k": [1, 1, 1, 1]})
    with styled() as new_figure:
        (axes,) = gain_by_benchmark(new_figure, run).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["SVAMP\n(n = 4)", "GSM8K\n(n = 4)", "MATH-500\n(n = 4)"]
    top, bottom = axes.get_ylim()
    assert top > bottom  # the first benchmark is on top
    drawn = {one.get_label(): one for one in axes.containers}
    assert drawn["before"][0].get_xdata().tolist() == [75, 75, 75]
    assert drawn["after"][0].get_xdata().tolist() == [75, 100, 75]
    assert drawn["after"][0].get_color() == method_look("lightreasoner").colour
    whiskers = [end[0] - start[0] for start, end in drawn["after"][2][0].get_segments()]
    error = 100 * math.sqrt(0.75 * 0.25 / 4)
    assert whiskers == pytest.approx([2 * error, 0, 2 * error])


def test_figures_fit_a_journal_s_width_with_legible_text(
    tmp_path: Path,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    long = {f"micro_with_a_longer_name_{i}": [0, 1, 1, 0] for i in range(4)}
    figures = [
        *_all_figures(everything(tmp_path / "all")),
        *draw_run(_whole_run(tmp_path / "run")),
        *draw_run(_whole_run(tmp_path / "long", before=long, after=long)),
    ]
    assert len(figures) >= 15
    for figure in figures:
        root = ET.fromstring(figure.svg)  # noqa: S314  made right here
        assert root.get("width") in ("252pt", "504pt"), figure.name
        assert (root.get("width") == "504pt") == figure.wide
        sizes = [float(size) for size in re.findall(rb"font(?:-size)?: ?([\d.]+)px", figure.svg)]
        assert sizes
        assert min(sizes) >= 7, figure.name
        canvas = figure.canvas
        renderer = FigureCanvasAgg(canvas).get_renderer()
        edge = canvas.bbox
        for text in canvas.findobj(lambda artist: hasattr(artist, "get_text")):
            if not (text.get_visible() and text.get_text().strip()) or text.axes is None:
                continue
            box = text.get_window_extent(renderer)
            if not edge.overlaps(box):  # a tick outside the axis, which is not drawn
                continue
            assert box.x0 >= -1, (figure.name, text.get_text())
            assert box.x1 <= edge.x1 + 1, (figure.name, text.get_text())
            assert box.y0 >= -1, (figure.name, text.get_text())
            assert box.y1 <= edge.y1 + 1, (figure.name, text.get_text())
        labelled = [axes for axes in canvas.axes if axes.name != "polar" and axes.get_visible()]
        labels = [axes.get_xlabel() for axes in labelled] + [canvas.get_supxlabel()]
        assert any(labels) or not labelled, figure.name


def test_files_are_rendered_on_first_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page needs only SVGs; rendering a PNG for each figure would dominate its cost."""
    kinds: list[str] = []

    def recorded(canvas: Any, kind: str) -> bytes:
        kinds.append(kind)
        return rendered(canvas, kind)

    monkeypatch.setattr(draw, "rendered", recorded)
    (figure, *_) = draw_run(_whole_run(tmp_path))
    assert kinds == []
    assert figure.inline == figure.inline
    assert kinds == ["svg"]
    assert figure.files["png"].startswith(b"\x89PNG")
    assert kinds == ["svg", "png"]


# In a page ---------------------------------------------------------------------------------------

HOSTILE = "</svg><script>alert(1)</script>&amp;<!-- ' \" x"


def test_names_are_escaped_in_inline_svgs(tmp_path: Path) -> None:
    right = {HOSTILE: [0, 1, 1, 0]}
    run = _whole_run(tmp_path, method=HOSTILE, before=right, after=right, answers=False)
    for figure in draw_run(run, f"{HOSTILE}{{}}".format):
        root = ET.fromstring(figure.inline)  # noqa: S314  made right here
        assert not {one.tag.rpartition("}")[2] for one in root.iter()} & {
            *("script", "style", "image", "a", "foreignObject", "metadata")
        }
        for one in root.iter():
            assert not [key for key, _ in one.items() if key.startswith("on")]
        assert "<script" not in figure.inline
        assert "<!--" not in figure.inline
    (gains,) = [one for one in draw_run(run) if "gain" in one.name]
    root = ET.fromstring(gains.inline)  # noqa: S314  made right here
    assert any(HOSTILE in (one.text or "") for one in root.iter())


def test_inline_svgs_drop_everything_that_could_run_or_load() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 9 9"><script>x</script><style>*{display:none}</style><a href="x"/>'
        '<image xlink:href="http://x"/><foreignObject/><g onclick="x"><text onload="x" '
        'style="fill: url(http://x); stroke: #0072b2; behavior: x; font-size: 8px">t</text></g>'
        '<use xlink:href="http://x#a"/><path d="M 1.23456 2" clip-path="url(http://x)"/></svg>'
    )
    made = inline(svg.encode(), "n", "c </title><script>")
    assert "c &lt;/title&gt;&lt;script&gt;</title>" in made
    made = made.replace("&lt;script&gt;", "")
    for word in ("script", "<style", "<a", "image", "foreign", "onclick", "onload", "http://x"):
        assert word not in made, word
    assert "behavior" not in made
    assert 'd="M 1.23 2"' in made
    assert "stroke:var(--lr-blue, #0072b2);font-size:8px" in made


def test_inline_svgs_scale_and_have_a_title_and_unique_ids(tmp_path: Path) -> None:
    run = _whole_run(tmp_path)
    ids: list[str] = []
    for figure in [*draw_run(run, "a {}".format), *draw_run(run, "b {}".format)]:
        text = figure.inline
        assert text.startswith("<svg ")
        root = ET.fromstring(text)  # noqa: S314  made right here
        assert not {"width", "height"} & set(root.keys())
        assert root.get("viewBox", "").startswith("0 0 252 ")
        assert root.get("role") == "img"
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert title.text == figure.caption
        assert root.get("aria-labelledby") == title.get("id")
        assert "font-family" not in text
        own = [one.get("id", "") for one in root.iter() if one.get("id")]
        ids += own
        pointed = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
        assert set(pointed) <= set(own)
        assert pointed or "gain" not in figure.name
    assert len(ids) == len(set(ids))


def test_text_on_heat_map_cells_is_the_same_in_both_schemes(tmp_path: Path) -> None:
    for number, alpha in enumerate((0.1, 0.2)):
        for beta in (0.4, 0.8):
            after = {"micro_add": [number, number, 1, 1]}
            folder = tmp_path / f"{alpha} {beta}"
            write_run(folder, alpha=alpha, beta=beta, sweep="alpha_beta", after=after)
    (the_map,) = [one for one in _all_figures(tmp_path) if one.name.endswith("_map")]
    cells = dict(re.findall(r"<text style=\"([^\"]*)\"[^>]*>(\d+\.\d)</text>", the_map.inline))
    shown = {value: style for style, value in cells.items()}
    assert "fill:#fefefe" in shown["50.0"]  # the darkest
    assert "fill:#010101" in shown["100.0"]

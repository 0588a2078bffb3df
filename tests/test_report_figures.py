"""Figures: distinguishable looks, sizes fit for print, and what they draw."""

import itertools
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from coloraide import Color

from lr_exp.report import page
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.figures import STYLE, Figure, draw_run, draw_sweep
from lr_exp.report.figures.style import (
    FAINT,
    HUES,
    INK,
    MUTED,
    PAPER,
    method_look,
    styled,
    variant_look,
)
from lr_exp.report.names import METHODS
from lr_exp.report.read.runs import Run, find_runs
from tests.support.run_folders import everything, result, write_metrics, write_run

SCHEMES = ("light", "dark")
ABLATION = list(METHODS)[:7]  # methods of one table share each of its figures
BASELINES = ["baseline", "lightreasoner", *list(METHODS)[7:]]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, from 1 to 21."""
    return Color(one).contrast(other, method="wcag21")


def differences(one: str, other: str) -> dict[str, float]:
    """CIEDE2000 of two colours, also as seen without one kind of cones; 1 is just visible."""
    seen = {"all cones": (Color(one), Color(other))}
    for blindness in ("protan", "deutan", "tritan"):
        pair = (Color(colour).filter(blindness, method="machado") for colour in (one, other))
        seen[blindness] = tuple(colour.clip("srgb") for colour in pair)
    return {sight: pair[0].delta_e(pair[1], method="2000") for sight, pair in seen.items()}


def test_methods_differ_in_colour_also_for_colour_blind_readers_or_in_line_and_marker():
    for pair in itertools.combinations(METHODS, 2):
        one, other = map(method_look, pair)
        seen = differences(one.colour, other.colour)
        assert seen["all cones"] >= 14, pair
        is_one_table = any({*pair} <= {*table} for table in (ABLATION, BASELINES))
        assert min(seen.values()) >= (9 if is_one_table else 6), (pair, seen)
        if min(seen.values()) < 9:
            assert one.line != other.line, pair
    assert len({method_look(method).marker for method in METHODS}) == len(METHODS)


def test_lines_have_a_contrast_of_3_and_text_of_4_5():
    looks = [variant_look(method, number) for method in METHODS for number in range(3)]
    assert [look for look in looks if contrast(look.colour, PAPER) < 3] == []
    for words in (INK, MUTED):
        assert contrast(words, PAPER) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_of_the_page_has_enough_contrast_on_every_shade(scheme):
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3); shades are ordered by lightness."""
    style = Path(page.__file__).with_name("page.css").read_text("utf-8")
    pair = r"light-dark\((#\w{6}), (#\w{6})\)"
    index = SCHEMES.index(scheme)
    values = {m[0]: m[1 + index] for m in re.findall(rf"--(\w+): {pair};", style)}
    for name, colour in {"paper": PAPER, "ink": INK, "muted": MUTED, "faint": FAINT}.items():
        assert scheme == "dark" or values[name] == colour  # as in the figures
    rules = re.findall(
        rf"\.s\d {{ background: (?:{pair}|var\(--label\));(?: color: {pair};)? }}", style
    )
    assert len(rules) == 7
    shades = [(rule[index] or values["label"], rule[2 + index] or values["ink"]) for rule in rules]
    for shade, text in shades:
        assert contrast(shade, text) >= 4.5, shade
    steps = [Color(values["paper"]).luminance(), *(Color(shade).luminance() for shade, _ in shades)]
    assert steps == sorted(steps, reverse=scheme == "light")
    for name in ("accent", "good", "bad", "muted"):
        assert contrast(values[name], values["paper"]) >= 4.5, name
    assert contrast(values["muted"], values["wash"]) >= 4.5
    assert contrast(values["ink"], values["changed"]) >= 4.5


def test_the_style_file_uses_exactly_the_palette():
    found = re.findall(r"\b[0-9a-f]{6}\b", STYLE.read_text("utf-8"))
    assert {f"#{one}" for one in found} == {*HUES, PAPER, INK, MUTED, FAINT}
    with styled():
        import matplotlib

        assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert matplotlib.rcParams["text.parse_math"] is False


def test_a_user_s_matplotlib_settings_do_not_change_figures(tmp_path):
    import matplotlib

    write_run(tmp_path / "0")
    first = [figure.svg for figure in draw_run(_run(tmp_path))]
    with matplotlib.rc_context({"axes.grid": True, "lines.linestyle": ":", "font.size": 30}):
        assert [figure.svg for figure in draw_run(_run(tmp_path))] == first


def test_unlisted_methods_and_variants_have_looks_of_their_own():
    listed = {(method_look(one).line, method_look(one).marker) for one in METHODS}
    own = method_look("my_own")
    assert (own.line, own.marker) not in listed
    assert own == method_look("my_own")
    assert len({method_look(f"my_{letter}") for letter in "abcde"}) == 5
    for method in METHODS:
        looks = [variant_look(method, number) for number in range(6)]
        assert looks[0] == method_look(method)
        assert len({look.line for look in looks}) == len({look.marker for look in looks}) == 6


# Drawings ----------------------------------------------------------------------------------------


def _run(folder: Path) -> Run:
    return find_runs(folder).runs[0]


def _all_figures(folder: Path) -> list[Figure]:
    return [figure for sweep in sweeps(find_runs(folder)) for figure in draw_sweep(sweep)]


def _drawn(run: Run, name: str) -> Figure:
    (figure,) = [one for one in draw_run(run) if one.name == name]
    return figure


def _whole_run(folder: Path, **changed: Any) -> Run:
    benchmarks = {name: [0, 0, 1, 1] for name in ("gsm8k", "math500", "micro_add")}
    graded: dict[str, Any] = {"before": benchmarks, "after": benchmarks} | changed
    write_run(folder / "0", **graded)
    write_metrics(folder / "0", {1: 0.5, 50: 0.4, 100: 0.3})
    return _run(folder)


def names(run: Run) -> list[str]:
    return [figure.name for figure in draw_run(run)]


def test_a_run_has_two_figures_and_each_is_left_out_without_its_data(tmp_path):
    whole = ["lorenz_curve", "training_curves"]
    assert names(_whole_run(tmp_path / "all")) == whole
    write_run(tmp_path / "old" / "0")
    assert names(_run(tmp_path / "old")) == ["lorenz_curve"]
    nothing = {"histogram": {"bin_nats": 0.1, "counts": [0, 0]}, "steps": 0}
    write_run(tmp_path / "none" / "0", sample=nothing, evaluate=None, distill=None)
    assert draw_run(_run(tmp_path / "none")) == []
    one = write_run(tmp_path / "one" / "0", sample=None, evaluate__tuned={})
    write_metrics(one, {1: 0.5})  # a single optimizer step gives no curve
    assert draw_run(_run(tmp_path / "one")) == []


def test_training_curves_skip_values_that_are_not_numbers(tmp_path):
    run = _whole_run(tmp_path)
    (run.folder / "metrics.jsonl").write_text(
        '{"family": "distill", "step": 1, "loss": "low", "grad_norm": NaN, "learning_rate": 1}\n'
        '{"family": "distill", "step": 2, "loss": null, "grad_norm": 1e999, "learning_rate": 0}\n'
    )
    curves = _drawn(run, "training_curves").mpl_figure
    assert [axes.get_ylabel() for axes in curves.axes] == ["learning rate"]


def test_lorenz_curves_of_divergence_and_loss(tmp_path):
    run = _whole_run(
        tmp_path,
        sample__histogram={"bin_nats": 0.1, "counts": [80, 10, 10], "nats": [2, 1.5, 16.5]},
        sample__loss_histogram={"bin_nats": 0.1, "counts": [98, 0, 2], "nats": [0, 0, 3]},
        **{
            "settings__method": {"name": "lightreasoner", "select": "kl_above_beta"},
            "sample__kept_share": 0.15,
            "sample__share_below_0.1": 0.8,
            "sample__moving_of_all": 0.02,
        },
    )
    (axes,) = _drawn(run, "lorenz_curve").mpl_figure.axes
    even, divergence, loss, kept = axes.lines
    assert even.get_xydata().tolist() == [[0, 0], [100, 100]]
    assert divergence.get_xdata().tolist() == [0, 80, 90, 100]
    assert divergence.get_ydata().tolist() == pytest.approx([0, 10, 17.5, 100])
    assert loss.get_xydata().tolist() == [[0, 0], [98, 0], [98, 0], [100, 100]]
    assert kept.get_xdata()[0] == pytest.approx(85)
    assert axes.get_title("right").endswith("\n80 % below 0.1 nat · 15 % kept · 2.0 % moving")


def part(gain: float) -> dict:
    return {"gain": gain, "ci95": [gain - 0.1, gain + 0.2], "won": 0, "lost": 0}


def forced(strict: float, latent: float) -> dict:
    """The gains of a benchmark with forced answers."""
    parts = {"strict": strict, "latent": latent, "format": strict - latent}
    made = {**{name: part(gain) for name, gain in parts.items()}, "won_from": {}, "lost_to": {}}
    return {"same_prompt": part(strict), "decomposition": made}


def test_parts_of_a_gain_are_stacked_and_negative_ones_go_below_0(tmp_path):
    right = {name: [1, 1, 0, 1] for name in ("svamp", "gsm8k", "math500")}
    gains = {"svamp": forced(0.5, 0.3), "gsm8k": forced(0.2, 0.4), "math500": forced(-0.4, -0.1)}
    run = _whole_run(tmp_path / "run", before=right, after=right, evaluate__gains=gains)
    figure = _drawn(run, "gain_parts")
    (axes,) = figure.mpl_figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "SVAMP\ncut 0.0 → 0.0 %"
    assert labels[-1] == "AVG\ncut 0.0 → 0.0 %"
    ends = [sorted((bar.get_x(), bar.get_x() + bar.get_width())) for bar in axes.patches]
    latent = [(0, 30), (0, 40), (-10, 0), (0, 20)]
    form = [(30, 50), (-20, 0), (-40, -10), (-10, 0)]
    assert ends == [pytest.approx(pair) for pair in (*latent, *form)]
    *_, strict = axes.containers
    assert strict[0].get_xdata().tolist() == pytest.approx([50, 20, -40, 10])
    segments = [[end[0] for end in one] for one in strict[2][0].get_segments()]
    assert segments[:3] == [pytest.approx(pair) for pair in ((40, 70), (10, 40), (-50, -20))]
    assert figure.caption.startswith("Of the strict gain of +10.0 (+4.2 to +21.5) points, +20.0 ")
    # A sweep has a bar for each row, of its average over benchmarks.
    for seed, gain in enumerate((0.5, 0.3)):
        write_run(
            tmp_path / "sweep" / str(seed),
            seed=seed,
            before=right,
            after=right,
            evaluate__gains=dict.fromkeys(right, forced(gain, 0.2)),
        )
    (figure,) = [one for one in _all_figures(tmp_path / "sweep") if one.name == "gain_parts"]
    (axes,) = figure.mpl_figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "LightReasoner\ncut 0.0 → 0.0 %"
    ]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 20])
    assert figure.caption.startswith("LightReasoner: Of the strict gain of +40.0 (")


def test_a_gap_in_nats_has_a_panel_where_every_pair_has_one(tmp_path):
    for amateur, nats in (("micro", 0.6), ("micro_near", 0.4)):
        gap = {who: {"micro_add": result(2, 4)} for who in ("expert", "amateur")}
        gap["nats"] = {"solutions": 4, "expert": -0.1, "amateur": -0.1 - nats, "difference": nats}
        gap["nats"]["ci95"] = [nats - 0.1, nats + 0.2]
        write_run(tmp_path / amateur, amateur=amateur, evaluate__gap=gap)
    (figure,) = [one for one in _all_figures(tmp_path) if one.name == "gain_against_gap"]
    by_accuracy, by_nats = figure.mpl_figure.axes
    assert [bar[0].get_xdata().tolist() for bar in by_accuracy.containers] == [[0], [0]]
    assert [bar[0].get_xdata().tolist() for bar in by_nats.containers] == [[0.6], [0.4]]
    (ends,) = by_nats.containers[0][2][0].get_segments()
    assert ends[:, 0].tolist() == pytest.approx([0.5, 0.8])


def test_gains_are_drawn_by_the_number_that_a_sweep_varies(tmp_path):
    right = {1: [1, 0, 0, 1], 2: [1, 1, 0, 1], 9: [1, 1, 1, 1]}
    for tokens, after in right.items():
        for kind in ("typos", "numbers"):
            write_run(
                tmp_path / f"{tokens} {kind}",
                after={"micro_add": after},
                settings__sampler__max_new_tokens=tokens,
                settings__data__noise=kind,
            )
    (figure,) = [one for one in _all_figures(tmp_path) if one.name == "gain_by_setting"]
    (axes,) = figure.mpl_figure.axes
    for bars in axes.containers:
        assert bars[0].get_xdata().tolist() == [1, 2, 9]
        assert bars[0].get_ydata().tolist() == [25, 50, 75]
        assert bars[0].get_linestyle() != "None"
    labels = [text.get_text() for text in figure.mpl_figure.legends[0].get_texts()]
    assert labels == ["micro / micro, numbers", "micro / micro, typos"]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("answer tokens", "log")
    for kind in ("typos", "numbers"):
        shutil.rmtree(tmp_path / f"9 {kind}")
    assert "gain_by_setting" not in [one.name for one in _all_figures(tmp_path)]


def test_figures_fit_a_journal_s_width_with_legible_text(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    long = {f"micro_with_a_longer_name_{i}": [0, 1, 1, 0] for i in range(4)}
    figures = [
        *_all_figures(everything(tmp_path / "all")),
        *draw_run(_whole_run(tmp_path / "run")),
        *draw_run(
            _whole_run(
                tmp_path / "long",
                before=long,
                after=long,
                evaluate__gains=dict.fromkeys(long, forced(0.5, 0.6)),
            )
        ),
    ]
    assert len(figures) >= 14
    for figure in figures:
        root = ET.fromstring(figure.svg)  # noqa: S314  made right here
        assert root.get("width") in ("252pt", "504pt"), figure.name
        assert (root.get("width") == "504pt") == figure.is_wide
        sizes = [float(size) for size in re.findall(rb"font(?:-size)?: ?([\d.]+)px", figure.svg)]
        assert sizes
        assert min(sizes) >= 7, figure.name
        mpl_figure = figure.mpl_figure
        renderer = FigureCanvasAgg(mpl_figure).get_renderer()
        edge = mpl_figure.bbox
        for text in mpl_figure.findobj(lambda artist: hasattr(artist, "get_text")):
            if not (text.get_visible() and text.get_text().strip()) or text.axes is None:
                continue
            box = text.get_window_extent(renderer)
            if not edge.overlaps(box):  # a tick outside the axis, which is not drawn
                continue
            assert -1 <= box.x0 <= box.x1 <= edge.x1 + 1, (figure.name, text.get_text())
            assert -1 <= box.y0 <= box.y1 <= edge.y1 + 1, (figure.name, text.get_text())
        labelled = [axes for axes in mpl_figure.axes if axes.name != "polar" and axes.get_visible()]
        labels = [axes.get_xlabel() for axes in labelled] + [mpl_figure.get_supxlabel()]
        assert any(labels) or not labelled, figure.name
        bars = [
            bar for axes in mpl_figure.axes for bar in axes.containers if hasattr(bar, "has_yerr")
        ]
        explained = any(one in figure.caption for one in ("95 % intervals", "to the highest seed"))
        assert not bars or explained, figure.name


def test_a_page_does_not_render_pngs(tmp_path):
    """Rendering a PNG for each figure would dominate a page's cost."""
    run = _whole_run(tmp_path)
    (figure, *_) = draw_run(run)
    assert figure.svg == figure.svg
    assert "png" not in vars(figure)
    assert figure.png.startswith(b"\x89PNG")


def test_texts_on_a_heat_map_contrast_with_its_cells(tmp_path):
    for number, alpha in enumerate((0.1, 0.2)):
        for beta in (0.4, 0.8):
            after = {"micro_add": [number, number, 1, 1]}
            folder = tmp_path / "map" / f"{alpha} {beta}"
            write_run(folder, alpha=alpha, beta=beta, sweep="alpha_beta", after=after)
    (heat_map,) = [one for one in _all_figures(tmp_path / "map") if one.name == "map"]
    colours = {one.get_text()[:5]: one.get_color() for one in heat_map.mpl_figure.axes[0].texts}
    assert colours == {"50.0\n": "w", "100.0": "k"}  # dark cells have low values

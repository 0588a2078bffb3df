"""`report.html` in Chromium, opened from disk without a network.

With LR_EXP_NEEDS_BROWSER=1, as in CI, a missing browser is a failure. LR_EXP_SCREENSHOTS=FOLDER
keeps the screenshots.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lr_exp.report.__main__ import main
from lr_exp.report.names import ABSENT
from lr_exp.report.page import write_run_page
from tests.support.files import read_lines
from tests.support.run_folders import write_failed, write_run
from tests.support.trajectories_file import (
    ANSWER,
    TOKENS,
    UNSCORED,
    read_compressed,
    write_hostile_run,
    write_trajectories,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IS_MISSING = not (CHROMIUM and importlib.util.find_spec("playwright"))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        IS_MISSING and os.environ.get("LR_EXP_NEEDS_BROWSER") != "1",
        reason="needs chromium (apt-get install chromium) and playwright (pip install playwright)",
    ),
]

DESKTOP, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def demo(recorded_run: Path) -> Path:
    """The folder of a finished run with its page."""
    return recorded_run / "runs" / "one"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "LR_EXP_NEEDS_BROWSER is set, but chromium is not installed"
    # Chromium cannot start its sandbox as root, the user of CI's containers.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


class Tab:
    """A page opened from disk, with the requests and errors that it caused."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self._log(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))

    def _log(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.inner_text().split())

    def filter(self, name: str) -> None:
        self.page.locator(f"#the-reader [data-filter={name}]").click()

    def count(self, name: str) -> str:
        return self.text(f"#the-reader [data-filter={name}] .count")

    @property
    def position(self) -> str:
        return self.text("#the-reader [data-is=position]")

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return self.page.evaluate(width)


Open = Callable[..., Tab]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file offline; afterwards checks for errors and for requests other than files."""
    opened: list[tuple[Any, Tab, str]] = []

    def open_(path: Path, size=DESKTOP, scheme="light", **options: Any) -> Tab:
        options |= {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": scheme}
        context = browser.new_context(**options, offline=True)
        tab = Tab(context.new_page())
        opened.append((context, tab, path.as_uri()))
        tab.page.goto(path.as_uri())
        return tab

    yield open_
    for context, tab, address in opened:
        context.close()
        assert tab.errors == []
        assert all(url.startswith("file://") for url in tab.requests)
        assert address in tab.requests


@pytest.fixture
def tab(demo: Path, open_page: Open) -> Tab:
    return open_page(demo / "report.html")


@pytest.fixture
def recorded(demo: Path) -> dict[str, Any]:
    return json.loads(read_compressed(demo / "trajectories.json.gz"))


def visible(text: str) -> str:
    """A token as the panel shows it."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def test_filters_show_the_counts_of_the_file(tab, recorded):
    answers = recorded["answers"]
    wrong = [one for one in answers if one["correct"] is False]
    assert 0 < len(wrong) < len(answers)
    matching = {
        "all": [len(one["token"]) for one in answers],
        "kept": [sum(one["kept"]) for one in answers],
        "differ": [one["same_top1"].count(0) for one in answers],
        "wrong": [len(one["token"]) for one in wrong],
    }
    for name, steps in matching.items():
        assert tab.count(name) == f"{sum(map(bool, steps))} · {sum(steps):,} steps"
    for name in ("kept", "differ"):
        tab.filter(name)
        assert tab.position.endswith(f" of {sum(map(bool, matching[name]))}")
        shown = next(one for one in answers if tab.text(".verdict").endswith(f" {one['id']}"))
        of_shown = {"kept": sum(shown["kept"]), "differ": shown["same_top1"].count(0)}
        bright = tab.page.locator(".tokens .t:not(.dim)").count()
        assert bright == of_shown[name] > 0


def test_an_answer_is_shown_token_by_token(tab, recorded):
    answer = recorded["answers"][0]
    assert answer["question"] in tab.text(".question")
    assert f"reference {answer['reference']}" in tab.text(".verdict")
    assert ("✓ right" if answer["correct"] else "✗ wrong") in tab.text(".verdict")
    marked = tab.page.eval_on_selector_all(
        ".tokens .t", "all => all.map(e => [e.textContent, e.className])"
    )
    texts = [recorded["tokens"][token] for token in answer["token"]]
    assert [text for text, _ in marked] == [
        visible(t).replace("⏎", "⏎\n") if t.isspace() else t for t in texts
    ]
    assert [int("kept" in look.split()) for _, look in marked] == answer["kept"]
    edges = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    assert [look.split()[1] for _, look in marked] == [
        f"s{sum(kl >= edge for edge in edges)}" for kl in answer["kl"]
    ]
    assert "Dashed: the share that is not kept, if a threshold on D decides." in tab.text(
        "#divergence"
    )
    # Kept steps are not marked by colour alone.
    for selector, width in ((".tokens .t.kept", True), (".tokens .t:not(.kept)", False)):
        colour = tab.page.locator(selector).first.evaluate(
            "e => getComputedStyle(e).borderBottomColor"
        )
        assert (colour != "rgba(0, 0, 0, 0)") == width


def test_hovering_and_keys_open_the_panel_of_a_step(tab, recorded):
    answer = recorded["answers"][0]
    kept = answer["kept"].index(1)
    tab.page.locator(f'.tokens [data-step="{kept}"]').hover()
    _check_panel(tab, recorded, kept)
    tab.page.mouse.move(5, 5)
    # The panel returns to the step that it opened with.
    _check_panel(tab, recorded, answer["kl"].index(max(answer["kl"])))
    tab.page.locator('.tokens [data-step="0"]').click()
    _check_panel(tab, recorded, 0)
    tab.page.keyboard.press("ArrowRight")
    _check_panel(tab, recorded, 1)
    spoken = tab.text(".panel [aria-live=polite]")
    assert spoken.startswith(f"{visible(recorded['tokens'][answer['token'][1]])} step 2 of")
    tab.page.keyboard.press("End")
    _check_panel(tab, recorded, len(answer["token"]) - 1)
    tab.page.keyboard.press("Home")
    _check_panel(tab, recorded, 0)
    assert tab.position.startswith("1 of")  # the arrows did not page
    assert tab.page.locator(".strip i").count() == len(answer["token"])
    tab.page.locator(".strip i").last.click()
    tab.page.mouse.move(5, 5)
    _check_panel(tab, recorded, len(answer["token"]) - 1)
    # Under a filter the arrows move between its steps.
    tab.filter("kept")
    tab.page.locator('.tokens [tabindex="0"]').focus()
    tab.page.keyboard.press("Home")
    _check_panel(tab, recorded, kept)
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("document.activeElement.tagName") == "BUTTON"


def _check_panel(tab: Tab, recorded: dict[str, Any], step: int) -> None:
    answer = recorded["answers"][0]
    panel = tab.text(".panel")
    assert f"step {step + 1} of {len(answer['token'])}" in panel
    assert f"divergence D {answer['kl'][step]:.3f} nats" in panel
    assert f"expert entropy {answer['expert_entropy'][step]:.3f} nats" in panel
    assert f"amateur entropy {answer['amateur_entropy'][step]:.3f} nats" in panel
    assert f"tokens in the mask {answer['mask_size'][step]}" in panel
    assert f"= {recorded['alpha']})" in panel
    assert ("not kept" in panel) == (not answer["kept"][step])
    assert ("top-1 differs" in panel) == (answer["same_top1"][step] == 0)
    rows = tab.page.locator(".panel tbody tr")
    candidates = answer["candidates"][step]
    assert rows.count() == len(candidates)

    def share(value: float) -> str:
        return "< 0.001" if value < 0.0005 else f"{value:.3f}"

    for row, (token, expert, amateur, inside, weight) in zip(rows.all(), candidates, strict=True):
        cells = [cell.strip() for cell in row.locator("th, td").all_inner_texts()]
        assert cells[0].removesuffix("◂").strip() == visible(recorded["tokens"][token])
        assert cells[0].endswith("◂") == (token == answer["token"][step])
        assert cells[1:4] == [share(expert), share(amateur), "✓" if inside else ABSENT]
        label = ABSENT if weight is None else "0" if weight == 0 else share(weight)
        assert cells[4:] == [label]
        bar = row.locator(".expert").evaluate("one => one.style.getPropertyValue('--share')")
        assert float(bar) == expert


def test_pages_by_buttons_and_keys(tab, recorded):
    count = len(recorded["answers"])
    previous, after = (tab.page.locator(f'#the-reader [data-go="{by}"]') for by in (-1, 1))
    assert previous.is_disabled()
    after.click()
    assert tab.position == f"2 of {count}"
    assert recorded["answers"][1]["id"] in tab.text(".verdict")
    previous.click()
    tab.page.locator("body").press("j")
    for keys, position in ((("j", "ArrowRight"), 4), (("k", "ArrowLeft"), 2)):
        for key in keys:
            tab.page.keyboard.press(key)
        assert tab.position == f"{position} of {count}"
    for _ in range(count + 2):
        tab.page.keyboard.press("j")
    assert tab.position == f"{count} of {count}"
    assert after.is_disabled()


def test_everything_is_reached_by_tab(tab):
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    box = tab.page.locator(".skip").bounding_box()
    assert box["x"] >= 0  # visible once it has the focus
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "content"
    seen: list[str] = []
    for _ in range(80):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement === document.body"):
            break  # past the last element
        name = "e => e.dataset.filter || e.dataset.go || e.dataset.is || e.dataset.step && 'token'"
        seen.append(
            tab.page.evaluate(
                f"(({name})(document.activeElement)) || document.activeElement.tagName"
            )
        )
        outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        assert tab.page.evaluate(outlined), seen
    for stop in ("all", "kept", "differ", "wrong", "1", "token", "SUMMARY"):
        assert stop in seen, (stop, seen)
    assert seen.count("token") == 1  # a whole answer is one tab stop


def test_answers_stand_side_by_side(tab, demo):
    def graded(who: str, name: str) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in read_lines(demo / "answers" / who / f"{name}.jsonl")}

    expert, tuned = graded("expert", "micro_add"), graded("tuned", "micro_add")
    first = next(
        one for one in expert.values() if not one["correct"] and tuned[one["id"]]["correct"]
    )
    tab.page.locator("#answers summary").first.click()
    assert first["id"] in tab.text("#answers .verdict")
    sides = tab.page.locator("#answers .side")
    for side, answers in zip(sides.all(), (expert, tuned), strict=False):
        assert side.locator(".output").text_content() == answers[first["id"]]["output"]
    assert "✗ wrong" in sides.first.inner_text()
    assert "✓ right" in sides.nth(1).inner_text()
    # Only the part after the common beginning is marked.
    same, differs = (
        sides.nth(1).locator(f".{look}").text_content() for look in ("same", "differs")
    )
    assert first["output"].startswith(same)
    assert not first["output"].startswith(same + differs[0])
    assert "Shaded: from the first difference on." in tab.text("#answers")
    plain = graded("expert", "micro_plain")
    assert all(one["correct"] for one in plain.values())  # no question can be won
    groups = tab.page.locator("#answers summary").all_inner_texts()
    assert not [group for group in groups if group.startswith("micro_plain, won")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_layout_fits_each_screen_and_colour_scheme(demo, open_page, tmp_path, name, size, scheme):
    tab = open_page(demo / "report.html", size, scheme, has_touch=name == "phone")
    assert tab.overflow == 0
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    if name == "phone":
        token = tab.page.locator(".tokens .t.kept").last
        token.scroll_into_view_if_needed()
        token.tap()
        panel, box = tab.page.locator(".panel").bounding_box(), token.bounding_box()
        assert box["y"] + box["height"] <= panel["y"]  # the panel does not cover it
        assert panel["y"] < PHONE[1] - 50  # and is visible itself
        assert tab.overflow == 0
    assert tab.page.locator("figure").count() == tab.page.locator("img:visible").count() > 0
    looks = tab.page.eval_on_selector_all("img", "all => all.map(e => getComputedStyle(e).filter)")
    assert [look != "none" for look in looks] == [scheme == "dark"] * len(looks)  # inverted
    folder = Path(os.environ.get("LR_EXP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    shot = folder / f"{name}_{scheme}.png"
    tab.page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 20_000
    shades = "all => new Set(all.map(e => getComputedStyle(e).backgroundColor)).size"
    assert tab.page.eval_on_selector_all(".tokens .t", shades) >= 3


def test_prints_the_current_answer_without_controls(demo, open_page):
    tab = open_page(demo / "report.html", scheme="dark")
    tab.page.emulate_media(media="print")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    assert not any(one.is_visible() for one in tab.page.locator("button, select, nav").all())
    assert tab.page.locator(".tokens .t").first.is_visible()
    assert tab.page.evaluate("getComputedStyle(document.images[0]).filter") == "none"
    assert not tab.page.locator("#settings table").first.is_visible()  # collapsed
    assert tab.page.pdf().startswith(b"%PDF")
    assert tab.page.locator("details[open]").count() == 0


def test_a_long_question_scrolls_in_a_bounded_area(open_page, tmp_path):
    run = write_run(tmp_path / "run")
    write_trajectories(run, ANSWER | {"question": "How many?\n" * 1_900}, ANSWER)
    tab = open_page(write_run_page(run))
    question = tab.page.locator("#the-reader .question")
    assert question.bounding_box()["height"] <= 320
    assert question.evaluate("one => one.scrollHeight") > 10_000  # the whole question
    question.focus()
    assert question.evaluate("one => one === document.activeElement")
    tab.page.locator("#the-reader [data-go='1']").click()
    assert question.inner_text() == ANSWER["question"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_runs_of_a_sweep_can_be_read_without_scrolling(open_page, tmp_path, size):
    folder, shared = tmp_path / "sweep", ",".join(f"key_{i}.value={i}" for i in range(8))
    for beta in (0.2, 0.4):
        write_run(folder / f"beta={beta},{shared}", beta=beta, sweep="mine")
    write_failed(folder / f"beta=0.8,{shared}", "no_memory_" * 30, expert="micro", sweep="mine")
    assert main([str(folder)]) == 0
    tab = open_page(folder / "report" / "report.html", size)
    frame = tab.page.locator("#runs .scroll")
    assert frame.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    assert tab.text("#runs tbody tr th bdi") == f"beta=0.2,{shared}"
    assert tab.overflow == 0


def test_a_narrow_window_is_never_scrolled_sideways(open_page, tmp_path):
    long = {**ANSWER, "id": "x" * 300, "question": "w" * 400, "reference": "1" * 200}
    run = write_run(tmp_path / "run", expert="e" * 200, sweep="s" * 200)
    write_trajectories(run, long, tokens=["t" * 190, *TOKENS[1:]])
    tab = open_page(write_run_page(run), PHONE)
    assert tab.overflow == 0
    tab.page.locator(".tokens .t").first.click()
    assert tab.overflow == 0
    folder = tmp_path / "sweep"
    for seed, name in enumerate(("r" * 200, "short")):
        write_run(folder / name, seed=seed, sweep="s" * 200)
    write_run_page(folder / "short")
    assert main([str(folder)]) == 0
    sweep = open_page(folder / "report" / "report.html", PHONE)
    assert sweep.overflow == 0
    sweep.page.locator("#runs a").click()  # opens the run's page
    assert sweep.page.url == (folder / "short" / "report.html").as_uri()


def test_hostile_text_runs_nothing(open_page, tmp_path):
    tab = open_page(write_run_page(write_hostile_run(tmp_path / "run")))
    title = tab.page.title()
    assert "</script>" in title  # as text
    tab.page.locator(".tokens .t").first.click()
    tab.page.locator("#answers summary").first.click()
    assert tab.page.title() == title
    assert title.endswith("Run report")
    assert tab.page.locator('img:not([src^="data:image/svg+xml;base64,"])').count() == 0
    assert tab.page.locator("script").count() == 2
    for selector in (".question", ".tokens", ".token-name", "#answers .output"):
        shown = tab.page.locator(selector).first.text_content()
        assert "<img src=x onerror=alert(1)>" in shown.replace("␣", " "), selector
        assert "\u202e" not in shown
        assert r"\u202e" in shown
    assert tab.page.locator('.tokens [data-step="1"]').text_content() == r"\u202eabc"


def test_without_a_mask_no_token_is_outside_it(open_page, tmp_path):
    """Methods whose target is the expert's own token have no alpha."""
    candidates = [[[0, 0.6, 0.1, 0, 1.0], [3, 0.3, 0.2, 0, 0.0]], [[1, 0.95, 0.9, 0, None]], []]
    unmasked = ANSWER | {"mask_size": [None] * 3, "candidates": candidates}
    run = write_run(tmp_path / "run", method="no_contrast")
    write_trajectories(run, unmasked, alpha=None)
    tab = open_page(write_run_page(run))
    heads = tab.page.locator(".panel thead th").all_inner_texts()
    assert heads == ["token", "expert", "amateur", "label"]
    cells = tab.page.locator(".panel tbody tr").first.locator("td").all_inner_texts()
    assert [cell.strip() for cell in cells] == ["0.600", "0.100", "1.000"]
    assert tab.page.locator(".panel tr.outside").count() == 0
    assert "mask" not in tab.text(".panel")


def test_an_empty_filter_shows_a_message(open_page, tmp_path):
    nothing_kept = UNSCORED | {"reference": None, "kept": [0, 0, 0]}
    run = write_run(tmp_path / "run", amateur=None)
    write_trajectories(run, nothing_kept, alpha=None, beta=None, amateur=None)
    tab = open_page(write_run_page(run))
    assert tab.page.locator(".tokens .t").count() == 3
    assert tab.page.locator(".tokens .unscored").count() == 0  # since nothing was scored
    assert "scored" not in tab.text(".panel")
    assert "divergence" not in tab.text(".panel")
    assert "top-1" not in tab.text("#the-reader [data-is=counts]")
    assert "No probabilities were recorded." in tab.text(".panel")
    assert tab.page.locator("#the-reader [data-filter]").count() == 2
    tab.filter("kept")
    assert tab.text("#the-reader [data-is=empty]") == "No entries match this filter."
    assert tab.page.locator(".tokens .t").first.is_hidden()
    tab.page.keyboard.press("j")  # has no effect
    tab.filter("all")
    assert tab.page.locator(".tokens .t").first.is_visible()

"""`report.html` in Chromium, opened from disk without a network.

With LR_EXP_NEEDS_BROWSER=1, as in CI, a missing browser is a failure. LR_EXP_SCREENSHOTS=FOLDER
keeps the screenshots.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lr_exp.report.__main__ import main
from lr_exp.report.names import ABSENT
from lr_exp.report.page import write_run_page
from tests.support.run_folders import write_failed, write_run
from tests.support.trajectories_file import ANSWER, NASTY, TOKENS, write_trajectories

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [
    name
    for name, found in (
        ("chromium (apt-get install chromium)", CHROMIUM),
        ("playwright (pip install playwright)", importlib.util.find_spec("playwright")),
    )
    if not found
]
pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("LR_EXP_NEEDS_BROWSER") != "1",
    reason=f"missing: {', '.join(MISSING)}",
)

DESKTOP, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo run with its page, shared by all pytest workers."""
    own = tmp_path_factory.getbasetemp()
    base = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "demo"
    with FileLock(f"{base}.lock"):
        if not (base / "run" / "report.html").exists():
            _run_demo(base)
    return base / "run"


def _run_demo(base: Path) -> None:
    words = (
        "experiment=demo",
        "data.max_questions=24",
        "benchmarks=[micro_add,micro_plain]",
        "evaluator.max_examples=24",
        "distiller.steps=40",
        "distiller.learning_rate=1e-3",  # for a gain in so few optimizer steps
        "wandb.mode=disabled",
        f"hydra.run.dir={base / 'run'}",
        f"store={base / 'store'}",
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "lr_exp", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


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

    def open_(
        path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light", **options: Any
    ) -> Tab:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            offline=True,
            **options,
        )
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
    return json.loads((demo / "trajectories.json").read_text())


@pytest.fixture
def summary(demo: Path) -> dict[str, Any]:
    return json.loads((demo / "summary.json").read_text())


def visible(text: str) -> str:
    """A token as the panel shows it."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def test_numbers_match_the_summary(tab: Tab, summary: dict[str, Any]) -> None:
    rows = tab.page.locator("#results table").first.locator("tbody tr").all_inner_texts()
    shown = {row.split("\t")[0].strip(): [cell.strip() for cell in row.split("\t")] for row in rows}
    shares = {}
    for name in ("micro_add", "micro_plain"):
        before, after = (summary["evaluate"][who][name] for who in ("expert", "tuned"))
        cells = shown[name]
        for cell, result in zip(cells[1:3], (before, after), strict=True):
            assert cell == f"{100 * result['accuracy']:.1f} ± {100 * result['stderr']:.1f}"
        gain = 100 * (after["accuracy"] - before["accuracy"])
        assert cells[3].startswith(f"{gain:+.1f} ±")
        assert cells[-1] == str(before["total"]) == "24"
        won, lost = int(cells[5]), int(cells[6])
        assert won - lost == after["correct"] - before["correct"]
        shares[name] = (before["accuracy"], after["accuracy"])
    averages = [100 * sum(pair[i] for pair in shares.values()) / 2 for i in (0, 1)]
    assert averages[1] > averages[0]  # the demo shows a gain
    tiles = tab.text(".tiles")
    assert f"{averages[0]:.1f} → {averages[1]:.1f} %" in tiles
    sample = summary["sample"]
    assert f"{sample['kept']:,} of {sample['steps']:,} steps" in tiles
    assert f"{summary['distill']['tuned_tokens']:,}" in tiles
    assert summary["provenance"]["expert"]["fingerprint"] in tab.page.content()


def test_filters_show_the_counts_of_the_file(tab: Tab, recorded: dict[str, Any]) -> None:
    answers = recorded["answers"]
    kept = [sum(one["kept"]) for one in answers]
    differ = [one["same_top1"].count(0) for one in answers]
    wrong = [one for one in answers if one["correct"] is False]
    assert len(wrong) > 0
    assert tab.count("all") == f"{len(answers)}"
    assert tab.count("kept") == f"{sum(map(bool, kept))} · {sum(kept):,} steps"
    assert tab.count("differ") == f"{sum(map(bool, differ))} · {sum(differ):,} steps"
    assert tab.count("wrong") == f"{len(wrong)}"

    tab.filter("kept")
    assert tab.position == f"1 of {sum(map(bool, kept))}"
    first = next(i for i, number in enumerate(kept) if number)
    assert tab.page.locator(".tokens .t:not(.dim)").count() == kept[first]
    tab.filter("differ")
    first = next(i for i, number in enumerate(differ) if number)
    if kept[first]:  # the current answer stays if it matches the new filter
        assert tab.page.locator(".tokens .t:not(.dim)").count() == differ[first]

    # Steps of wrong answers that were not kept although the expert is confident.
    tab.filter("wrong")
    blind = tab.page.locator(".blind-choice")
    assert blind.is_visible()
    total = sum(_blind(one) for one in wrong)
    assert tab.text(".blind-choice .count") == f"{total:,} steps"
    assert tab.page.locator(".tokens .blind").count() == 0
    blind.click()
    shown = answers.index(next(one for one in wrong if one["id"] in tab.text(".verdict")))
    assert tab.page.locator(".tokens .blind").count() == _blind(answers[shown]) > 0
    tab.filter("all")
    assert not blind.is_visible()
    assert tab.page.locator(".tokens .blind").count() == 0


def _blind(answer: dict[str, Any]) -> int:
    tops = [max((c[1] for c in step), default=0) for step in answer["candidates"]]
    return sum(top >= 0.9 and not kept for top, kept in zip(tops, answer["kept"], strict=True))


def test_an_answer_is_shown_token_by_token(tab: Tab, recorded: dict[str, Any]) -> None:
    answer = recorded["answers"][0]
    assert answer["question"] in tab.text(".question")
    assert f"reference {answer['reference']}" in tab.text(".verdict")
    assert ("✓ right" if answer["correct"] else "✗ wrong") in tab.text(".verdict")
    marked = tab.page.eval_on_selector_all(
        ".tokens .t", "all => all.map(e => [e.textContent, e.className])"
    )
    texts = [recorded["tokens"][token] for token in answer["token"]]
    assert [text for text, _ in marked] == [visible(t) if t.isspace() else t for t in texts]
    assert [int("kept" in look.split()) for _, look in marked] == answer["kept"]
    edges = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    assert [look.split()[1] for _, look in marked] == [
        f"s{sum(kl >= edge for edge in edges)}" for kl in answer["kl"]
    ]
    # Kept steps are not marked by colour alone.
    for selector, width in ((".tokens .t.kept", True), (".tokens .t:not(.kept)", False)):
        colour = tab.page.locator(selector).first.evaluate(
            "e => getComputedStyle(e).borderBottomColor"
        )
        assert (colour != "rgba(0, 0, 0, 0)") == width


def test_hovering_and_keys_open_the_panel_of_a_step(tab: Tab, recorded: dict[str, Any]) -> None:
    answer = recorded["answers"][0]
    kept = answer["kept"].index(1)
    tab.page.locator(f'.tokens [data-step="{kept}"]').hover()
    _check_panel(tab, recorded, kept)
    tab.page.mouse.move(5, 5)
    # The panel returns to the step that it opened with.
    most_informative = max(range(len(answer["kl"])), key=lambda step: _score(answer, step))
    _check_panel(tab, recorded, most_informative)
    tab.page.locator('.tokens [data-step="0"]').click()
    _check_panel(tab, recorded, 0)
    tab.page.keyboard.press("ArrowRight")
    _check_panel(tab, recorded, 1)
    assert (
        f"Step 2, {visible(recorded['tokens'][answer['token'][1]])}:"
        in tab.page.locator("[data-is=spoken]").text_content()
    )
    tab.page.keyboard.press("End")
    _check_panel(tab, recorded, len(answer["token"]) - 1)
    tab.page.keyboard.press("Home")
    _check_panel(tab, recorded, 0)
    assert tab.position.startswith("1 of")  # the arrows did not page
    strip = tab.page.locator(".strip svg").bounding_box()
    assert strip  # one bar per step: its right end is the last step
    tab.page.mouse.click(strip["x"] + strip["width"] - 2, strip["y"] + strip["height"] / 2)
    tab.page.mouse.move(5, 5)
    _check_panel(tab, recorded, len(answer["token"]) - 1)
    # Under a filter the arrows move between its steps.
    tab.filter("kept")
    tab.page.locator('.tokens [tabindex="0"]').focus()
    tab.page.keyboard.press("Home")
    _check_panel(tab, recorded, kept)
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("document.activeElement.tagName") == "BUTTON"


def _score(answer: dict[str, Any], step: int) -> float:
    inside = [(c[1], c[4]) for c in answer["candidates"][step] if c[3] and c[4] is not None]
    total = sum(expert for expert, _ in inside)
    shift = sum(abs(weight - expert / total) for expert, weight in inside) / 2 if total else 0
    return 100 * shift + answer["kl"][step]


def _check_panel(tab: Tab, recorded: dict[str, Any], step: int) -> None:
    answer = recorded["answers"][0]
    panel = tab.text(".panel [data-is=panel]")
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
        if answer["kept"][step]:
            assert cells[4] == ("0" if weight == 0 else share(weight))
        else:
            assert len(cells) == 4
        bars = row.locator(".barred i > i").evaluate_all("all => all.map(e => e.style.width)")
        assert float(bars[0].removesuffix("%")) == pytest.approx(100 * expert)


def test_pages_by_buttons_and_keys(tab: Tab, recorded: dict[str, Any]) -> None:
    count = len(recorded["answers"])
    previous, after = (tab.page.locator(f'#the-reader [data-go="{by}"]') for by in (-1, 1))
    assert previous.is_disabled()
    after.click()
    assert tab.position == f"2 of {count}"
    assert recorded["answers"][1]["id"] in tab.text(".verdict")
    previous.click()
    tab.page.locator("body").press("j")
    tab.page.keyboard.press("j")
    tab.page.keyboard.press("ArrowRight")
    assert tab.position == f"4 of {count}"
    tab.page.keyboard.press("k")
    tab.page.keyboard.press("ArrowLeft")
    assert tab.position == f"2 of {count}"
    for _ in range(count + 2):
        tab.page.keyboard.press("j")
    assert tab.position == f"{count} of {count}"
    assert after.is_disabled()


def test_everything_is_reached_by_tab(tab: Tab) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    box = tab.page.locator(".skip").bounding_box()
    assert box
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
    for stop in ("all", "kept", "differ", "wrong", "1", "token", "benchmark", "won", "SUMMARY"):
        assert stop in seen, (stop, seen)
    assert seen.count("token") == 1  # a whole answer is one tab stop


def test_answers_stand_side_by_side(tab: Tab, demo: Path, summary: dict[str, Any]) -> None:
    graded = {
        (who, name): {
            one["id"]: one
            for line in (demo / "answers" / who / f"{name}.jsonl").read_text().splitlines()
            for one in [json.loads(line)]
        }
        for who in ("expert", "tuned")
        for name in summary["evaluate"][who]
    }
    names = list(summary["evaluate"]["expert"])
    totals = {"won": 0, "lost": 0, "both right": 0, "both wrong": 0}
    kinds = {(0, 1): "won", (1, 0): "lost", (1, 1): "both right", (0, 0): "both wrong"}
    for name in names:
        for key, before in graded["expert", name].items():
            after = graded["tuned", name][key]
            totals[kinds[before["correct"], after["correct"]]] += 1
    row = tab.page.locator("#answers tbody tr").last.inner_text().split("\t")
    assert [int(cell) for cell in row[1:]] == [sum(totals.values()), *totals.values()]
    assert totals["won"] > 0
    assert tab.text("#the-pairs [data-filter=won] .count").endswith(f"{totals['won']}")

    first = next(
        one
        for one in graded["expert", "micro_add"].values()
        if not one["correct"] and graded["tuned", "micro_add"][one["id"]]["correct"]
    )
    assert first["id"] in tab.text("#the-pairs .verdict")
    for side, who in (("before", "expert"), ("after", "tuned")):
        shown = tab.page.locator(f"[data-is={side}-output]").text_content()
        assert shown == graded[who, "micro_add"][first["id"]]["output"]
    assert "✗ wrong" in tab.text("[data-is=before-outcome]")
    assert "✓ right" in tab.text("[data-is=after-outcome]")
    # Only the part after the common beginning is marked.
    same, differs = (
        tab.page.locator(f"[data-is=after-output] .{look}").text_content()
        for look in ("same", "differs")
    )
    before = graded["expert", "micro_add"][first["id"]]["output"]
    assert before.startswith(same)
    assert not before.startswith(same + differs[0])

    # A filter without entries shows a message.
    tab.page.locator("#the-pairs select").select_option("micro_plain")
    plain = [one["correct"] for one in graded["expert", "micro_plain"].values()]
    assert all(plain)  # no question can be won
    assert tab.text("#the-pairs [data-is=empty]") == "No entries match this filter."
    assert tab.text("#the-pairs [data-is=position]") == "0 of 0"
    tab.page.locator('#the-pairs [data-filter="both right"]').click()
    assert tab.page.locator("#the-pairs [data-is=empty]").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_looks(
    demo: Path, open_page: Open, tmp_path: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    tab = open_page(demo / "report.html", size, scheme, has_touch=name == "phone")
    assert tab.overflow == 0
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    if name == "phone":
        token = tab.page.locator(".tokens .t.kept").last
        token.scroll_into_view_if_needed()
        token.tap()
        panel, box = tab.page.locator(".panel").bounding_box(), token.bounding_box()
        assert panel
        assert box
        assert box["y"] + box["height"] <= panel["y"]  # the panel does not cover it
        assert panel["y"] < PHONE[1] - 50  # and is visible itself
        assert tab.overflow == 0
    folder = Path(os.environ.get("LR_EXP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    shot = folder / f"{name}_{scheme}.png"
    tab.page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 20_000
    # Every token has enough contrast with its shade, and there are several shades.
    seen = tab.page.eval_on_selector_all(".tokens .t", _CONTRAST)
    assert len({tuple(one["shade"]) for one in seen}) >= 3
    assert min(one["contrast"] for one in seen) >= 4.5


_CONTRAST = """all => {
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (c) => { const l = c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const paper = rgb(getComputedStyle(document.body).backgroundColor);
  return all.map((e) => {
    const style = getComputedStyle(e); let shade = rgb(style.backgroundColor);
    if (shade[3] === 0) shade = paper;
    const both = [light(rgb(style.color)), light(shade)].sort((a, b) => b - a);
    return { shade, contrast: (both[0] + 0.05) / (both[1] + 0.05) };
  });
}"""


def test_prints_the_current_answer_without_controls(demo: Path, open_page: Open) -> None:
    tab = open_page(demo / "report.html", scheme="dark")
    tab.page.emulate_media(media="print")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    assert not any(one.is_visible() for one in tab.page.locator("button, select, nav").all())
    assert tab.page.locator(".tokens .t").first.is_visible()
    assert not tab.page.locator("#settings table").first.is_visible()  # collapsed
    assert tab.page.pdf().startswith(b"%PDF")
    assert tab.page.locator("details[open]").count() == 0


def test_a_long_question_scrolls_in_a_bounded_area(open_page: Open, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_trajectories(run, ANSWER | {"question": "How many?\n" * 1_900}, ANSWER)
    tab = open_page(write_run_page(run))
    question = tab.page.locator("#the-reader .question")
    assert question.bounding_box()["height"] <= 320
    assert question.evaluate("one => one.scrollHeight") > 10_000  # the whole question
    assert question.get_attribute("tabindex") == "0"
    tab.page.locator("#the-reader [data-go='1']").click()
    assert question.inner_text() == ANSWER["question"]
    assert question.get_attribute("tabindex") is None


def test_answers_open_with_the_first_nonempty_outcome(open_page: Open, tmp_path: Path) -> None:
    graded: dict[str, Any] = {"before": {"micro_add": [1, 0]}, "after": {"micro_add": [0, 0]}}
    tab = open_page(write_run_page(write_run(tmp_path / "run", **graded)))
    pressed = tab.page.locator("#the-pairs [data-filter][aria-pressed=true]")
    assert pressed.get_attribute("data-filter") == "lost"
    assert "micro_add/0" in tab.text("#the-pairs [data-is=verdict]")
    assert "Shaded: from the first difference on." in tab.text("#the-pairs .note")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_runs_of_a_sweep_can_be_read_without_scrolling(
    open_page: Open, tmp_path: Path, size: tuple[int, int]
) -> None:
    folder, shared = tmp_path / "sweep", ",".join(f"key_{i}.value={i}" for i in range(8))
    for beta in (0.2, 0.4):
        write_run(folder / f"beta={beta},{shared}", beta=beta, sweep="mine")
    write_failed(folder / f"beta=0.8,{shared}", "no_memory_" * 30, expert="micro", sweep="mine")
    assert main([str(folder)]) == 0
    tab = open_page(folder / "report" / "report.html", size)
    frame = tab.page.locator("#runs .scroll")
    assert frame.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    assert tab.text("#runs tbody tr th bdi") == "beta=0.2"
    tab.page.locator("#runs details summary").first.click()
    assert tab.text("#runs details bdi") == f"beta=0.2,{shared}"
    assert frame.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    assert tab.overflow == 0


def test_a_narrow_window_is_never_scrolled_sideways(open_page: Open, tmp_path: Path) -> None:
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


def test_hostile_text_runs_nothing(open_page: Open, tmp_path: Path) -> None:
    plain = NASTY.replace("\ud800", "")
    run = write_run(tmp_path / "run", expert=plain, sweep=plain, warnings=[plain])
    nasty = ANSWER | {"id": NASTY, "question": NASTY, "reference": NASTY, "predicted": NASTY}
    write_trajectories(run, nasty, tokens=[NASTY, "\u202eabc", "\x07\x1b]0;x\x07", "שלום"])
    for who in ("expert", "tuned"):
        place = run / "answers" / who / "micro_add.jsonl"
        answers = [json.loads(line) for line in place.read_text().splitlines()]
        lines = [json.dumps({**one, "question": NASTY, "output": NASTY}) for one in answers]
        place.write_text("\n".join(lines) + "\n")
    tab = open_page(write_run_page(run))
    title = tab.page.title()
    assert "</script>" in title  # as text
    tab.page.locator(".tokens .t").first.click()
    tab.page.locator("#the-pairs [data-filter=won]").click()
    assert tab.page.title() == title
    assert title.endswith("Run report")
    assert tab.page.locator("img").count() == 0
    assert tab.page.locator("script").count() == 3
    for selector in (".question", ".tokens", ".token-name", "[data-is=before-output]"):
        shown = tab.page.locator(selector).first.text_content()
        assert "<img src=x onerror=alert(1)>" in shown.replace("␣", " "), selector
        assert "\u202e" not in shown
        assert r"\u202e" in shown
    assert tab.page.locator('.tokens [data-step="1"]').text_content() == r"\u202eabc"


def test_without_a_mask_no_token_is_outside_it(open_page: Open, tmp_path: Path) -> None:
    """Methods whose target is the expert's own token have no alpha."""
    candidates = [
        [[0, 0.6, 0.1, 0, 1.0], [3, 0.3, 0.2, 0, 0.0]],
        [[1, 0.95, 0.9, 0, None]],
        [],
    ]
    unmasked = ANSWER | {"mask_size": [None] * 3, "candidates": candidates}
    run = write_run(tmp_path / "run", method="no_contrast")
    write_trajectories(run, unmasked, alpha=None)
    tab = open_page(write_run_page(run))
    heads = tab.page.locator(".panel thead th").all_inner_texts()
    assert heads == ["token", "expert", "amateur", "label"]
    cells = tab.page.locator(".panel tbody tr").first.locator("td").all_inner_texts()
    assert [cell.strip() for cell in cells] == ["0.600", "0.100", "1.000"]
    assert tab.page.locator(".panel tr.outside").count() == 0
    assert "mask" not in tab.text(".panel [data-is=panel]")


def test_an_empty_filter_shows_a_message(open_page: Open, tmp_path: Path) -> None:
    unknown = ANSWER | {"reference": None, "predicted": None, "correct": None, "kept": [0, 0, 0]}
    silent = {
        "kl": [None] * 3,
        "same_top1": [None] * 3,
        "mask_size": [None] * 3,
        "expert_entropy": [None] * 3,
        "amateur_entropy": [None] * 3,
        "candidates": [[]] * 3,
    }
    run = write_run(tmp_path / "run", amateur=None)
    write_trajectories(run, unknown | silent, alpha=None, beta=None, amateur=None)
    tab = open_page(write_run_page(run))
    assert tab.page.locator(".tokens .t").count() == 3
    assert tab.page.locator(".tokens .unscored").count() == 0  # since nothing was scored
    assert "scored" not in tab.text(".panel [data-is=panel]")
    assert "divergence" not in tab.text(".panel [data-is=panel]")
    assert "top-1" not in tab.text("#the-reader [data-is=counts]")
    assert "No probabilities were recorded." in tab.text(".panel [data-is=panel]")
    assert tab.page.locator("#the-reader [data-filter]").count() == 2
    tab.filter("kept")
    assert tab.text("#the-reader [data-is=empty]") == "No entries match this filter."
    assert tab.page.locator(".tokens .t").first.is_hidden()
    tab.page.keyboard.press("j")  # has no effect
    tab.filter("all")
    assert tab.page.locator(".tokens .t").first.is_visible()

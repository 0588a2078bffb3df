"""`report.html`: its content, its safety against hostile text, its size and accessibility."""

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lr_exp.report.__main__ import main
from lr_exp.report.figures.style import INK, MUTED, PAPER
from lr_exp.report.page import answers, trajectories, write_run_page
from lr_exp.report.page.cell_names import short_names
from lr_exp.report.page.markup import embedded_json, tag, text
from lr_exp.report.page.shell import MAX_PAGE_BYTES, read_file
from lr_exp.report.runs import find_runs
from tests.support.run_folders import write_failed, write_metrics, write_run
from tests.support.trajectories_file import ANSWER, NASTY, TOKENS, write_trajectories


class Page(HTMLParser):
    """A parsed page: elements with attributes, and texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # (innermost element, text)
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop() == tag  # elements are properly nested

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def inside(self, name: str) -> list[str]:
        return [data for tag, data in self.texts if tag == name]

    @property
    def words(self) -> str:
        """The visible text before any script runs."""
        kept = (data for tag, data in self.texts if tag not in ("script", "style"))
        return " ".join(" ".join(kept).split())

    def data(self, identifier: str) -> Any:
        match = re.search(rf'id="{identifier}">(.*?)</script>', self.source, re.DOTALL)
        assert match, identifier
        return json.loads(match.group(1))


def page_of_run(folder: Path) -> Page:
    return Page(write_run_page(folder).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with all files."""
    benchmarks = {"micro_add": [0, 0, 0, 1], "micro_plain": [1, 1, 1, 0]}
    after = {"micro_add": [1, 1, 0, 1], "micro_plain": [1, 1, 0, 0]}
    by_position = {"bin_tokens": 8, "steps": [600, 400], "kept": [150, 50]}
    extra = {"warnings": ["The gap is tiny."], "sample__by_position": by_position}
    folder = write_run(tmp_path / "run", before=benchmarks, after=after, **extra)
    write_metrics(folder, {1: 0.5, 50: 0.4, 100: 0.3})
    write_trajectories(folder)
    return folder


def test_shows_the_summary(run: Path) -> None:
    page = page_of_run(run)
    for expected in (
        "LightReasoner: expert micro, amateur micro",
        "50.0 → 62.5 %",  # micro_add 25 to 75, micro_plain 75 to 50
        "+12.5 ± 16.5 points",
        "20.0 % 200 of 1,000 steps",
        "micro_add 25.0 ± 21.7 75.0 ± 21.7 +50.0 ± 25.0",
        "micro_plain 75.0 ± 21.7 50.0 ± 25.0 -25.0 ± 21.7",
        "Warning: The gap is tiny.",
        "2 answers are shown: the first ones.",
        "Steps are numbered from 1 on this page",
        "Kept steps are underlined.",
        "mechanism on tiny models",
        "distiller.learning_rate 0.0001",
        "of micro_plain",  # a fingerprint
        "torch 2.13.0",
    ):
        assert expected in page.words, expected
    assert page.inside("h2") == [
        "Results",
        "Trajectory reader",
        "Where the models diverge",
        "Training",
        "Answers before and after",
        "Cost",
        "Settings and provenance",
    ]
    assert "published" not in page.words.lower()
    sections = dict(re.findall(r'<section id="(\w+)"(.*?)</section>', page.source, re.DOTALL))
    for section, figure in (
        ("results", "Accuracy before and after, by benchmark"),
        ("divergence", "Divergence of scored steps"),
        ("divergence", "Kept steps by position in the answer"),
        ("training", "Training"),
    ):
        assert f"<strong>{figure}</strong>" in sections[section], figure
    shown = page.data("reader-data")
    assert shown["answers"][0]["kl"] == [1.25, 0.01, None]
    assert shown["beta"] == 0.4
    assert [shown["tokens"][token] for token in shown["answers"][0]["token"]] == ["1", "3", "\n"]


def test_is_accessible_to_screen_readers_and_keyboards(run: Path) -> None:
    page = page_of_run(run)
    assert len(page.all("h1")) == len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    identifiers = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in identifiers
    for link in page.all("a"):
        assert (link["href"] or "").removeprefix("#") in identifiers
    assert len(page.all("table")) == len(page.all("caption")) > 5
    assert all(heading.get("scope") for heading in page.all("th"))
    assert all(button.get("type") == "button" for button in page.all("button"))
    frames = [a for _, a in page.elements if "scroll" in (a.get("class") or "").split()]
    assert frames
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in frames)
    assert [a.get("lang") for a in page.all("html")] == ["en"]
    assert any(a.get("aria-live") == "polite" for _, a in page.elements)


def test_loads_nothing_and_runs_only_its_own_script(run: Path) -> None:
    page = page_of_run(run)
    (policy,) = [
        a["content"] or ""
        for a in page.all("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy

    def allowed(kind: str, content: str) -> bool:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        return f"{kind} 'sha256-{digest}'" in policy

    (style,) = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert allowed("style-src", style)
    assert allowed("script-src", script)
    assert "innerHTML" not in script
    assert "eval(" not in script
    others = [a for a in page.all("script") if a.get("type") != "application/json"]
    assert len(others) == 1
    for name, attributes in page.elements:
        assert name not in ("img", "iframe", "object", "embed", "link", "base", "form")
        assert not {"src", "style", "srcset"} & attributes.keys(), (name, attributes)
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", style)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # an XML namespace, never loaded


def test_hostile_text_is_shown_harmlessly(tmp_path: Path) -> None:
    plain = NASTY.replace("\ud800", "")  # a lone surrogate cannot be written to a summary
    run = write_run(tmp_path / "run", expert=plain, sweep=plain, warnings=[plain])
    settings = json.loads((run / "summary.json").read_text())
    settings["settings"]["sampler"]["system_prompt"] = plain
    (run / "summary.json").write_text(json.dumps(settings))
    nasty = ANSWER | {"id": NASTY, "question": NASTY, "reference": NASTY, "predicted": NASTY}
    write_trajectories(run, nasty, tokens=[NASTY, "3", "\u202e", " 2"], chosen=NASTY)
    for who in ("expert", "tuned"):
        place = run / "answers" / who / "micro_add.jsonl"
        records = [json.loads(line) for line in place.read_text().splitlines()]
        lines = [json.dumps({**one, "question": NASTY, "output": NASTY * 9}) for one in records]
        place.write_text("\n".join(lines) + "\n")
    page = page_of_run(run)
    assert not page.all("img")
    assert len(page.all("script")) == 3  # two with data, and the page's own
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028\u2029]", page.source)
    assert "<img src=x onerror=alert(1)>" in page.words  # as text
    assert r"\u202e" in page.words
    shown = page.data("reader-data")
    assert shown["tokens"][0].startswith("</script>")
    assert r"\x1b[31m\x00\u202eright" in shown["tokens"][0]
    assert r"\ud800" in shown["tokens"][0]
    assert shown["tokens"][2] == r"\u202e"
    assert "taken" in page.data("answers-data")["pairs"][0]["before"]["output"]
    for blob in re.findall(r"<script type=[^>]*>(.*?)</script>", page.source, re.DOTALL):
        assert not set(blob) & set("<>&\u2028\u2029")


def test_escapes_the_message_of_a_failed_run(tmp_path: Path) -> None:
    plain = NASTY.replace("\ud800", "")
    write_failed(tmp_path / "run", plain, expert=plain, overrides=[f"expert.path={plain}"])
    page = page_of_run(tmp_path / "run")
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert "This run failed: </script>" in page.words


@pytest.mark.parametrize("method", [None, "lightreasoner"])
def test_a_run_of_some_stages_lists_what_is_missing(tmp_path: Path, method: str | None) -> None:
    run = write_run(
        tmp_path / "run", method=method, amateur=None, evaluate__tuned={}, answers=False
    )
    summary = json.loads((run / "summary.json").read_text())
    del summary["distill"], summary["sample"]
    summary["stages"] = ["evaluate"]
    (run / "summary.json").write_text(json.dumps(summary))
    page = page_of_run(run)
    assert "Missing: sampling (no divergences); tuning (no training curves)" in page.words
    assert "requested stages: evaluate" in page.words
    assert "25.0 ± 21.7" in page.words
    assert "after" not in page.inside("th")
    assert 'id="reader-data"' not in page.source
    del summary["evaluate"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert "Nothing was evaluated." in page_of_run(run).words


def test_a_run_that_trained_nothing_says_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluate__tuned={}, stopped="No step is above beta.")
    page = page_of_run(run)
    assert "Nothing was trained: No step is above beta." in page.words
    assert "tuning (no training curves)" not in page.words
    assert "25.0 ± 21.7" in page.words


def test_an_unfinished_run_shows_its_files(tmp_path: Path) -> None:
    write_trajectories(tmp_path / "run")
    write_metrics(tmp_path / "run", {1: 0.5, 10: 0.25})
    page = page_of_run(tmp_path / "run")
    assert "This run has not finished. It is still running or was interrupted" in page.words
    assert "Missing: everything that summary.json holds" in page.words
    assert page.inside("h2") == ["Trajectory reader", "Training"]
    assert "0.2500" in page.inside("td")
    assert len(page.data("reader-data")["answers"]) == 2
    (tmp_path / "run" / "trajectories.json").unlink()
    assert "no trajectories.json" in page_of_run(tmp_path / "run").words


def _as_imported(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["settings"]["data"] = {"name": "lr_samples", "format": "lr_samples"}
    summary["sample"] = {"questions": 3, "steps": None, "kept": 9, "kl_mean": None, "kl_max": 2.0}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_imported_records_are_not_reported_as_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", method=None, amateur=None)
    assert "There is no trajectories.json in the run's folder." in page_of_run(run).words
    _as_imported(run)
    words = page_of_run(run).words
    assert "used imported records and sampled no answers" in words
    assert "There is no" not in words


# From a method without an amateur: nothing is scored, every step is kept.
UNSCORED = ANSWER | {
    "correct": None,
    "predicted": None,
    "kept": [1, 1, 1],
    **dict.fromkeys(
        ("kl", "expert_entropy", "amateur_entropy", "mask_size", "same_top1"), [None] * 3
    ),
    "candidates": [[]] * 3,
}


def test_without_an_amateur_the_page_does_not_mention_divergences(tmp_path: Path) -> None:
    all_kept = {"bin_tokens": 8, "steps": [600, 400], "kept": [600, 400]}
    sample = {"questions": 20, "steps": 1000, "kept": 1000, "by_position": all_kept}
    alone = {"method": "gt_sft", "amateur": None, "alpha": None, "beta": None}
    run = write_run(tmp_path / "run", **alone, sample=sample)
    write_trajectories(run, UNSCORED, alpha=None, beta=None, amateur=None, method="gt_sft")
    page = page_of_run(run)
    assert "Where the models diverge" not in page.words
    assert "Kept steps by position in the answer" not in page.words  # a flat line at 100 %
    for unexpected in ("scored", "D in nats", "Top-1 differs", "Wrong answers"):
        assert unexpected not in page.words, unexpected
    filters = [a["data-filter"] for a in page.all("button") if a.get("data-filter")]
    assert filters[:2] == ["all", "kept"]
    assert (page.data("reader-data")["scored"], page.data("reader-data")["amateur"]) == (0, 0)
    # Graded answers can be filtered for wrong ones.
    write_trajectories(run, UNSCORED | {"correct": True}, alpha=None, beta=None)
    page = page_of_run(run)
    assert "Wrong answers" in page.words
    assert "Top-1 differs" not in page.words
    # The positions of kept steps are shown once some steps were not kept, scored or not.
    (run / "summary.json").write_text(
        (run / "summary.json").read_text().replace('"kept": [600, 400]', '"kept": [600, 100]')
    )
    words = page_of_run(run).words
    assert "Which steps were kept" in words
    assert "Share of steps that were kept" in words


def test_shows_the_pair_s_expertise_gap_with_the_results(tmp_path: Path) -> None:
    result = {"accuracy": 0.0, "total": 10, "stderr": 0.0}
    gap = {
        "decoder": "sampled",
        "expert": {"micro_add": {**result, "correct": 6, "accuracy": 0.6}},
        "amateur": {"micro_add": {**result, "correct": 2, "accuracy": 0.2}},
    }
    line = "micro micro micro_add sampled 60.0 ± 15.5 20.0 ± 12.6 +40.0 ± 20.0 10"
    for sweep in (None, "expertise_gap", "micro_baselines"):
        folder = tmp_path / str(sweep)
        page = page_of_run(write_run(folder / "0", sweep=sweep, evaluate__gap=gap))
        results = re.search(r'<section id="results".*?</section>', page.source, re.DOTALL)
        assert results
        assert line in Page(results.group()).words
        write_run(folder / "1", seed=1, sweep=sweep, evaluate__gap=gap)
        assert main([str(folder)]) == 0
        report = Page((folder / "report" / "report.html").read_text())
        assert (line in report.words) == (sweep != "expertise_gap")  # which has its own table
        assert "+40.0 ± 20.0" in report.words
    assert "Expertise gap" not in page_of_run(write_run(tmp_path / "none")).words


def test_a_sweep_s_page_shows_warnings_with_their_rows(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, sweep="mine", warnings=["<b>Tiny</b> gap."])
    write_run(tmp_path / "2", method="neither", sweep="mine", warnings=["<b>Tiny</b> gap."])
    write_run(tmp_path / "3", method="gt_sft", amateur=None, sweep="mine")
    assert main([str(tmp_path)]) == 0
    warning = "Warning: <b>Tiny</b> gap. (LightReasoner of micro; both removed of micro)"
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert page.words.count(warning) == 1
    assert (tmp_path / "report" / "report.md").read_text().count("Warning: ") == 1


def test_a_sweep_s_runs_are_named_by_their_differences(tmp_path: Path) -> None:
    shared = "data.max_questions=40,benchmarks=_micro_add,micro_plain_,distiller.steps=10"
    for number, beta in enumerate((0.2, 0.4)):
        name = f"beta={beta},{shared}"
        write_run(tmp_path / name, beta=beta, sweep="mine", seed=number)
    (tmp_path / f"beta=0.4,{shared}" / "summary.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    page = Page((tmp_path / "report" / "report.html").read_text())
    (runs,) = re.findall(r'<section id="runs".*?</section>', page.source, re.DOTALL)
    table = Page(runs)
    assert table.inside("th") == ["state", "run", "summary"]
    assert table.inside("td")[0] == "finished"
    full = [f"beta={beta},{shared}" for beta in (0.2, 0.4)]
    assert [cell["title"] for cell in table.all("th") if cell.get("scope") == "row"] == full
    shown = table.inside("bdi")
    assert shown[:2] == ["beta=0.2", full[0]]
    # An unreadable summary counts as damaged, not as failed.
    assert "1 finished, 0 failed, 1 damaged and 0 unfinished runs." in page.words
    assert table.inside("td")[1:].count("damaged") == 1
    assert "failed" not in table.inside("td")


_LONG = "b=" + "long" * 25


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a=1,b=_2,3_,c=4", "a=2,b=_2,3_,c=4"], ["a=1", "a=2"]),
        # Long names are truncated at different parts.
        ([f"m=x,{_LONG},c=4,d=-{'0' * 12}", f"m=xyz,{_LONG},c-{'1' * 12}"], ["m=x", "m=xyz"]),
        ([f"m=x,d=_-{'0' * 12}", f"m=x,d=_-{'1' * 12}"], None),  # the digest alone differs
        (["x/a=1,b=2", "y/a=1,b=2", "y/a=2,b=2"], ["x/a=1", "y/a=1", "y/a=2"]),
        (["x/a=1", "y/a=1"], ["x", "y"]),
        (["a=1,b=2"], ["a=1,b=2"]),
        (["a=1", "a=1,b=2"], ["a=1", "a=1,b=2"]),  # the first would be empty
        (["a,b", "b,a"], ["a,b", "b,a"]),
        ([], []),
    ],
)
def test_short_names(names: list[str], short: list[str] | None) -> None:
    assert short_names(names) == (names if short is None else short)


def test_says_only_once_that_nothing_was_trained(tmp_path: Path) -> None:
    why = "The method kept no step, so nothing was trained. Use more questions."
    run = write_run(
        tmp_path / "run",
        evaluate__tuned={},
        stopped=why,
        provenance__device_name="x86_64 CPU, 1 threads",
    )
    words = page_of_run(run).words
    assert words.split("method LightReasoner")[0].count("nothing was trained") == 1
    assert f"Stopped after sampling: {why}" in words
    assert "x86_64 CPU, 1 thread dtype float32" in words


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    cell = {"expert": "micro", "method": "gt_sft", "seed": 3, "overrides": ["seed=3", "beta=0.4"]}
    write_failed(tmp_path / "run", "CUDA out of memory", **cell)
    page = page_of_run(tmp_path / "run")
    assert "This run failed: CUDA out of memory" in page.words
    assert "Command-line overrides: seed=3 beta=0.4" in page.words
    assert page.inside("h1") == [] or "ground-truth SFT: expert micro" in page.words


def test_the_program_writes_pages_of_failed_and_unfinished_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_metrics(_made(tmp_path / "unfinished"), {1: 0.5, 10: 0.25})
    write_failed(tmp_path / "failed", "no memory", expert="micro", method="gt_sft")
    for name, expected in (("unfinished", "not finished"), ("failed", "no memory")):
        assert main([str(tmp_path / name)]) == 0
        page = Page((tmp_path / name / "report" / "report.html").read_text())
        assert expected in page.words
        assert "report.html" in capsys.readouterr().out


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


DAMAGES: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (lambda whole: whole[: len(whole) // 2], "trajectories.json is damaged"),
    "empty": (lambda _: "", "trajectories.json is damaged"),
    "another kind": (lambda _: "[1, 2]", "trajectories.json is damaged"),
    "too deep": (lambda _: "[" * 100_000, "trajectories.json is damaged"),
    "no tokens": (lambda whole: whole.replace('"tokens": [', '"words": ['), "no list of token"),
    "no answers": (lambda whole: whole.replace('"answers": [', '"x": ['), "no list of answers"),
    "columns": (lambda whole: whole.replace('"kl": [', '"kl": [0.5, '), "None of the answers"),
    "kinds": (lambda whole: whole.replace("1.25", '"<b>"'), "None of the answers"),
    "not a number": (lambda whole: whole.replace("1.25", "NaN"), "None of the answers"),
    "flags": (
        lambda whole: whole.replace('"kept": [1', '"kept": [true').replace(
            '"kept": [0', '"kept": [false'
        ),
        "None of the answers",
    ),
    "a mask of shares": (
        lambda whole: whole.replace("0.1, 1, 0.9", "0.1, 0.5, 0.9"),
        "None of the answers",
    ),
    "shares": (lambda whole: whole.replace("0.6,", "6.0,"), "None of the answers"),
    "tokens": (
        lambda whole: whole.replace('"token": [0', '"token": [99'),
        "None of the answers",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_trajectories_leave_one_line(run: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    path = run / "trajectories.json"
    path.write_text(change(path.read_text()))
    page = page_of_run(run)
    assert message in page.words
    assert "+50.0 ± 25.0" in page.words  # the rest is still shown
    assert 'id="reader-data"' not in page.source


def test_damaged_answers_are_left_out_and_counted(run: Path) -> None:
    write_trajectories(run, ANSWER, ANSWER | {"kept": [1]}, {"id": "not an answer"})
    page = page_of_run(run)
    assert "2 of 3 answers in trajectories.json are damaged and left out." in page.words
    assert len(page.data("reader-data")["answers"]) == 1


def test_names_the_threshold_if_the_kept_steps_match_it(run: Path) -> None:
    write_trajectories(run, ANSWER)
    assert "Steps with D > β = 0.4 nats are kept and underlined." in page_of_run(run).words
    for kept in ([1, 1, 0], [0, 0, 0]):  # as other step rules keep
        write_trajectories(run, ANSWER | {"kept": kept})
        words = page_of_run(run).words
        assert "Kept steps are underlined." in words
        assert "D > β" not in words


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    write_metrics(_made(tmp_path / "run"), {1: 0.5, 10: 0.25})
    os.mkfifo(tmp_path / "run" / "trajectories.json")
    assert "This run has not finished." in page_of_run(tmp_path / "run").words


def test_damaged_metrics_leave_one_line(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"family": "dist\n')
    page = page_of_run(run)
    assert "metrics.jsonl is damaged at line 4; only the lines before it are shown." in page.words
    assert "0.3000" in page.inside("td")


def test_outcomes_are_counted_over_all_answers(tmp_path: Path) -> None:
    before = {"micro_add": [0] * 60 + [1] * 40, "micro_plain": [1, 1]}
    after = {"micro_add": [1] * 50 + [0] * 10 + [1] * 30 + [0] * 10, "micro_plain": [1, 0]}
    run = write_run(tmp_path / "run", before=before, after=after)
    page = page_of_run(run)
    data = page.data("answers-data")
    assert data["counts"] == {
        "micro_add": {"won": 50, "lost": 10, "both right": 30, "both wrong": 10},
        "micro_plain": {"won": 0, "lost": 1, "both right": 1, "both wrong": 0},
    }
    assert "all 102 50 11 31 10" in page.words
    # The first table has the same counts, with a test.
    line = r"([-+][\d.]+) ± [\d.]+ ([-+][\d.]+) to ([-+][\d.]+) (\d+) (\d+) (< 0.0001|[\d.]+) (\d+)"
    matches = {
        name: re.search(rf"{name} [\d.]+ ± [\d.]+ [\d.]+ ± [\d.]+ {line}", page.words)
        for name in ("micro_add", "micro_plain", "AVG")
    }
    lines = {name: match.groups() for name, match in matches.items() if match}
    assert {name: (cells[0], *cells[3:]) for name, cells in lines.items()} == {
        "micro_add": ("+40.0", "50", "10", "< 0.0001", "100"),
        "micro_plain": ("-50.0", "0", "1", "1", "2"),
        "AVG": ("-5.0", "50", "11", "< 0.0001", "102"),
    }
    for gain, low, high, *_ in lines.values():
        assert float(low) <= float(gain) <= float(high)
    _, low, high, *_ = lines["AVG"]
    assert f"95 % interval: {low} to {high}" in page.words

    shown = [pair["outcome"] for pair in data["pairs"] if pair["benchmark"] == "micro_add"]
    assert {one: shown.count(one) for one in answers.OUTCOMES} == {
        "won": 12,
        "lost": 10,
        "both right": 12,
        "both wrong": 10,
    }
    for pair in data["pairs"]:
        number = int(pair["id"].split("/")[1])
        assert pair["before"]["correct"] == bool(before[pair["benchmark"]][number])
        assert pair["after"]["correct"] == bool(after[pair["benchmark"]][number])
    shown_note = f"Counts cover all 102 questions. This page holds {len(data['pairs'])} of them"
    assert shown_note in page.words


def test_gains_compare_with_the_expert_under_the_same_decoder(tmp_path: Path) -> None:
    both = {"micro_add": [0, 0, 0, 1], "micro_plain": [1, 1, 1, 0]}
    after = {"micro_add": [1, 1, 0, 1], "micro_plain": [1, 1, 0, 0]}
    page = page_of_run(write_run(tmp_path / "run", decoder="sampled", before=both, after=after))
    assert "+12.5 ± 16.5 points" in page.words
    assert re.search(r"AVG 50.0 ± [\d.]+ 62.5 ± [\d.]+ \+12.5 ± 16.5", page.words)


def test_answers_that_contradict_the_summary_are_not_shown(run: Path) -> None:
    place = run / "answers" / "tuned" / "micro_add.jsonl"
    place.write_text(place.read_text().replace("true", "false"))
    (run / "answers" / "expert" / "micro_plain.jsonl").unlink()
    page = page_of_run(run)
    assert "has 0 of 4 correct, but summary.json says 3 of 4" in page.words
    assert "micro_plain.jsonl is missing" in page.words
    assert "+50.0" in page.words  # from the summary


def test_a_large_run_s_page_stays_small(tmp_path: Path) -> None:
    names = [f"bench_{i}" for i in range(8)]
    grades = {name: [0, 1] * 60 for name in names}
    turned = {name: [1, 0] * 60 for name in names}
    prompts = {f"setting_{i}": "x" * 5_000 for i in range(2_000)}
    run = write_run(
        tmp_path / "run",
        before=grades,
        after=turned,
        settings__sampler=prompts,
        warnings=["w" * 100_000] * 30,
        stopped=None,
    )
    for who in ("expert", "tuned"):
        for name in names:
            place = run / "answers" / who / f"{name}.jsonl"
            records = [json.loads(line) for line in place.read_text().splitlines()]
            lines = [json.dumps({**one, "output": "é" * 6_000}) for one in records]
            place.write_text("\n".join(lines) + "\n")
    length = 1_500
    candidates = [[i, 0.1234, 0.2345, 1, 0.3456] for i in range(8)]
    columns = {name: ANSWER[name][:1] * length for name in ANSWER if isinstance(ANSWER[name], list)}
    long = {**ANSWER, **columns, "tokens_total": 9_000, "candidates": [candidates] * length}
    long["question"] = "q" * 100_000
    write_trajectories(run, *[long] * 12, tokens=["tokeñ" * 100] * 8)
    write_metrics(run, dict.fromkeys(range(5_000), 0.5))
    started = time.process_time()
    page = write_run_page(run)
    assert time.process_time() - started < 20
    assert MAX_PAGE_BYTES == 3_000_000
    assert page.stat().st_size < MAX_PAGE_BYTES
    shown = Page(page.read_text(encoding="utf-8"))
    answered = shown.data("reader-data")["answers"]
    assert 4 <= len(answered) < 12
    assert all(len(one["token"]) <= length for one in answered)
    assert f"shows {len(answered)} of the 12 answers in trajectories.json" in shown.words
    assert f"Long answers are truncated ({len(answered)} of those shown)." in shown.words
    pairs = shown.data("answers-data")["pairs"]
    assert 0 < len(pairs) < 8 * 2 * 12
    assert all(len(pair["before"]["output"]) <= 3_000 for pair in pairs)
    assert "more are in summary.json" in shown.words


def test_a_large_sweep_stays_small_and_links_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a sweep"
    for seed in range(3):
        write_run(folder / f"beta=0.4,seed={seed} #1?", seed=seed, sweep="micro_ablation")
    write_run(folder / "javascript:alert(1)", method="neither", sweep="micro_ablation")
    for place in ("beta=0.4,seed=1 #1?", "javascript:alert(1)"):
        write_run_page(folder / place)
    for number in range(520):
        cell = {"expert": "micro", "method": f"mine {number}", "sweep": "micro_ablation"}
        write_failed(folder / f"failed {number:03}", "no memory " * 200, **cell)
    write_metrics(_made(folder / "unfinished"), {1: 0.5})
    assert main([str(folder)]) == 0
    path = folder / "report" / "report.html"
    assert path.stat().st_size < MAX_PAGE_BYTES
    page = Page(path.read_text(encoding="utf-8"))
    assert "4 finished, 520 failed and 1 unfinished runs." in page.words
    links = {link["href"] or "" for link in page.all("a")} - {"#content"}
    links = {link for link in links if not link.startswith("#")}
    assert links == {
        "./../beta%3D0.4%2Cseed%3D1%20%231%3F/report.html",
        "./../javascript%3Aalert%281%29/report.html",
    }
    assert "no memory no memory" in page.words
    assert "more runs are not listed" in page.words
    assert "more rows are in micro_ablation.csv" in page.words


def test_a_sweep_lists_failed_and_unfinished_runs(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, sweep="main_results", **_PAPERS)
    write_failed(tmp_path / "2", "CUDA <b>out</b> of memory", expert="micro", method="neither")
    write_metrics(_made(tmp_path / "3"), {1: 0.5})
    assert main([str(tmp_path)]) == 0
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert "CUDA <b>out</b> of memory" in page.words
    assert "neither a summary nor an error" in page.words
    # Published numbers are labelled as published.
    assert {"ours", "published"} <= set(page.inside("th"))
    assert "70.6*" in page.inside("td")
    assert "Columns named published are numbers from arXiv 2510.07962" in page.words
    assert len(page.all("figure")) >= 1


_PAPERS: dict[str, Any] = {
    "expert": "qwen_math_1_5b",
    "amateur": "qwen_0_5b",
    "data": "gsm8k",
    "before": {"gsm8k": [0, 0, 1, 1]},
    "after": {"gsm8k": [0, 1, 1, 1]},
}


def test_a_run_s_own_folder_gets_a_run_page(run: Path) -> None:
    assert main([str(run)]) == 0
    page = Page((run / "report" / "report.html").read_text())
    assert "LightReasoner: expert micro, amateur micro" in page.words
    assert page.data("reader-data")["answers"]
    # The report's own folder does not count as a run, so a second report is the same.
    first = page.source
    assert main([str(run)]) == 0
    assert (run / "report" / "report.html").read_text() == first


def test_a_parent_folder_of_one_run_gets_a_sweep_page(tmp_path: Path) -> None:
    write_run_page(write_run(tmp_path / "sweep" / "cell"))
    assert main([str(tmp_path / "sweep")]) == 0
    page = Page((tmp_path / "sweep" / "report" / "report.html").read_text())
    assert "1 finished, 0 failed and 0 unfinished runs." in page.words
    assert "./../cell/report.html" in {link["href"] for link in page.all("a")}


def test_a_page_is_written_atomically(run: Path) -> None:
    place = write_run_page(run)
    assert place == run / "report.html"
    assert sorted(path.name for path in run.iterdir() if "report" in path.name) == ["report.html"]
    if os.geteuid() != 0:
        shutil.rmtree(run / "answers")
        run.chmod(0o500)
        with pytest.raises(OSError):
            write_run_page(run)
        run.chmod(0o700)


def test_markup_escapes_text() -> None:
    assert text("<&>\"'") == "&lt;&amp;&gt;&quot;&#x27;"
    assert tag(
        "p", "<b>", tag("i", "x"), None, class_="a", data_is='"', hidden=True, lang=None
    ) == ('<p class="a" data-is="&quot;" hidden>&lt;b&gt;<i>x</i></p>')
    made = embedded_json("x", {"</script>": "\u2028\ud800&é"})
    assert made == (
        '<script type="application/json" id="x">'
        '{"\\u003c/script\\u003e":"\\u2028\\ud800\\u0026é"}</script>'
    )


def test_shown_answers_are_evenly_spaced_and_tokens_renumbered(tmp_path: Path) -> None:
    many = [ANSWER | {"id": f"q/{i}"} for i in range(100)]
    write_trajectories(tmp_path, *many, tokens=[*TOKENS, "never used"])
    size = len(json.dumps(ANSWER, separators=(",", ":")))
    reading = trajectories.read(tmp_path, 10 * size)
    assert reading is not None
    numbers = [int(one["id"].split("/")[1]) for one in reading.answers]
    assert 5 <= len(numbers) <= 11
    assert numbers[0] == 0
    assert numbers[-1] > 80
    assert "never used" not in reading.data["tokens"]


def test_candidates_keep_their_texts_when_tokens_are_renumbered(tmp_path: Path) -> None:
    write_trajectories(tmp_path, ANSWER, tokens=["unused", *TOKENS], answers=[_moved(ANSWER, by=1)])
    reading = trajectories.read(tmp_path, 100_000)
    assert reading is not None
    (answer,), tokens = reading.answers, reading.data["tokens"]
    assert "unused" not in tokens
    assert [tokens[i] for i in answer["token"]] == ["1", "3", "\n"]
    assert [tokens[one[0]] for one in answer["candidates"][0]] == ["1", " 2", "3"]
    assert [one[1:] for one in answer["candidates"][0]] == [
        one[1:] for one in ANSWER["candidates"][0]
    ]


def _moved(answer: dict[str, Any], by: int) -> dict[str, Any]:
    """The answer with all token indices shifted."""
    return answer | {
        "token": [token + by for token in answer["token"]],
        "candidates": [[[one[0] + by, *one[1:]] for one in step] for step in answer["candidates"]],
    }


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(colour: str, other: str) -> float:
    low, high = sorted((_luminance(colour), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_on_every_shade(scheme: str) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3); shades are ordered by lightness."""
    style = read_file("page.css")
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", style, re.DOTALL)[:2]
    values = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6}|var\(--lr-ink\));", light))
    if scheme == "dark":
        values |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6}|var\(--lr-ink\));", dark))
    ink, muted, paper = (getattr(colour, scheme) for colour in (INK, MUTED, PAPER))
    shades = [paper, *(values[f"s{level}"] for level in range(1, 8))]
    words = [ink, *(values[f"on{level}"] for level in range(1, 8))]
    for shade, word in zip(shades, words, strict=True):
        assert _contrast(shade, ink if word.startswith("var") else word) >= 4.5, shade
    steps = [_luminance(shade) for shade in shades]
    assert steps == sorted(steps, reverse=scheme == "light")
    for name in ("accent", "good", "bad"):
        assert _contrast(values[name], paper) >= 4.5, name
    assert _contrast(muted, paper) >= 4.5
    assert _contrast(muted, values["wash"]) >= 4.5
    assert _contrast(ink, values["changed"]) >= 4.5


def test_the_page_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from lr_exp.report.page import write_run_page;"
        "write_run_page(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)  # noqa: S603
    assert len(find_runs(tmp_path).runs) == 1

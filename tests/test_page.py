"""`report.html`: its content, its safety against hostile text, its size and accessibility."""

import base64
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lr_exp.errors import UserError
from lr_exp.report.__main__ import main
from lr_exp.report.page import write_run_page
from lr_exp.report.page.render import _parts
from lr_exp.report.page.trajectories import read_trajectories
from lr_exp.report.tables.table import REMARK, Column, Table
from tests.support.html_page import Page
from tests.support.run_folders import result, write_failed, write_metrics, write_run
from tests.support.trajectories_file import (
    ANSWER,
    NASTY,
    UNSCORED,
    change_answers,
    read_compressed,
    write_compressed,
    write_hostile_run,
    write_trajectories,
)


def page_of_run(folder: Path) -> Page:
    return Page(write_run_page(folder).read_text(encoding="utf-8"))


def page_of_report(folder: Path) -> Page:
    assert main([str(folder)]) == 0
    return Page((folder / "report" / "report.html").read_text(encoding="utf-8"))


def write_whole_run(folder: Path) -> Path:
    """A finished run with all files."""
    before = {"micro_add": [0, 0, 0, 1], "micro_plain": [1, 1, 1, 0]}
    after = {"micro_add": [1, 1, 0, 1], "micro_plain": [1, 1, 0, 0]}
    extra = {"warnings": ["The gap is tiny."]}
    # A gain compares with the expert under the same decoder.
    write_run(folder, before=before, after=after, decoder="sampled", **extra)
    write_metrics(folder, {1: 0.5, 50: 0.4, 100: 0.3})
    write_trajectories(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_whole_run(tmp_path / "run")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of_run(write_whole_run(tmp_path_factory.mktemp("whole") / "run"))


def change_summary(folder: Path, **changed: Any) -> None:
    """Replaces parts of a run's summary; None removes one."""
    path = folder / "summary.json"
    new = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in new.items() if v is not None or k not in changed}))


def test_shows_the_summary(page):
    for expected in (
        "LightReasoner: expert micro, amateur micro",
        *("50.0 → 62.5 %", "+12.5 points"),  # micro_add 25 to 75, micro_plain 75 to 50
        "20.0 % (200 of 1,000)",
        "micro_add 25.0 ± 44.9 75.0 ± 44.9 +50.0 -26.3 to +93.0 2 0",
        "micro_plain 75.0 ± 44.9 50.0 ± 35.0 -25.0 -71.7 to +38.3 0 1",
        "Warning: The gap is tiny.",
        "2 answers are shown: the first ones.",
        "Steps are numbered from 1 on this page",
        "Kept steps are underlined.",
        "mechanism on tiny models",
        "distiller.learning_rate 0.0001",
        "torch 2.13.0",
        "of micro_plain",  # a fingerprint
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
    assert page.section("divergence").inside("strong") == ["Divergence and loss are in few steps"]
    assert page.section("training").inside("strong") == ["Training"]
    shown = page.data("reader-data")
    assert shown["answers"][0]["kl"] == [1.25, 0.01, None]
    assert shown["beta"] == 0.4
    assert [shown["tokens"][token] for token in shown["answers"][0]["token"]] == ["1", "3", "\n"]


def test_is_accessible_to_screen_readers_and_keyboards(page):
    assert len(page.all("h1")) == len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    identifiers = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby") in (None, *identifiers)
    for link in page.all("a"):
        assert (link["href"] or "").removeprefix("#") in identifiers
    assert len(page.all("table")) == len(page.all("caption")) > 5
    assert all(heading.get("scope") for heading in page.all("th"))
    assert all(button.get("type") == "button" for button in page.all("button"))
    assert all(image["alt"] for image in page.all("img"))
    frames = [a for _, a in page.elements if "scroll" in (a.get("class") or "").split()]
    assert frames
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in frames)
    assert [a.get("lang") for a in page.all("html")] == ["en"]
    assert any(a.get("aria-live") == "polite" for _, a in page.elements)


def test_loads_nothing_and_runs_only_its_own_script(page):
    metas = {a.get("http-equiv"): a["content"] for a in page.all("meta") if "content" in a}
    policy = metas["Content-Security-Policy"] or ""
    assert "default-src 'none'; img-src data:;" in policy
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
    others = [a for a in page.all("script") if a.get("type") != "application/gzip"]
    assert len(others) == 1
    for name, attributes in page.elements:
        assert name not in ("iframe", "object", "embed", "link", "base", "form", "svg")
        assert not {"style", "srcset"} & attributes.keys(), (name, attributes)
        assert "src" not in attributes or name == "img"  # whose source is a data URI
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in style
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # an XML namespace, never loaded


def test_hostile_text_is_shown_harmlessly(tmp_path):
    page = page_of_run(write_hostile_run(tmp_path / "run"))
    assert len(page.all("script")) == 2  # one with data, and the page's own
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028\u2029]", page.source)
    assert "<img src=x onerror=alert(1)>" in page.words  # as text
    assert r"\u202e" in page.words
    shown = page.data("reader-data")
    assert shown["tokens"][0].startswith("</script>")
    assert r"\x1b[31m\x00\u202eright" in shown["tokens"][0]
    assert r"\ud800" in shown["tokens"][0]
    assert r"\u202eabc" in shown["tokens"]
    assert "taken" in page.section("answers").words
    for blob in re.findall(r"<script type=[^>]*>(.*?)</script>", page.source, re.DOTALL):
        assert not set(blob) & set("<>&\u2028\u2029")
    # Figures are images, in which no script runs; their text is escaped as well.
    named = page_of_run(write_run(tmp_path / "named", expert="</svg><script>"))
    for image in [*page.images, *named.images]:
        assert not {one.tag.rpartition("}")[2] for one in image.iter()} & {"script", "image", "a"}
    assert any("</svg><script>" in (one.text or "") for one in named.images[0].iter())


def test_a_run_that_only_evaluated_has_no_other_sections(tmp_path):
    run = write_run(tmp_path / "run", method=None, amateur=None, evaluate__tuned={}, answers=False)
    change_summary(run, distill=None, sample=None, stages=["evaluate"])
    page = page_of_run(run)
    assert "25.0 ± 44.9" in page.words
    assert "after" not in page.inside("th")
    assert page.inside("h2") == ["Results", "Settings and provenance"]
    assert 'id="reader-data"' not in page.source
    change_summary(run, evaluate=None)
    assert "Nothing was evaluated." in page_of_run(run).words


def test_a_run_that_trained_nothing_says_why(tmp_path):
    why = "The method kept no step, so nothing was trained."
    words = page_of_run(write_run(tmp_path / "run", evaluate__tuned={}, stopped=why)).words
    assert f"Stopped after sampling: {why}" in words
    assert "tuning (no training curves)" not in words
    assert "25.0 ± 44.9" in words
    assert "a CPU dtype float32" in words


def test_an_unfinished_run_shows_its_files(tmp_path):
    write_trajectories(tmp_path / "run")
    write_metrics(tmp_path / "run", {1: 0.5, 10: 0.25})
    page = page_of_run(tmp_path / "run")
    assert page.inside("h1") == []  # the title is in a <bdi>
    for expected in (
        "LightReasoner: expert micro, amateur micro",
        "This run has not finished. It is still running or was interrupted",
    ):
        assert expected in page.words
    assert page.inside("h2") == ["Trajectory reader", "Training"]
    assert len(page.section("training").images) == 1
    assert len(page.section("training").images) == 1
    assert len(page.data("reader-data")["answers"]) == 2
    (tmp_path / "run" / "trajectories.json.gz").unlink()
    os.mkfifo(tmp_path / "run" / "trajectories.json.gz")  # reading a pipe would block
    assert page_of_run(tmp_path / "run").inside("h2") == ["Training"]


def test_imported_records_are_not_reported_as_missing(tmp_path):
    run = write_run(tmp_path / "run", method=None, amateur=None)
    assert "There is no trajectories.json.gz in the run's folder." in page_of_run(run).words
    settings = json.loads((run / "summary.json").read_text())["settings"]
    settings |= {"data": {"name": "lr_samples", "format": "lr_samples"}}
    sample = {"questions": 3, "steps": None, "kept": 9, "kl_mean": None, "kl_max": 2.0}
    change_summary(run, settings=settings, sample=sample)
    words = page_of_run(run).words
    assert "used imported records and sampled no answers" in words
    assert "There is no" not in words


def test_without_an_amateur_the_page_does_not_mention_divergences(tmp_path):
    sample: dict[str, Any] = {"questions": 20, "steps": 1000, "kept": 1000}
    alone = {"method": "gt_sft", "amateur": None, "alpha": None, "beta": None}
    run = write_run(tmp_path / "run", **alone, sample=sample)
    write_trajectories(run, UNSCORED, alpha=None, beta=None, amateur=None, method="gt_sft")
    page = page_of_run(run)
    assert "Where the models diverge" not in page.words
    for unexpected in ("scored", "D in nats", "Top-1 differs", "Wrong answers"):
        assert unexpected not in page.words, unexpected
    assert (page.data("reader-data")["scored"], page.data("reader-data")["amateur"]) == (0, 0)
    # Graded answers can be filtered for wrong ones.
    write_trajectories(run, UNSCORED | {"correct": True}, alpha=None, beta=None)
    page = page_of_run(run)
    assert "Wrong answers" in page.words
    assert "Top-1 differs" not in page.words


def test_shows_the_pair_s_expertise_gap_with_the_results(tmp_path):
    right = {"expert": 6, "amateur": 2}
    gap = {who: {"micro_add": result(correct, 10)} for who, correct in right.items()}
    gap["decoder"] = "sampled"
    line = "micro micro micro_add sampled 60.0 ± 28.7 20.0 ± 31.0 +40.0 ± 42.3 10"
    for sweep in (None, "expertise_gap", "micro_baselines"):
        folder = tmp_path / str(sweep)
        page = page_of_run(write_run(folder / "0", sweep=sweep, evaluate__gap=gap))
        assert line in page.section("results").words
        write_run(folder / "1", seed=1, sweep=sweep, evaluate__gap=gap)
        report = page_of_report(folder)
        assert line in report.words
    assert "Expertise gap" not in page_of_run(write_run(tmp_path / "none")).words


def test_a_sweep_s_page_shows_warnings_with_their_rows(tmp_path):
    for seed in (0, 1):
        tiny = {"sweep": "mine", "warnings": [f"<b>Tiny</b> gap: {seed + 1} %."]}
        write_run(tmp_path / str(seed), seed=seed, **tiny)
    write_run(tmp_path / "2", method="neither", **tiny)
    write_run(tmp_path / "3", method="gt_sft", amateur=None, sweep="mine")
    words = page_of_report(tmp_path).words
    rows = "LightReasoner of micro; likewise both removed of micro"
    assert f"Warning: <b>Tiny</b> gap: 1 %. ({rows})" in words
    assert words.count("Tiny") == 1  # the same warning with other numbers


def test_the_best_row_of_a_sweep_is_in_bold_and_in_its_head(tmp_path):
    write_run(tmp_path / "0", sweep="mine", after={"micro_add": [1, 1, 0, 0]})
    write_run(tmp_path / "1", sweep="mine", after={"micro_add": [1, 1, 1, 0]}, method="neither")
    page = page_of_report(tmp_path)
    (row,) = re.findall(r'<tr class="bold">.*?</tr>', page.source, re.DOTALL)
    assert "both removed" in row
    assert "highest average on these questions (bold) both removed of micro: 75.0" in page.words


def test_a_wide_table_is_divided_into_parts_that_repeat_its_names():
    numbers = [Column(f"measured number {i}") for i in range(12)]
    columns = [Column("variant", is_text=True), *numbers, Column(REMARK, is_text=True)]
    table = Table("t", "T", columns, [["v", *map(str, range(12)), "a remark"]], [])
    parts = _parts(table)
    assert len(parts) > 1
    assert all(part[0] == 0 for part in parts)
    assert [i for part in parts for i in part[1:]] == list(range(1, 14))  # the remark is the last
    assert _parts(replace(table, columns=columns[:3], rows=[["v", "0", "1"]])) == [[0, 1, 2]]


def test_a_sweep_s_runs_are_named_by_their_differences(tmp_path):
    shared = "data.max_questions=40,benchmarks=_micro_add,micro_plain_,distiller.steps=10"
    full = [f"beta={beta},{shared}" for beta in (0.2, 0.4)]
    for name, beta in zip(full, (0.2, 0.4), strict=True):
        write_run(tmp_path / name, beta=beta, sweep="mine")
    (tmp_path / full[1] / "summary.json").write_text("{")
    page = page_of_report(tmp_path)
    table = page.section("runs")
    assert table.inside("th")[:3] == ["state", "run", "summary"]
    assert table.inside("td")[0] == "finished"
    assert table.inside("bdi")[::2] == full
    # An unreadable summary counts as damaged, not as failed.
    assert "1 finished, 0 failed, 1 damaged and 0 unfinished runs." in page.words
    assert table.inside("td").count("damaged") == 1
    assert "failed" not in table.inside("td")


def test_the_program_writes_pages_of_failed_and_unfinished_runs(tmp_path, capsys):
    write_metrics(tmp_path / "unfinished", {1: 0.5, 10: 0.25})
    assert "This run has not finished." in page_of_report(tmp_path / "unfinished").words
    hostile = NASTY.replace("\ud800", "")
    choices = {"expert": "micro", "method": "gt_sft", "overrides": ["seed=3", f"x={hostile}"]}
    write_failed(tmp_path / "failed", hostile, **choices)
    page = page_of_report(tmp_path / "failed")
    assert "This run failed: </script>" in page.words
    assert "Command-line overrides: seed=3 x=</script>" in page.words
    assert "ground-truth SFT: expert micro" in page.words
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert "report.html" in capsys.readouterr().out


UNREADABLE = ['{"version": 1, "tok', "", "[1, 2]", "[" * 100_000, " " * 2**21]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"tokens": [', '"words": [', "tokens is missing"),
        ('"answers": [', '"x": [', "answers is missing"),
        ('"kl": [', '"kl": [0.5, ', r"answers\[0\]"),  # columns of different lengths
        ("1.25", '"<b>"', r"answers\[0\]"),
        ("1.25", "NaN", r"answers\[0\]"),
        (", 0, 0]", ", false, 0]", r"answers\[0\]"),  # whether a step was kept: 0 or 1
        ("0.1, 1, 0.9", "0.1, 0.5, 0.9", r"answers\[0\]"),  # in the mask: 0 or 1
        ("0.6,", "6.0,", r"answers\[0\]"),  # a probability
        ('"token": [0', '"token": [99', "a token id is not below the length"),
        ("[3, 0.3", "[9, 0.3", "a token id is not below the length"),  # a candidate's token
        *((None, text, r"trajectories\.json\.gz cannot be read \(") for text in UNREADABLE),
    ],
)
def test_invalid_trajectories_are_refused(tmp_path, old, new, message):
    path = write_trajectories(tmp_path)
    write_compressed(path, read_compressed(path).replace(old, new) if old else new)
    with pytest.raises(UserError, match=message):
        read_trajectories(tmp_path)


@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda _: b"{}"])
def test_trajectories_that_are_not_a_whole_gzip_file_are_refused(tmp_path, change):
    path = write_trajectories(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"trajectories\.json\.gz cannot be read \(.*gzip"):
        read_trajectories(tmp_path)


def test_a_damaged_file_affects_only_its_own_section(run):
    write_compressed(run / "trajectories.json.gz", "[1, 2]")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"family": "dist\n')
    place = run / "answers" / "tuned" / "micro_add.jsonl"
    place.write_text(place.read_text().replace("true", "false"))
    (run / "answers" / "expert" / "micro_plain.jsonl").unlink()
    page = page_of_run(run)
    assert "trajectories.json.gz cannot be read (" in page.section("reader").words
    assert 'id="reader-data"' not in page.source
    assert "metrics.jsonl cannot be read at line 4 (" in page.words
    assert len(page.section("training").images) == 1
    assert "has 0 of 4 correct answers, but summary.json has 3 of 4" in page.words
    assert "micro_plain.jsonl is missing" in page.words
    assert "+50.0" in page.section("results").words  # from the summary
    (run / "metrics.jsonl").write_bytes(b"\xff\n")
    assert "metrics.jsonl cannot be read at line 1 ('utf-8' codec" in page_of_run(run).words


def test_outcomes_are_counted_over_all_answers(tmp_path):
    before = {"micro_add": [0] * 60 + [1] * 40, "micro_plain": [1, 1]}
    after = {"micro_add": [1] * 50 + [0] * 10 + [1] * 30 + [0] * 10, "micro_plain": [1, 0]}
    run = write_run(tmp_path / "run", before=before, after=after)
    page = page_of_run(run)
    outcomes = {
        "micro_add": {"won": 50, "lost": 10, "both right": 30, "both wrong": 10},
        "micro_plain": {"lost": 1, "both right": 1},
    }
    for name, counts in outcomes.items():
        for outcome, count in counts.items():
            assert f"{name}, {outcome}: {min(12, count)} of {count}" in page.words
    # The first table has the same counts, with a test.
    line = r"([-+][\d.]+) ([-+][\d.]+) to ([-+][\d.]+) (\d+) (\d+) (< 0.0001|[\d.]+) (\d+)"
    for name, expected in {
        "micro_add": ("+40.0", "50", "10", "< 0.0001", "100"),
        "micro_plain": ("-50.0", "0", "1", "1", "2"),
        "AVG": ("-5.0", "50", "11", "< 0.0001", "102"),
    }.items():
        match = re.search(rf"{name} [\d.]+ ± [\d.]+ [\d.]+ ± [\d.]+ {line}", page.words)
        gain, low, high, *counts = match.groups()
        assert (gain, *counts) == expected
        assert float(low) <= float(gain) <= float(high)
    assert f"95 % interval: {low} to {high}" in page.words

    shown = page.section("answers")
    assert shown.inside("summary") == [
        *("micro_add, won: 12 of 50", "micro_add, lost: 10 of 10"),
        *("micro_add, both right: 12 of 30", "micro_add, both wrong: 10 of 10"),
        *("micro_plain, lost: 1 of 1", "micro_plain, both right: 1 of 1"),
    ]
    names = [text.split("/") for text in shown.inside("bdi") if "/" in text]
    won = [int(number) for _, number in names[:12]]
    assert won[0] == 0  # evenly spaced
    assert won[-1] > 40
    verdicts = [text[0] == "✓" for text in shown.inside("span") if text[:1] in ("✓", "✗")]
    for (name, number), *found in zip(names, verdicts[::2], verdicts[1::2], strict=True):
        assert found == [bool(right[name][int(number)]) for right in (before, after)]
    shown_note = f"Counts cover all 102 questions. This page holds {len(names)} of them"
    assert shown_note in page.words


def test_a_large_run_s_page_stays_small(tmp_path):
    names = [f"bench_{i}" for i in range(8)]
    before, after = (dict.fromkeys(names, turns * 30) for turns in ([0, 1, 1, 0], [1, 0, 1, 0]))
    prompts = {f"setting_{i}": "x" * 5_000 for i in range(500)}
    many = {"settings__sampler": prompts, "warnings": ["w" * 100_000] * 30, "stopped": None}
    run = write_run(tmp_path / "run", before=before, after=after, **many)
    for path in (run / "answers").rglob("*.jsonl"):
        change_answers(path, output="语" * 6_000)
    length = 940
    candidates = [[i, 0.1234, 0.2345, 1, 0.3456] for i in range(8)]
    columns = {name: ANSWER[name][:1] * length for name in ANSWER if isinstance(ANSWER[name], list)}
    long = {**ANSWER, **columns, "tokens_total": 9_000, "candidates": [candidates] * length}
    path = write_trajectories(run, *[long] * 5, tokens=["tokeñ" * 100] * 8)
    assert 1_200_000 < len(read_compressed(path)) < 1_400_000  # as large as a file can be
    write_metrics(run, {step: 0.5 + step % 7 for step in range(5_000)})
    started = time.process_time()
    page = write_run_page(run)
    assert time.process_time() - started < 20
    assert page.stat().st_size < 3_000_000
    shown = Page(page.read_text(encoding="utf-8"))
    assert len(shown.data("reader-data")["answers"]) == 5
    assert "Long answers are truncated (5 of those shown)." in shown.words
    outputs = [text for text in shown.section("answers").inside("span") if "语" in text]
    assert 0 < len(outputs) < 2 * 8 * 2 * 12
    assert all(len(text) <= 2_000 for text in outputs)


def test_a_large_sweep_stays_small_and_links_its_runs(tmp_path):
    folder = tmp_path / "a sweep"
    for seed in range(3):
        write_run(folder / f"beta=0.4,seed={seed} #1?", seed=seed, sweep="micro_ablation")
    write_run(folder / "javascript:alert(1)", method="neither", sweep="micro_ablation")
    for place in ("beta=0.4,seed=1 #1?", "javascript:alert(1)"):
        write_run_page(folder / place)
    for number in range(520):
        cell = {"expert": "micro", "method": f"mine {number}", "sweep": "micro_ablation"}
        write_failed(folder / f"failed {number:03}", "no <b>memory</b> " * 200, **cell)
    write_metrics(folder / "unfinished", {1: 0.5})
    page = page_of_report(folder)
    assert len(page.source.encode()) < 3_000_000
    assert "4 finished, 520 failed and 1 unfinished runs." in page.words
    assert {link["href"] for link in page.section("runs").all("a")} == {
        "./../beta%3D0.4%2Cseed%3D1%20%231%3F/report.html",
        "./../javascript%3Aalert%281%29/report.html",
    }
    assert "no <b>memory</b> no" in page.words
    assert len(page.section("runs").all("tr")) == 526  # and the heading


def test_a_sweep_labels_published_numbers_and_lists_unfinished_runs(tmp_path):
    graded = {"before": {"gsm8k": [0, 0, 1, 1]}, "after": {"gsm8k": [0, 1, 1, 1]}}
    models = {"expert": "qwen_math_1_5b", "amateur": "qwen_0_5b", "data": "gsm8k"}
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, sweep="main_results", **models, **graded)
    write_metrics(tmp_path / "3", {1: 0.5})
    page = page_of_report(tmp_path)
    assert "neither a summary nor an error" in page.words
    assert {"GSM8K", "GSM8K published"} <= set(page.inside("th"))
    assert "70.6*" in page.words
    assert "Columns named published are numbers from arXiv 2510.07962" in page.words
    assert page.all("figure")


def test_a_run_s_own_folder_gets_a_run_page_and_its_parent_a_sweep_page(run):
    page = page_of_report(run)
    assert "LightReasoner: expert micro, amateur micro" in page.words
    assert page.data("reader-data")["answers"]
    # The report's own folder does not count as a run, so a second report is the same.
    assert page_of_report(run).source == page.source
    write_run_page(run)
    page = page_of_report(run.parent)
    assert "1 finished, 0 failed and 0 unfinished runs." in page.words
    assert "./../run/report.html" in {link["href"] for link in page.all("a")}

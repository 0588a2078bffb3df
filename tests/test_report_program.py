"""`python -m lr_exp.report`: its files, figures, messages and exit status."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from lr_exp.report.__main__ import main
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.build import build
from lr_exp.report.figures.training import accuracy_curve
from lr_exp.report.read.runs import find_runs
from tests.support.html_page import Page
from tests.support.run_folders import (
    BETTER,
    THREE,
    everything,
    result,
    write_failed,
    write_hydra,
    write_metrics,
    write_run,
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the program; returns its exit status, stdout and stderr."""
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def _page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.mark.integration
def test_makes_all_files_and_says_where(tmp_path, call):
    first = build(everything(tmp_path / "runs")).files  # a second report is the same
    status, out, err = call(tmp_path / "runs")
    assert (status, err) == (0, "")
    made = tmp_path / "runs" / "report"
    assert {path.name: path.read_bytes() for path in made.iterdir()} == first
    assert str(made / "report.html") in out
    assert "LightReasoner" in out
    names = {path.name for path in made.iterdir()}
    for table in ("micro_ablation", "alpha_beta", "micro_expertise_gap"):
        for part in ("", "_significance", "_efficiency", "_kl_profile"):
            assert {f"{table}{part}.csv", f"{table}{part}.tex"} <= names
    figures = {
        "micro_ablation": "lorenz_curve radar accuracy_by_step entropy_by_step cost_bars",
        "alpha_beta": "map lorenz_curve",
        "micro_expertise_gap": "gain_against_gap lorenz_curve",
    }
    drawn = {f"{table}_{name}" for table, names in figures.items() for name in names.split()}
    assert {name.removesuffix(".png") for name in names if name.endswith(".png")} == drawn
    assert {name.removesuffix(".svg") for name in names if name.endswith(".svg")} == drawn
    linked = {link["href"] or "" for link in _page(made).all("a")}
    files = {name for name in names if name.endswith((".csv", ".tex"))}
    assert {name for name in linked if not name.startswith("#")} == files
    for name in drawn:
        assert (made / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        # Axes have labels, and text is stored as text.
        svg = ET.fromstring((made / f"{name}.svg").read_text())  # noqa: S314  made right here
        assert any(element.text for element in svg.iter("{http://www.w3.org/2000/svg}text"))


def test_report_can_be_read_alone(tmp_path, call):
    write_run(tmp_path / "runs" / "0", sweep="micro_ablation")
    write_run(tmp_path / "runs" / "1", seed=1, sweep="micro_ablation")
    failed = {"expert": "micro", "method": "neither", "sweep": "micro_ablation"}
    write_failed(tmp_path / "runs" / "2", "CUDA <b>out</b> of memory", **failed)
    write_metrics(tmp_path / "runs" / "3", {1: 0.5})
    write_run(tmp_path / "runs" / "4", seed=4, sweep="micro_ablation")
    (tmp_path / "runs" / "4" / "summary.json").write_text('{"method": NaN')
    status, out, _ = call(tmp_path / "runs", "--out", tmp_path / "out")
    assert status == 0
    assert "damaged: 4: summary.json cannot be read (Expecting" in out
    assert "runs: 2 finished, 1 failed, 1 damaged, 1 unfinished" in out
    text = _page(tmp_path / "out").words
    for expected in (
        "Report: runs",
        "2 finished, 1 failed, 1 damaged and 1 unfinished runs.",
        "4 summary.json cannot be read (Expecting",
        "± is the wider side of the 95 % interval",
        "exact two-sided McNemar",
        "seed 0, 1 ",
        "machine a CPU",
        "torch 2.13.0",
        "mechanism on tiny models",
        "Questions: micro_add 4.",
        "2 CUDA <b>out</b> of memory",
    ):
        assert expected in text, expected
    assert "published" not in text.lower()
    assert "unknown" not in text


def test_several_sweeps_have_a_heading_and_files_each(tmp_path, call):
    write_run(tmp_path / "a", sweep="ablation")
    write_run(tmp_path / "b", sweep="my sweep/../x", after={"micro_add": [1, 1, 1, 1]})
    write_run(tmp_path / "c", sweep=None)
    assert call(tmp_path)[0] == 0
    headings = _page(tmp_path / "report").inside("h2")
    assert headings == ["Results", "ablation", "my sweep/../x", "Runs"]
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"ablation.csv", "my_sweep_x.csv", "results.csv"} <= names
    assert "100" in (tmp_path / "report" / "my_sweep_x.csv").read_text()


def test_errors_are_one_line_and_nothing_is_written(tmp_path, call):
    def fails(folder: Path) -> str:
        status, out, err = call(folder)
        assert (status, out) == (1, "")
        assert re.fullmatch(r"error: [^\n]+\n", err)
        assert not (folder / "report").exists()
        return err

    assert "nowhere does not exist" in fails(tmp_path / "nowhere")
    write_run(tmp_path / "mixed" / "0")
    write_run(tmp_path / "mixed" / "1", seed=1, settings__distiller__steps=7)
    assert "distiller.steps is 100 in 0 and 7 in 1" in fails(tmp_path / "mixed")
    write_run(tmp_path / "sound" / "0")
    (tmp_path / "file").write_text("mine")
    status, _, err = call(tmp_path / "sound", "--out", tmp_path / "file")
    assert (status, err.startswith("error: --out")) == (1, True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_finished_runs_is_reported(tmp_path, call):
    failed = {"expert": "micro", "method": "neither", "sweep": "mine", "seed": 1}
    write_failed(tmp_path / "0", "no\nmemory", **failed)
    write_metrics(tmp_path / "1", {1: 0.5, 2: 0.4})
    write_hydra(tmp_path / "2<b>", "- seed=7\n")
    status, out, err = call(tmp_path)
    assert (status, err) == (0, "")
    assert "failed: 0: no memory" in out
    assert "runs: 0 finished, 1 failed, 2 unfinished" in out
    text = _page(tmp_path / "report").words
    assert "0 finished, 1 failed and 2 unfinished runs." in text
    assert "1 neither a summary nor an error: has metrics.jsonl; run the same" in text
    assert "2<b> neither a summary nor an error: has no results; run the same command" in text
    assert "again to resume (seed=7)" in text
    assert "both removed seed 1 failed: no memory" in text
    shutil.rmtree(tmp_path / "0")
    status, out, _ = call(tmp_path)
    assert (status, "runs: 0 finished, 0 failed, 2 unfinished" in out) == (0, True)


def test_gaps_that_disagree_cost_their_table_not_the_report(tmp_path, call):
    for seed, method in enumerate(("lightreasoner", "neither")):
        right = {"expert": 3, "amateur": 1 + seed}
        gap = {who: {"micro_add": result(n, 4)} for who, n in right.items()}
        write_run(tmp_path / method, method=method, sweep="micro_ablation", evaluate__gap=gap)
    assert call(tmp_path)[0] == 0
    text = _page(tmp_path / "report").words
    table = "Expertise gap Accuracy in % "  # a title and a note without a row between them
    assert table in text
    assert "Not shown: the expertise gap of micro and micro (greedy on micro_add)" in text


def test_a_sweep_with_only_failures_has_a_section(tmp_path, call):
    write_run(tmp_path / "0", sweep="micro_ablation")
    failed = {"expert": "micro", "method": "neither", "sweep": "micro_baselines", "seed": 1}
    write_failed(tmp_path / "1", "no memory", **failed)
    for sweep in ("micro_alpha_beta", "micro_expertise_gap"):
        write_failed(tmp_path / sweep, "no memory", **{**failed, "sweep": sweep, "beta": 0.4})
    assert call(tmp_path)[0] == 0
    page = _page(tmp_path / "report")
    assert page.inside("h2")[2] == "micro_baselines"
    assert "both removed seed 1 failed: no memory" in page.section("sweep-2").words
    assert "Questions: ." not in page.words
    assert "was not measured" not in page.words


def test_seeds_in_which_nothing_was_trained_are_in_curves_and_lists(tmp_path, call):
    curve = [{"step": 50, "results": {name: result(4, 4) for name in THREE}}]
    changed = {"before": THREE, "sweep": "micro_training_curve"}
    write_run(tmp_path / "0", after=BETTER, evaluate__curve=curve, **changed)
    write_run(tmp_path / "1", seed=1, after={}, distill=None, stopped="No step.", **changed)
    (section,) = sweeps(find_runs(tmp_path))
    (row,) = [row for row in section.rows if not row.is_baseline]
    means = {step: one.mean for step, one in accuracy_curve(row, section.benchmarks).items()}
    assert means == {0: 0.5, 50: 0.75, 100: 0.625}  # the second seed stays at 0.5
    assert call(tmp_path)[0] == 0
    text = _page(tmp_path / "report").words
    assert "seed 1; stopped: No step." in text
    assert "1 of 2 seeds: nothing trained: No step." in text
    # A row with seeds that trained nothing is drawn and compared like any other.
    made = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert "micro_training_curve_radar.png" in made


def test_runs_without_some_stages_or_newer_keys_are_reported(tmp_path, call):
    write_run(tmp_path / "0", evaluate=None, distill=None, sweep="kl_profile")
    write_run(tmp_path / "1", provenance=None, versions=None, sample={}, peak_memory_bytes=None)
    unscored = {"sample__histogram": {"bin_nats": 0.1, "counts": [0] * 50}, "sample__steps": 0}
    write_run(tmp_path / "2", sweep="one", **unscored)
    write_run(tmp_path / "3", sweep="two", **unscored)
    write_run(tmp_path / "4", sweep="two", amateur="micro_near")
    status, out, _ = call(tmp_path)
    assert status == 0
    assert "75.0 ±" in out
    assert "steps below 0.1 nats" in out
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert "kl_profile.csv" in names
    assert "kl_profile_results.csv" not in names
    drawn = {name.removesuffix("_lorenz_curve.png") for name in names if "curve.png" in name}
    assert drawn == {"kl_profile", "two"}  # a pair without a scored step has none


@pytest.mark.integration
def test_a_closed_pipe_ends_the_program_quietly_and_it_imports_no_torch(tmp_path):
    write_run(tmp_path / "runs" / "0")
    code = (
        "import sys; from lr_exp.report.__main__ import main; import lr_exp.report.build;"
        "assert 'matplotlib' not in sys.modules; status = main([sys.argv[1]]);"
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(tmp_path / "runs")],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs" / "report" / "report.html").exists()

"""Early stopping: which snapshot is kept, when training ends, and what a wrong setting says."""

from dataclasses import replace

import pytest

from lr_exp import distributed
from lr_exp.config.composition import conf_dir
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller import distill
from lr_exp.distiller.adapter_files import read_snapshots
from lr_exp.distiller.distill import best_step
from lr_exp.errors import UserError
from lr_exp.pipeline import distilling
from lr_exp.pipeline.inputs import Inputs
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.read.runs import find_runs
from tests.support.demo import go, settings_for

WORDS = (
    "data.max_questions=8",
    "distiller.steps=12",
    "distiller.snapshot_every=2",
    "distiller.schedule=constant",
    "benchmarks=[micro_add]",
    "evaluator.max_new_tokens=8",
)


def test_of_equal_scores_the_earlier_step_is_best():
    history = [{"step": 2, "score": 0.5}, {"step": 3}, {"step": 4, "score": 0.8}]
    assert best_step([*history, {"step": 6, "score": 0.8}]) == 4


@pytest.mark.integration
@pytest.mark.parametrize(
    ("scores", "patience", "trained", "best"),
    [
        ([1, 2, 2, 1, 9, 9], 2, 8, 4),  # two that are no better: the rise to 9 is not seen
        ([1, 2, 2, 1, 9, 9], 3, 12, 10),
        ([3, 2, 1, 0, 0, 0], 1, 4, 2),
        ([1, 2, 3, 4, 5, 6], 1, 12, 12),  # the last one is scored, too
    ],
)
def test_training_ends_after_patience_and_the_best_snapshot_is_kept(
    tmp_path, monkeypatch, scores, patience, trained, best
):
    given = iter(scores)
    monkeypatch.setattr(distilling, "_score", lambda _: lambda *_: float(next(given)))
    words = (*WORDS, "distiller.stop=entropy", f"distiller.stop_patience={patience}")
    summary = go(tmp_path, "run", *words, "stages=[sample,distill]")["distill"]
    assert (summary["optimizer_steps"], summary["best_step"]) == (trained, best)
    assert summary["tuned_tokens"] == 16 * trained
    folder = tmp_path / "store" / "adapter" / summary["artifact"].rpartition("/")[2]
    snapshots = dict(read_snapshots(folder))
    assert [*snapshots] == [*range(2, trained + 1, 2)]
    kept, weights = folder / "adapter", "adapter_model.safetensors"
    assert (kept / weights).read_bytes() == (snapshots[best] / weights).read_bytes()


@pytest.mark.integration
def test_a_stopped_training_whose_files_could_not_be_written_resumes_to_the_same_adapter(
    tmp_path, monkeypatch
):
    """It trained on past its end, and could not copy the best snapshot a second time."""
    given = iter([1, 2, 2, 1])  # the resumed training computes no score
    monkeypatch.setattr(distilling, "_score", lambda _: lambda *_: float(next(given)))
    words = (*WORDS, "distiller.stop=entropy", "distiller.checkpoint_seconds=0")
    with monkeypatch.context() as full_disk:
        full_disk.setattr(distill, "json_lines", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(tmp_path, "run", *words, "stages=[sample,distill]")
    summary = go(tmp_path, "run", *words, "stages=[sample,distill]")["distill"]
    assert (summary["optimizer_steps"], summary["best_step"]) == (8, 4)


@pytest.mark.integration
def test_validation_scores_questions_that_are_not_learned_from(tmp_path):
    words = (*WORDS, "distiller.stop=validation", "distiller.stop_questions=8")
    summary = go(tmp_path, "run", *words, "distiller.steps=4")
    assert summary["distill"]["best_step"] == 2  # cut after 8 tokens, no answer is right
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
    assert metrics.count('"score": 0.0') == 2
    plain = go(tmp_path, "plain", *WORDS, "distiller.steps=4", "stages=[sample,distill]")
    assert "best_step" not in plain["distill"]
    assert plain["distill"]["artifact"] != summary["distill"]["artifact"]
    tuned = [one for one in metrics.splitlines() if '"family": "eval/micro_add"' in one]
    assert ['"step": 2' in one for one in tuned].count(True) == 2  # the kept one, and its snapshot
    with pytest.raises(
        UserError, match=r"needs 8 questions besides .* 12 .* 4 are left: lower data\.max_q"
    ):
        go(tmp_path, "few", *words, "data.count=12")


def test_worked_examples_are_no_validation_questions(tmp_path):
    """The prompt would show their answers."""
    words = (*WORDS, "distiller.stop=validation", "evaluator.prompts=[few_shot_chat]")
    settings = settings_for(tmp_path, *words, "distiller.stop_questions=12")  # 24 - 8 - 4
    inputs = Inputs(settings, [conf_dir()])
    shown = {one.question for one in inputs.evaluation_prompt.examples}
    asked = {one.text for one in inputs.validation_questions}
    assert (len(shown), len(asked), shown & asked) == (4, 12, set())
    more = settings_for(tmp_path, *words, "distiller.stop_questions=13")
    with pytest.raises(UserError, match="12 are left: lower"):
        _ = Inputs(more, [conf_dir()]).validation_questions


def test_validation_in_several_processes_fails_before_anything_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    settings = settings_for(
        tmp_path, *WORDS, "distiller.stop=validation", "distiller.stop_questions=8"
    )
    with pytest.raises(UserError, match="runs in one process: start it without torchrun"):
        Inputs(settings, [conf_dir()]).check()
    Inputs(replace(settings, stages=["sample"]), [conf_dir()]).check()  # trains nothing


def test_imported_records_have_no_validation_questions(tmp_path):
    words = ("data=lr_samples", f"data.path={tmp_path / 'records.jsonl'}", "stages=[distill]")
    with pytest.raises(UserError, match="needs questions, but data=lr_samples has steps to"):
        settings_for(tmp_path, *WORDS, *words, "distiller.stop=validation")


@pytest.mark.parametrize("changed", [{}, {"snapshot_every": 15}, {"snapshot_every": 2000}])
def test_stopping_needs_snapshots_at_logged_steps(changed):
    with pytest.raises(
        UserError, match=r"distiller\.stop=entropy scores snapshots: set .* \(10; it"
    ):
        DistillerSettings(stop="entropy", **changed)
    DistillerSettings(stop="entropy", snapshot_every=20)


@pytest.mark.integration
def test_a_report_separates_criteria_and_the_page_names_the_kept_step(tmp_path, monkeypatch):
    monkeypatch.setattr(distilling, "_score", lambda _: lambda *_: 0.0)  # the first one is best
    for stop in ("entropy", "validation"):
        words = (f"distiller.stop={stop}", "distiller.stop_questions=8", "distiller.steps=4")
        go(tmp_path, f"runs/{stop}", *WORDS, *words)
    (sweep,) = sweeps(find_runs(tmp_path / "runs"))
    stops = [dict(row.setup.swept).get("distiller.stop") for row in sweep.rows]
    assert stops == [None, "entropy", "validation"]
    page = (tmp_path / "runs" / "entropy" / "report.html").read_text("utf-8")
    assert "4 made, the adapter after 2 kept" in page
    assert "2 optimizer steps at" in page

"""Reading runs for a report."""

import json
import math
import os
import re

import pytest

from lr_exp.errors import UserError
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.read.runs import find_runs
from lr_exp.report.read.summary import parse_summary
from lr_exp.store.run_folder import SUMMARY
from tests.support.run_folders import write_failed, write_hydra, write_metrics, write_run
from tests.support.trajectories_file import write_compressed


def test_finds_runs_failures_and_unfinished_folders_but_not_the_store(tmp_path):
    write_run(tmp_path / "sweep" / "0")
    for name in ("store", "report", "wandb", ".hydra"):
        write_run(tmp_path / "sweep" / name / "inside")
    write_failed(tmp_path / "sweep" / "1", "no\nmemory", seed=1, alpha=0.2)
    write_metrics(tmp_path / "sweep" / "2", {1: 0.5})
    found = find_runs(tmp_path)
    (run,), (failed,), (unfinished,) = found.runs, found.failed, found.unfinished
    assert run.name == "sweep/0"
    assert (failed.name, failed.error, failed.seed) == ("sweep/1", "no memory", 1)
    assert failed.folder == tmp_path / "sweep" / "1"
    assert (unfinished.name, unfinished.existing_files) == ("sweep/2", ("metrics.jsonl",))


@pytest.mark.parametrize("newer", ["summary.json", "failed.json"])
def test_of_a_summary_and_a_failure_the_newer_counts(tmp_path, newer):
    write_run(tmp_path / "0")
    write_run(tmp_path / "1", seed=1)
    (tmp_path / "0" / "failed.json").write_text('{"error": "no memory"}')
    for name in ("summary.json", "failed.json"):
        os.utime(tmp_path / "0" / name, (2000.0 if name == newer else 1000.0,) * 2)
    found = find_runs(tmp_path)
    assert len(found.runs) == (2 if newer == "summary.json" else 1)
    assert len(found.failed) == (0 if newer == "summary.json" else 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"method": "light', r"cannot be read \(Unterminated string"),
        ("", r"cannot be read \(Expecting value"),
        ("\xff", r"cannot be read \(it is not UTF-8: byte 0 is invalid\)"),
        ("[1, 2]", r"cannot be read \(it should be a JSON object, not \[1, 2\]\)"),
        ('{"method": null}', r"cannot be read \(expert is missing\)"),
        (f'{{"seed": {"9" * 10_000}}}', r"cannot be read \(Exceeds the limit"),
        ("[" * 100_000, r"cannot be read \(it is nested too deeply\)"),
        ("[" * 200 + "]" * 200, r"cannot be read \(it is nested too deeply\)"),
        (r'"\ud800"', r"cannot be read \("),
    ],
)
def test_a_damaged_summary_is_listed_as_a_failure_with_its_reason(tmp_path, text, reason):
    write_run(tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "summary.json").write_bytes(text.encode("latin-1"))
    found = find_runs(tmp_path)
    assert [run.name for run in found.runs] == ["0"]
    (failed,) = found.failed
    assert re.match(f"summary.json {reason}", failed.error)
    assert failed.error.endswith("Run the same command again: it rewrites the file.")
    assert len(failed.error) < 250
    assert (failed.name, failed.folder, failed.outcome) == ("1", tmp_path / "1", "damaged")


def test_a_folder_with_only_a_damaged_summary_is_an_error(tmp_path):
    path = write_run(tmp_path / "0", answers=False) / SUMMARY
    path.write_text("{")
    for finished in (True, False):
        with pytest.raises(UserError, match=re.escape(f"{path} cannot be read (Expecting")):
            find_runs(tmp_path, finished=finished)
    write_metrics(tmp_path / "0", {1: 0.5})  # a file that the report can show
    (failed,) = find_runs(tmp_path, finished=False).failed
    assert failed.existing_files == ("metrics.jsonl",)


def test_a_summary_that_is_a_link_to_nothing_or_a_pipe_is_damage(tmp_path):
    """Reading a pipe would block forever."""
    for name in "012":
        write_run(tmp_path / name)
    for name in "12":
        (tmp_path / name / "summary.json").unlink()
    (tmp_path / "1" / "summary.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "2" / "summary.json")
    found = find_runs(tmp_path)
    assert [run.name for run in found.runs] == ["0"]
    assert ["not a regular file" in one.error for one in found.failed] == [True, True]


def test_overrides_of_an_unfinished_run_are_read_from_hydras_file(tmp_path):
    write_hydra(tmp_path / "0")
    (one,) = find_runs(tmp_path, finished=False).unfinished
    assert (one.overrides, one.existing_files) == (["seed=3", "+sweep=mine"], ())
    sampled = '{"expert": "micro", "seed": 3}'
    write_compressed(tmp_path / "0" / "trajectories.json.gz", sampled)
    (one,) = find_runs(tmp_path, finished=False).unfinished
    assert (one.expert, one.seed, one.existing_files) == ("micro", 3, ("trajectories.json.gz",))


@pytest.mark.parametrize(
    "text",
    [
        "expert: [",
        "a: &a [*a]\nexpert: *a\nseed: 2000-99-99",
        "[" * 10_000,
        "!!python/object/apply:os.abort []",
    ],
)
def test_an_unreadable_hydra_file_is_ignored(tmp_path, text):
    folder = write_hydra(tmp_path / "0", text)
    write_metrics(folder, {1: 0.5})
    (one,) = find_runs(tmp_path, finished=False).unfinished
    assert one.overrides == []


@pytest.mark.parametrize("name", ["summary.json", "failed.json"])
def test_a_failed_run_without_known_settings_has_no_row(tmp_path, name):
    write_run(tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / name).write_text("{")
    (sweep,) = sweeps(find_runs(tmp_path))
    assert {row.setup.expert for row in sweep.rows} == {"micro"}
    (failed,) = find_runs(tmp_path).failed
    assert f"{name} cannot be read (Expecting" in failed.error
    assert (failed.name, failed.expert, failed.outcome) == ("1", None, "damaged")


def test_without_a_finished_run_the_error_counts_the_others(tmp_path):
    with pytest.raises(UserError, match="contains no run"):
        find_runs(tmp_path)
    write_failed(tmp_path / "a", "out of memory.")
    write_metrics(tmp_path / "b", {1: 0.5})
    with pytest.raises(UserError, match=r"1 failed, 1 unfinished; .* a: out of memory"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        find_runs(tmp_path / "nowhere")


def test_answers_are_read_by_id_and_checked_against_the_summary(tmp_path):
    folder = write_run(tmp_path / "0", after={"micro_add": [1, 0, 1]})
    run = find_runs(tmp_path).runs[0]
    right = {key: one["correct"] for key, one in run.answers("tuned", "micro_add").items()}
    assert right == {"micro_add/0": True, "micro_add/1": False, "micro_add/2": True}
    path = folder / "answers" / "tuned" / "micro_add.jsonl"
    one = '{"id": "micro_add/0", "correct": true}\n'
    for content, message in (
        (one, "1 of 1 correct answers, but summary.json has 2 of 3"),
        ("not json\n", r"cannot be read \(Expecting"),
        (None, r"0/answers/tuned/micro_add\.jsonl is missing"),
    ):
        path.unlink()
        if content:
            path.write_text(content)
        with pytest.raises(AnswersMissingError, match=message):
            run.answers("tuned", "micro_add")


def of_expert(**changed: object) -> dict[str, object]:
    result = {"accuracy": 0.5, "correct": 1, "total": 2, "stderr": 0.35}
    return {"expert": {"micro_add": result | changed}}


BY_POSITION: list[object] = [
    [],
    {"bin_tokens": 0, "steps": [1], "kept": [1]},
    {"bin_tokens": 8, "steps": [1], "kept": [2]},
    {"bin_tokens": 8, "steps": [1, 2], "kept": [1]},
    {"bin_tokens": 8, "steps": [1.5], "kept": [1]},
    {"bin_tokens": 8},
]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("warnings", [3], "warnings[0] should be a string, not 3"),
        ("seed", "zero", "seed should be an integer, not 'zero'"),
        ("seed", True, "seed should be an integer"),
        ("alpha", "0.2", "alpha should be a number"),
        ("settings", None, "settings should be a JSON object, not None"),
        ("evaluate", [1], "evaluate should be a JSON object"),
        ("evaluate", of_expert(accuracy=math.nan), "accuracy should be a finite number, not nan"),
        ("evaluate", of_expert(total=10**400), "evaluate.expert.micro_add.total should be"),
        ("evaluate", of_expert(correct=3), "correct should be at most total, not 3 of 2"),
        ("evaluate", {"tuned": {"x": {"accuracy": 0.5}}}, "evaluate.tuned.x.correct is missing"),
        *(("sample", {"by_position": value}, "sample.by_position") for value in BY_POSITION),
    ],
)
def test_an_invalid_summary_names_its_key(tmp_path, part, value, message):
    path = write_run(tmp_path / "0", **{part: value}) / SUMMARY
    with pytest.raises(UserError, match=re.escape(message)) as error:
        find_runs(tmp_path)
    assert str(path) in str(error.value)


def test_a_summary_keeps_the_keys_of_its_file_and_ignores_unknown_ones(tmp_path):
    counts = {"sample__by_position": {"bin_tokens": 8, "steps": [9, 3], "kept": [2, 0]}}
    path = write_run(tmp_path / "0", stopped=None, warnings=["Tiny gap."], **counts) / SUMMARY
    known = json.loads(path.read_text("utf-8"))
    assert parse_summary(known).to_dict() == known
    assert parse_summary({**known, "from_a_newer_version": 1}).to_dict() == known

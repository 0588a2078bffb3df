"""`python -m lr_exp.report RUN RUN`: runs compared question by question; filters and links."""

import csv
import json

import pytest

from lr_exp.report.__main__ import main
from lr_exp.store.run_folder import answers_file
from tests.support.run_folders import write_run


def rows_of(folder):
    with (folder / "comparison.csv").open() as file:
        return [*csv.DictReader(file)]


def rename_question(folder, benchmark, number, question):
    """Another question behind the same id."""
    path = folder / answers_file("tuned", benchmark, None)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number]["question"] = question
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_two_runs_worked_by_hand(tmp_path, capsys):
    """Of micro_add's four common questions, B alone answers two and A alone one."""
    one = write_run(
        tmp_path / "one",
        after={"micro_add": [1, 0, 0, 1, 1], "micro_long": [0, 0]},
        provenance__prompts={"chat, micro_add": "a", "chat, micro_long": "b"},
    )
    two = write_run(
        tmp_path / "two",
        method="sharpened",
        after={"micro_add": [0, 1, 1, 1, 0], "micro_long": [0, 1]},
        settings__distiller={"steps": 200},
        provenance__prompts={"chat, micro_add": "c", "chat, micro_plain": "d"},
    )
    rename_question(two, "micro_add", 4, "What is 2 + 2?")
    assert main([str(one), str(two)]) == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
    add, long, average = rows_of(one / "comparison")
    assert (add["questions"], add["won"], add["lost"]) == ("4", "2", "1")
    assert (add["first_accuracy"], add["other_accuracy"]) == ("50.0", "75.0")
    assert float(add["difference"]) == 25.0
    assert float(add["difference_low"]) < 0 < float(add["difference_high"])
    assert float(add["p"]) == 1.0
    assert (long["won"], long["lost"], average["won"]) == ("1", "0", "3")
    assert float(average["difference"]) == (25.0 + 50.0) / 2
    assert "left out: 1 question, not the same or not answered" in " ".join(shown.split())
    assert "for the 2 tests of this table" in " ".join(shown.split())
    with (one / "comparison" / "settings.csv").open() as file:
        differing = {row["setting"]: (row["A"], row["B"]) for row in csv.DictReader(file)}
    assert differing["distiller.steps"] == ("100", "200")
    assert differing["method.name"] == ("lightreasoner", "sharpened")
    assert "store" not in differing
    prompts = {key: both for key, both in differing.items() if "prompts" in key}
    assert prompts == {"provenance.prompts.chat, micro_add": ("a", "c")}
    page = (one / "comparison" / "report.html").read_text()
    assert "A and B side by side" in page
    assert page.count('class="pair"') == 6


def test_a_run_that_only_evaluates_is_compared_by_its_expert(tmp_path, capsys):
    one = write_run(tmp_path / "one", after={"micro_add": [1, 1, 0]}, before={"micro_add": [0] * 3})
    two = write_run(tmp_path / "two", before={"micro_add": [1, 1, 0]}, after={})
    assert main([str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    (row,) = rows_of(tmp_path / "out")
    assert (row["won"], row["lost"]) == ("0", "0")
    shown = " ".join(capsys.readouterr().out.split())
    assert "untuned expert" in shown
    assert "for the 1 test of this table" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "other"], "have no question in common: compare runs on the same benchmarks"),
        (["one", "one"], "is given twice: give different runs"),
        (["one", "sweep"], "contains 2 finished runs. To compare runs question by question, give"),
        (["one", "nowhere"], "nowhere does not exist: give the folder of a run or of a sweep"),
        (["one", "x.csv"], "x.csv is not a folder: give the folder of a run or of a sweep"),
        (["one", "no.bundle.zip"], "no.bundle.zip does not exist"),
        (["no.bundle.zip"], "no.bundle.zip does not exist"),
        (["sweep", "--where", "seed=7"], "none of its runs has seed=7. Values of seed: 0, 1."),
        (
            ["sweep", "--where", "seed=1", "beta=9"],
            "none of its runs has seed=1 and beta=9. Values of beta: 0.4.",
        ),
        (["sweep", "--where", "sed=7"], "no run has this setting. Did you mean 'seed'?"),
    ],
)
def test_bad_input_is_one_error(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "one")
    (tmp_path / "x.csv").touch()
    write_run(tmp_path / "other", before={"micro_long": [1]}, after={"micro_long": [1]})
    for seed in (0, 1):
        write_run(tmp_path / "sweep" / f"{seed}", seed=seed)
    assert main(words) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert not (tmp_path / "one" / "comparison").exists()


def test_a_filter_takes_some_of_a_folder_s_runs(tmp_path, capsys):
    """The folder mixes two numbers of optimizer steps, which no row can share."""
    for seed in (0, 1):
        write_run(tmp_path / f"long-{seed}", seed=seed, settings__distiller__steps=1000)
        write_run(tmp_path / f"short-{seed}", seed=seed)
    assert main([str(tmp_path)]) == 1
    assert "distiller.steps" in capsys.readouterr().err
    assert main([str(tmp_path), "--where", "distiller.steps=1000"]) == 0
    assert "runs: 2 finished" in capsys.readouterr().out
    assert main([str(tmp_path), "--where", "distiller.learning_rate=1e-4"]) == 1  # all of them
    assert main([str(tmp_path), "--where", "benchmarks=[micro_add]", "distiller.steps=100"]) == 0
    capsys.readouterr()
    assert main([str(tmp_path), "--where", "distiller.steps=1000", "seed=1"]) == 0
    assert "runs: 1 finished" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "1 finished with distiller.steps=1000 and seed=1" in page


@pytest.mark.parametrize("words", [["--where", "seed=0", "r/a", "r/b"], ["r", "--where", "r/a"]])
def test_a_folder_among_the_conditions_is_one_error(capsys, words):
    with pytest.raises(SystemExit):
        main(words)
    assert "r/a is not KEY=VALUE: put the folders before --where" in capsys.readouterr().err


def test_linked_runs_are_found_once(tmp_path, capsys):
    write_run(tmp_path / "runs" / "0")
    write_run(tmp_path / "elsewhere" / "1", seed=1)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "0")
    (tmp_path / "runs" / "0" / "circle").symlink_to(tmp_path / "runs")
    assert main([str(tmp_path / "runs")]) == 0
    assert "runs: 2 finished" in capsys.readouterr().out

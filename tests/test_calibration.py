"""The calibration: the oracle, what is compared with it, and planted causes that are recovered."""

import csv
from types import SimpleNamespace

import pytest

from bench.calibration import planted
from bench.calibration.__main__ import main
from bench.calibration.planted import DEFAULT, METHODS, PLANTED, benchmarks
from bench.calibration.recovery import oracle, recovery_table, states_answer
from lr_exp.micro import model_folder
from lr_exp.micro.training import Recipe
from lr_exp.report.analyse.paired import Estimate

BOX = "\\boxed{85}"
LINE = "47 + 38: 7 + 8 = 15 (note 1); 4 + 3 + 1 = 8"


def graded(output: str, *, finished: bool = True, reference: str = "85") -> dict:
    return {"output": output, "finished": finished, "reference": reference}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (graded(f"{LINE}, so 85\n{BOX}"), True),
        (graded(f"{LINE}, so 85"), True),  # without a box
        (graded(f"{LINE}, so 75\n{BOX}"), False),  # the box disagrees
        (graded(f"{LINE}, so 85\n\\boxed{{75}}"), True),
        (graded(f"{LINE}, so 75\n75 + 10: 5 + 0 = 5; 7 + 1 = 8, so 85"), True),  # the last of two
        (graded("75 + 10: 5 + 0 = 5; 7 + 1 = 8, so 85\n85 + 1: 5 + 1 = 6, so 86\n"), False),
        (graded(BOX), False),  # no statement
        (graded("", finished=False), False),
        (graded(f"{LINE}, so 85", finished=False), False),  # perhaps the start of 850
        (graded(f"{LINE}, so 85\n85 + 0: 5 + 0 = 5; 8 + 0 = 8, so 8", finished=False), True),
        (graded(f"{LINE}, so 85", reference="5"), False),
    ],
)
def test_the_oracle_reads_the_last_statement(answer, expected):
    assert states_answer(answer) is expected


def run_of(answers: dict[str, dict[str, list[tuple[bool, bool]]]]) -> SimpleNamespace:
    """Answers by model and prompt, each whether its statement is right and whether it has a box."""

    def records(who: str, benchmark: str, prompt: str) -> list[dict]:
        return [
            graded(f"{LINE}, so {85 if right else 75}\n" + BOX * boxed)
            | {"correct": right and boxed, "rule": "box" if boxed else "last"}
            for right, boxed in answers[who][prompt]
        ]

    return SimpleNamespace(prompts=["chat", "plain"], final_model="tuned", records=records)


def test_the_parts_of_the_oracle_worked_by_hand():
    yes, no, unboxed = (True, True), (False, True), (True, False)
    run = run_of(
        {
            "expert": {"chat": [no, no, unboxed, yes], "plain": [yes, yes, unboxed, yes]},
            "tuned": {"chat": [yes, no, yes, yes], "plain": [yes, no, no, no]},
        }
    )
    found = oracle([run], ["micro_add"])  # type: ignore[arg-type]
    # Right statements 2/4 -> 3/4; strictly correct 1/4 -> 3/4; with the best prompt 4/4 -> 3/4.
    assert {part: one.mean for part, one in found.items()} == {
        "latent": 0.25,
        "format": 0.25,
        "prompt": 0.5,
    }


def test_the_parts_of_a_mixture_are_the_average_over_its_benchmarks():
    yes, no, unboxed = (True, True), (False, True), (True, False)
    after = {"chat": [yes, yes], "plain": [yes, yes]}
    carry = run_of({"expert": {"chat": [no, no], "plain": [no, no]}, "tuned": after})
    form = run_of({"expert": {"chat": [yes, unboxed], "plain": [yes, yes]}, "tuned": after})

    def records(who: str, benchmark: str, prompt: str) -> list[dict]:
        return {"micro_add": carry, "micro_plain": form}[benchmark].records(who, benchmark, prompt)

    run = SimpleNamespace(prompts=carry.prompts, final_model="tuned", records=records)
    found = oracle([run], benchmarks("mixture"))  # type: ignore[list-item]
    assert {part: one.mean for part, one in found.items()} == {
        "latent": 0.5,
        "format": 0.25,
        "prompt": 0.0,
    }


def test_a_planted_value_outside_the_interval_is_marked():
    def around(mean: float) -> Estimate:
        return Estimate((mean,), 50, 0.001, (mean - 0.05, mean + 0.05))

    parts = {"latent": around(0.5), "format": around(0.0)}
    true = {"latent": around(0.56), "format": around(0.049)}
    table = recovery_table({("carry", "sharpened"): (parts, true)})
    assert [row[-2:] for row in table.rows] == [["+56.0", "NO"], ["+4.9", "yes"]]
    counts = "1 of 2 (50 %); questions: 50, seeds: 1."
    assert table.notes[0] == f"Oracle inside the interval: {counts}"
    assert table.records[0]["inside"] is False
    assert table.records[0]["measured_low"] == 45.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs=0 is out of range"),
        (["--seeds", "-1"], "--seeds=-1 is out of range"),
        (["--experts", "carry,slipp"], "--experts='slipp' is not known. Did you mean 'slip'"),
        (["evaluator.max_exampels=5"], "evaluator.max_exampels"),
        (["evaluator.force_answer=false"], "a calibration needs all stages"),
    ],
)
def test_bad_input_is_one_error(tmp_path, capsys, words, message):
    assert main(["--out", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_help_names_the_defaults_and_their_cost(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("44 minutes of CPU time", "(default: 0,1,2)", "processes (default: 2)"):
        assert text in shown
    assert f"{3 * len(DEFAULT) * len(METHODS)} runs" in shown
    assert {*DEFAULT} < {*PLANTED}


def test_a_planted_model_is_trained_once_and_depends_on_its_corpus(tmp_path, monkeypatch):
    def short(behaviour, **_):
        return Recipe(behaviour, steps=2, batch_size=2)

    monkeypatch.setattr(planted, "Training", short)
    stores = [str(tmp_path / "one"), str(tmp_path / "other")]
    first, second = (planted.build(one, "prompt", "amateur") for one in stores)
    weights = [(one / "model.safetensors").read_bytes() for one in (first, second)]
    assert weights[0] == weights[1]
    assert first.parent.name == second.parent.name
    assert planted.build(stores[0], "null", "amateur") != first
    assert planted.build(stores[0], "carry", "expert") == model_folder("expert")
    monkeypatch.setattr(planted, "train", None)  # would fail
    assert planted.build(stores[0], "prompt", "amateur") == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "lightreasner"], "--methods='lightreasner' is not known. Did you mean"),
        (["--experts", "cary"], "--experts='cary' is not known. Did you mean 'carry'?"),
        (["seed=3"], "seed=3: the calibration sets seed itself"),
        (["data.configs=[micro_add]"], "the calibration sets data.configs itself"),
    ],
)
def test_what_a_calibration_cannot_do_fails_before_a_model_is_trained(
    capsys, monkeypatch, words, message
):
    monkeypatch.setattr(planted, "run_all", None)
    assert main(words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_planted_causes_are_recovered(tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "--seeds", "0", f"store={tmp_path / 'store'}"]
    words += ["evaluator.max_examples=100", "evaluator.batch_size=100", "wandb.mode=disabled"]
    assert main(words) == 0
    shown = [one for one in capsys.readouterr().out.splitlines() if str(tmp_path) not in one]
    assert max(map(len, shown)) <= 80
    rows = [*csv.DictReader((tmp_path / "out" / "calibration.csv").read_text().splitlines())]
    assert len(rows) == len(DEFAULT) * len(METHODS) * 3
    outside = [row for row in rows if row["inside"] != "True"]
    # Of 95 % intervals, 3 of 60 may miss by chance. Latent and format are counts, not estimates.
    assert len(outside) <= 3
    assert {row["part"] for row in outside} <= {"prompt"}

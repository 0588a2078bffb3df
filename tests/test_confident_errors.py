"""Confident errors: the step rule that drops conflicts, false equations, and the probe."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from lr_exp.audit.__main__ import main
from lr_exp.audit.errors import errors_table
from lr_exp.evaluator.equations import first_false_equation
from lr_exp.report.read.summary import SampleSummary
from lr_exp.report.terminal import _sampled
from lr_exp.sampler.score import SCHEMA
from lr_exp.store.shards import write_shard
from tests.support.methods import method
from tests.support.sampling import selected, write_answers
from tests.support.tiny import tiny_tokenizer

# Probabilities of tokens 10, 11 and 12 by position: expert and amateur.
POSITIONS = [
    ([0.6, 0.4, 0.0], [0.05, 0.95, 0.0]),  # a conflict: the label confirms 10, the amateur says 11
    ([0.6, 0.4, 0.0], [0.15, 0.85, 0.0]),  # the amateur is not sure enough
    ([0.6, 0.4, 0.0], [0.95, 0.05, 0.0]),  # moving: the label prefers 11
    ([0.95, 0.05, 0.0], [0.05, 0.95, 0.0]),  # one plausible token, which the label confirms
    ([0.6, 0.4, 0.0], [0.01, 0.02, 0.97]),  # the amateur's token is not even plausible
    ([0.55, 0.25, 0.2], [0.06, 0.01, 0.93]),  # it is sure of 12, but the label prefers 11
    ([0.8, 0.1, 0.1], [0.99, 0.005, 0.005]),  # both prefer 10, and only 10 is plausible
    ([0.6, 0.4, 0.0], [0.55, 0.45, 0.0]),  # below beta
]
CONFLICTS = {0, 3, 4}


def rows(positions=POSITIONS) -> list[dict]:
    made = []
    for step, (expert, amateur) in enumerate(positions):
        order = sorted(range(3), key=lambda i: -amateur[i])
        logs = [[math.log(p) if p else -100.0 for p in one] for one in (expert, amateur)]
        support = [i for i in range(3) if expert[i]]
        made.append(
            dict.fromkeys(SCHEMA.names, 0)
            | {
                "step": step,
                "kl": sum(p * (x - y) for p, x, y in zip(expert, *logs, strict=True)),
                "expert_top1": 10 + max(range(3), key=lambda i: expert[i]),
                "amateur_top1": 10 + order[0],
                "support_ids": [10 + i for i in support],
                "support_expert": [logs[0][i] for i in support],
                "support_amateur": [logs[1][i] for i in support],
                "amateur_top_ids": [10 + i for i in order],
                "amateur_top_expert": [logs[0][i] for i in order],
                "amateur_top_amateur": [logs[1][i] for i in order],
            }
        )
    return made


def columns(positions=POSITIONS) -> dict[str, np.ndarray]:
    table = pa.Table.from_pylist(rows(positions), schema=SCHEMA)
    return {name: table[name].to_numpy() for name in SCHEMA.names}


def dropped(**settings) -> set[int]:
    keep, plain = (
        method(select=rule, **settings).select(columns())
        for rule in ("kl_no_conflict", "kl_above_beta")
    )
    assert not (keep & ~plain).any()
    return {*np.flatnonzero(plain & ~keep).tolist()}


def test_conflicts_are_confirming_labels_against_a_sure_amateur():
    assert dropped() == CONFLICTS
    assert dropped(parameters={"conflict": 0.8}) == CONFLICTS | {1}
    assert dropped(parameters={"conflict": 0.96}) == {4}


def test_only_plausible_tokens_make_a_label_moving():
    # With alpha = 0.5 token 11 is not plausible at position 5, so its label confirms token 10.
    assert dropped(alpha=0.5) == CONFLICTS | {5}


def test_dropped_conflicts_are_counted_and_shown(tmp_path):
    answers, steps = tmp_path / "answers", tmp_path / "steps"
    for folder in (answers, steps):
        folder.mkdir()
    write_answers(answers, [("a", "x" * len(POSITIONS), False)])
    write_shard(steps, 0, rows(), SCHEMA)
    with_rule = selected(answers, steps, method(select="kl_no_conflict"))
    assert with_rule.profile["conflicts"] == len(CONFLICTS)
    assert with_rule.supervision.trajectories[0].steps == [1, 2, 5, 6]
    assert "conflicts" not in selected(answers, steps, method()).profile
    sample = SampleSummary(questions=1, steps=7, kept=3, conflicts=3, seconds=1.0)
    assert "dropped 3 in conflict" in _sampled(sample)


@pytest.mark.parametrize("value", [0.4, 1.0])
def test_a_threshold_at_which_no_other_token_is_meant_is_an_error(value):
    with pytest.raises(Exception, match=r"method\.conflict=.* in \[0\.5, 1\)"):
        method(select="kl_no_conflict", parameters={"conflict": value})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("83 - 38: 13 - 8 = 6 (note 1); 8 - 3 - 1 = 4, so 46", "6"),
        ("83 - 38: 13 - 8 = 5; 8 - 3 = 5, so 55", None),  # forgets the borrow; no column is false
        ("2 + 3 * 4 = 14. Then 14 / 4 = 3.", "3"),
        ("10 / 3 = 3.33", None),  # rounded
        ("10 / 3 = 3.36", "3.36"),
        ("He pays $1,000 x 2 = $2,000 and $5 * 3 = $16.", "16"),
        (r"\(3 \times 4 = 13\)", "13"),
        ("2 + 3 = 5 + 1 = 6", None),  # the number is the start of an expression
        ("3 - 5 = -2, and 2 - 1 = 2", "2"),
        ("x + 2 + 3 = 9", None),  # the expression began earlier
        ("(2 + 3) * 4 = 20", None),
        ("2^3 + 1 = 9", None),
        ("50 / 100 = 50%", None),
        ("5 - 2 = 3 1/2", None),
        ("4 / 0 = 1", None),
        ("7 = 8", None),  # no expression
    ],
)
def test_false_equations(text, number):
    found = first_false_equation(text)
    assert (found and text[slice(*found)]) == number


def test_a_long_text_is_read_in_linear_time():
    assert first_false_equation("1 + " * 30_000 + "1 = 5") is None


def record(right: bool, has_error: bool, *parts: float) -> dict:
    named = dict(zip(("before", "at", "after"), parts, strict=True))
    return {"question_id": "q", "right": right, "has_error": has_error, **named}


def test_shares_of_the_loss_worked_by_hand():
    records = [
        record(True, False, 1.0, 0.0, 0.0),
        record(False, False, 4.0, 0.0, 0.0),
        record(False, True, 1.0, 3.0, 1.0),
    ]
    found = {one["share"]: one for one in errors_table(records).records}
    shares = {name: round(one["percent"], 1) for name, one in found.items()}
    assert shares == {
        "answers: wrong": 66.7,
        "loss: on wrong answers": 90.0,
        "wrong answers: with a false equation": 50.0,
        "right answers: with a false equation": 0.0,
        "their loss: before its number": 20.0,
        "their loss: at its number": 60.0,
        "their loss: after its number": 20.0,
    }
    assert found["their loss: at its number"]["n"] == 1
    rule = found["right answers: with a false equation"]
    assert rule["low"] == 0
    assert rule["high"] > 50  # of one answer


def test_without_a_false_equation_there_is_no_share_before_it():
    table = errors_table([record(False, False, 1.0, 0.0, 0.0)])
    assert not [one for one in table.records if "its number" in one["share"]]


@pytest.mark.integration
def test_the_probe_reads_a_run_and_trains_nothing(tmp_path, capsys):
    words = ("experiment=demo", "data.max_questions=8", "sampler.batch_size=40")
    store = tmp_path / "store"
    assert main(["--loss", *words, f"store={store}", "--out", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "errors.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 8
    assert sum(json.loads(one)["before"] for one in lines) > 1  # nats
    assert "loss: on wrong answers" in capsys.readouterr().out
    assert not (store / "adapter").exists()
    assert main(["--loss", *words, f"store={store}", "method=gt_sft"]) == 1
    assert "method=gt_sft has no soft label" in capsys.readouterr().err
    assert main(["--loss", "--positions", "5", *words, f"store={store}"]) == 1
    assert "--positions has no effect with --loss" in capsys.readouterr().err


def test_positions_at_the_false_number_are_those_of_its_tokens():
    from lr_exp.models.vocabulary import count_within

    text = "1 + 1 = 31; 2"
    tokenizer = tiny_tokenizer()  # a token a character
    start, end = (
        count_within(tokenizer, tokenizer(text)["input_ids"], one)
        for one in first_false_equation(text) or ()
    )
    assert text[start:end] == "31"

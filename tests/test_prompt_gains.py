"""Gains at the same prompt and between best prompts, worked by hand."""

import csv

import numpy as np
import pytest

import lr_exp
from lr_exp.report.__main__ import main as report
from lr_exp.report.analyse.prompts import average_gain, gains, halves_of, with_best_prompt
from tests.support.run_folders import write_run

FIRST, SECOND = False, True
HALVES = np.array([FIRST, FIRST, SECOND, SECOND])


def correct(*right: int) -> np.ndarray:
    return np.array([right], dtype=float)


def test_each_half_is_scored_with_the_prompt_that_is_best_on_the_other_half():
    """Chosen and scored on the same questions, the best of two useless prompts gains."""
    by_prompt = {"chat": correct(1, 1, 0, 0), "plain": correct(0, 0, 1, 1)}
    best, chosen = with_best_prompt(by_prompt, HALVES)
    assert chosen == ["plain", "chat"]
    assert best.tolist() == [[0, 0, 0, 0]]
    by_prompt["plain"] = correct(1, 0, 1, 1)
    best, chosen = with_best_prompt(by_prompt, HALVES)
    assert chosen == ["plain", "chat"]
    assert best.tolist() == [[1, 0, 0, 0]]
    tied = {"chat": correct(1, 0, 1, 0), "plain": correct(0, 1, 0, 1)}
    assert with_best_prompt(tied, HALVES)[1] == ["chat", "chat"]  # the headline's


def test_a_gain_that_another_prompt_also_brings_vanishes_between_the_best_prompts():
    ids = [f"q/{n}" for n in range(40)]
    nothing, everything = np.zeros((1, 40)), np.ones((1, 40))
    expert = {"chat": nothing, "plain": everything}
    tuned = {"chat": everything, "plain": everything}
    found = gains(expert, tuned, ids)
    # p = 41 / 42, q = 1 / 42: p - q = 0.9524, and 1.96 sqrt((1 - 0.9524^2) / 42) = 0.0922
    assert (found.same_prompt.gain, found.same_prompt.won, found.same_prompt.lost) == (1, 40, 0)
    assert found.same_prompt.ci95 == pytest.approx((0.8602, 1.0), abs=1e-4)
    assert found.best_prompt is not None
    assert (found.best_prompt.gain, found.best_prompt.won) == (0, 0)
    assert found.best_prompt.expert_prompts == ["plain", "plain"]
    assert found.best_prompt.tuned_prompts == ["chat", "chat"]
    low, high = found.best_prompt.ci95
    assert low < 0 < high
    assert average_gain([found.same_prompt, found.best_prompt]).mean == 0.5
    assert gains({"chat": nothing}, {"chat": everything}, ids).best_prompt is None  # of one prompt


def test_the_halves_depend_on_the_question_alone_and_have_similar_sizes():
    ids = [f"q/{n}" for n in range(1000)]
    halves = halves_of(ids)
    assert 430 < halves.sum() < 570
    assert (halves_of(ids[::-1]) == halves[::-1]).all()


def test_the_report_and_the_frame_have_every_prompt(tmp_path):
    zeros, ones = {"micro_add": [0] * 8}, {"micro_add": [1] * 8}
    for seed in (0, 1):
        write_run(
            tmp_path / f"run {seed}",
            seed=seed,
            before=zeros,
            after=ones,
            prompts={"plain": (ones, ones)},
        )
    assert report([str(tmp_path)]) == 0
    with (tmp_path / "report" / "results_prompts.csv").open(encoding="utf-8") as file:
        rows = {row["asked_with"]: row for row in csv.DictReader(file)}
    assert {name: float(row["gain"]) for name, row in rows.items()} == {
        "chat": 100,
        "plain": 0,
        "best of each": 0,
    }
    assert "Gains by prompt" in (tmp_path / "report" / "report.md").read_text("utf-8")
    answers = lr_exp.read_answers(tmp_path)
    shares = answers.groupby(["prompt", "who"])["correct"].mean().to_dict()
    assert shares[("chat", "expert")] == 0
    assert shares[("plain", "expert")] == shares[("chat", "tuned")] == 1

"""Gains at the same prompt and between best prompts, worked by hand."""

import csv

import numpy as np
import pytest

import lr_exp
from lr_exp.report.__main__ import main as report
from lr_exp.report.analyse import prompts as best_prompts
from lr_exp.report.analyse.pooled import pooled
from lr_exp.report.analyse.prompts import (
    between_best_prompts,
    gains,
    halves_of,
    with_best_prompt,
)
from lr_exp.report.read.summary import EvaluateSummary
from tests.support.run_folders import write_run

FIRST, SECOND = False, True
HALVES = np.array([[FIRST, FIRST, SECOND, SECOND]])  # one way

NONE = {"won": 0, "lost": 0}


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
    two_ways = np.array([*HALVES, [FIRST, SECOND, SECOND, SECOND]])
    best, chosen = with_best_prompt(by_prompt, two_ways)
    # The second way asks question 0 with plain, which is best on the other three, and these with
    # chat, which wins the tie on question 0.
    assert sorted(chosen) == ["chat", "plain"]
    assert best.tolist() == [[1, 0.5, 0, 0]]
    tied = {"chat": correct(1, 0, 1, 0), "plain": correct(0, 1, 0, 1)}
    assert with_best_prompt(tied, HALVES)[1] == ["chat"]  # the headline's


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
    assert found.best_prompt.expert_prompts == ["plain"]
    assert found.best_prompt.tuned_prompts == ["chat"]
    low, high = found.best_prompt.ci95
    assert low < 0 < high
    assert found.shrinkage is not None
    assert found.shrinkage.gain == 1
    assert found.shrinkage.ci95 == pytest.approx((0.8602, 1.0), abs=1e-4)
    assert gains({"chat": nothing}, {"chat": everything}, ids).best_prompt is None  # of one prompt


def test_a_seed_is_scored_with_the_prompt_that_is_best_for_the_other_seeds():
    """Of two seeds that like different prompts, each is scored with the one it does not like."""
    ones, zeros = np.ones((1, 4)), np.zeros((1, 4))
    halves = np.array([[False, False, True, True]])
    by_prompt = {"a": np.vstack([ones, zeros]), "b": np.vstack([zeros, ones])}
    best, chosen = with_best_prompt(by_prompt, halves)
    assert best.sum() == 0
    assert chosen == ["b", "a"]
    best, chosen = with_best_prompt({"a": np.vstack([ones, ones]), "b": by_prompt["b"]}, halves)
    assert best.mean() == 1
    assert chosen == ["a"]  # seed 1 is right with both: the first wins


def test_choosing_among_equal_rates_does_not_favour_methods_whose_seeds_differ():
    """With rates chosen on the reported seeds, the mean of 100 tables was 4 points too high."""
    draw, ids = np.random.default_rng(0), [f"q{n}" for n in range(60)]
    means = []
    for _ in range(100):
        right = draw.normal(0.5, 0.1, (3, 3, 1))  # a seed's share at a rate
        rates = {f"{n}": (draw.random((3, 60)) < own).astype(float) for n, own in enumerate(right)}
        means.append(with_best_prompt(rates, halves_of(ids))[0].mean())
    assert abs(np.mean(means) - 0.5) < 3 * np.std(means) / 10


def test_a_resample_repeats_the_choice_of_the_prompt():
    by_prompt = {"chat": correct(1, 1, 0, 0), "plain": correct(0, 0, 1, 1)}
    # Question 0 four times: its half is asked with the first prompt, because the other half is
    # empty and all prompts tie. Questions 0 and 2 twice: each half takes the other's wrong prompt.
    drawn = np.array([[1, 1, 1, 1], [4, 0, 0, 0], [2, 0, 2, 0]])
    assert best_prompts._best_scores(by_prompt, HALVES, drawn).tolist() == [0, 1, 0]
    assert best_prompts._best_scores(by_prompt, HALVES[:, ::-1], drawn).tolist() == [0, 1, 0]


def test_the_interval_between_best_prompts_includes_the_choice():
    """Equally good prompts, chosen once and with a fixed choice: 90 % of the intervals held."""
    rng = np.random.default_rng(0)
    covered = {"gain": 0, "shrinkage": 0}
    for trial in range(200):
        easy = rng.random(100)  # of each question, for both models
        expert, tuned = (
            {name: (rng.random((1, 100)) < (easy + shift) / 2) * 1.0 for name in "abc"}
            for shift in (0.5, 0.9)
        )
        best = between_best_prompts(expert, tuned, [f"{trial}/{n}" for n in range(100)])
        for name, truth in (("gain", 0.2), ("shrinkage", 0.0)):
            low, high = getattr(best, name).ci95
            covered[name] += low <= truth <= high
    assert covered["gain"] >= 186
    assert covered["shrinkage"] >= 186


def test_gains_of_several_seeds_have_a_t_interval_over_seeds():
    """By hand: seeds gain 0.2 and 0.4, so 0.3 with a standard error of 0.1 and t = 12.706."""
    results = {"g": {"accuracy": 0.5, "correct": 5, "total": 10}}
    evaluations = [
        EvaluateSummary.model_validate(
            {
                "expert": results,
                "tuned": results,
                "gains": {"g": {"same_prompt": {"gain": g, "ci95": [low, high], **NONE}}},
            }
        )
        for g, low, high in ((0.2, 0.1, 0.3), (0.4, 0.1, 0.5))
    ]
    found = pooled(evaluations, lambda one: one.same_prompt)
    assert [*found] == ["g"]  # one benchmark has no average
    assert found["g"].question_ci95 == pytest.approx((0.1, 0.4))
    assert (found["g"].mean, found["g"].questions) == (pytest.approx(0.3), 10)
    assert found["g"].seeds_ci95 == pytest.approx((0.3 - 1.2706, 0.3 + 1.2706), abs=1e-4)
    assert pooled(evaluations, lambda one: one.best_prompt) == {}


def test_the_halves_depend_on_the_question_alone_and_have_similar_sizes():
    ids = [f"q/{n}" for n in range(1000)]
    halves = halves_of(ids)
    assert halves.shape == (8, 1000)
    assert ((halves.sum(axis=1) > 430) & (halves.sum(axis=1) < 570)).all()
    assert 430 < (halves[0] == halves[1]).sum() < 570  # the ways are independent
    assert (halves_of(ids[::-1]) == halves[:, ::-1]).all()


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
    smaller_by = {name: row["smaller_by"] for name, row in rows.items()}
    assert smaller_by == {"chat": "", "plain": "", "best of each": "100.0"}
    assert float(rows["best of each"]["smaller_by_low"]) > 0
    assert "Gains by prompt" in (tmp_path / "report" / "report.html").read_text("utf-8")
    answers = lr_exp.read_answers(tmp_path)
    shares = answers.groupby(["prompt", "who"])["correct"].mean().to_dict()
    assert shares[("chat", "expert")] == 0
    assert shares[("plain", "expert")] == shares[("chat", "tuned")] == 1


def test_the_table_of_explanations_has_the_gain_of_the_table_of_prompts(tmp_path):
    """Prompts are chosen over all seeds together; each seed alone would prefer another one."""
    drawn = np.random.default_rng(0).integers(0, 2, (6, 2, 12)).tolist()
    before, plain, *tuned = (
        dict(zip(("micro_add", "micro_plain"), right, strict=True)) for right in drawn
    )
    for seed in (0, 1):
        after, plain_after = tuned[2 * seed : 2 * seed + 2]
        run, prompts = tmp_path / f"run {seed}", {"plain": (plain, plain_after)}
        write_run(run, seed=seed, before=before, after=after, prompts=prompts)
    assert report([str(tmp_path)]) == 0
    rows: dict[str, list[dict[str, str]]] = {}
    for kind in ("prompts", "explanations"):
        with (tmp_path / "report" / f"results_{kind}.csv").open(encoding="utf-8") as file:
            rows[kind] = [*csv.DictReader(file)]
    best = next(
        row
        for row in rows["prompts"]
        if (row["benchmark"], row["asked_with"]) == ("AVG", "best of each")
    )
    seen = next(row["seen"] for row in rows["explanations"] if row["explanation"] == "the prompt")
    gain, less = float(best["gain"]), float(best["smaller_by"])
    assert seen.startswith(f"2 prompts: {gain:+.1f} (")
    assert f"smaller by {less:+.1f} (" in seen

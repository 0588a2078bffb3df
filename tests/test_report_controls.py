"""The table of controls, from runs that differ in method, learning rate and seed."""

import json

import numpy as np
import pytest
from scipy import stats

from lr_exp.report.analyse.controls import Control, controls
from lr_exp.report.analyse.paired import t_test
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.read.run import AnswersMissingError
from lr_exp.report.read.runs import find_runs
from lr_exp.report.tables.controls import controls_table
from lr_exp.store.run_folder import answers_file, forced_file
from tests.support.run_folders import write_run

N = 40
NOTHING, EVERYTHING = [0] * N, [1] * N


def write(folder, method: str, rate: float, after: list[int], seed: int = 0, **changed) -> None:
    write_run(
        folder / f"{method} {rate} {seed}",
        method=method,
        seed=seed,
        sweep="controls",
        before={"micro_add": NOTHING},
        after={"micro_add": after},
        settings__distiller={"steps": 100, "learning_rate": rate},
        **changed,
    )


def sweep_of(folder):
    (sweep,) = sweeps(find_runs(folder))
    return sweep


def by_method(folder) -> dict[str, Control]:
    return {one.method: one for one in controls(sweep_of(folder))}


def test_each_method_is_compared_at_its_own_best_learning_rate(tmp_path):
    for rate, right in ((1e-4, NOTHING), (1e-3, EVERYTHING)):
        write(tmp_path, "lightreasoner", rate, right)
        write(tmp_path, "runner_up", rate, right[::-1])  # the same answers
    for rate, right in ((1e-4, [1] * 10 + [0] * 30), (1e-3, NOTHING)):
        write(tmp_path, "sharpened", rate, right)
    found = by_method(tmp_path)
    assert [*found] == ["lightreasoner", "sharpened", "runner_up"]
    assert {name: one.rates for name, one in found.items()} == {
        "lightreasoner": ["0.001"],
        "sharpened": ["0.0001"],
        "runner_up": ["0.001"],
    }
    assert [one.gain.mean for one in found.values()] == [1, 0.25, 1]
    assert found["lightreasoner"].against_lightreasoner is None
    assert [found[name].against_lightreasoner.mean for name in ("sharpened", "runner_up")] == [
        -0.75,
        0,
    ]
    assert found["runner_up"].p_holm is None  # of one seed
    low, high = found["runner_up"].against_lightreasoner.ci95
    assert low < 0 < high


def test_p_values_are_over_questions_and_seeds(tmp_path):
    """Holm doubles the smaller of two; a difference that varies by seed is not significant."""
    for seed in range(3):
        for rate in (1e-4, 1e-3):
            write(tmp_path, "lightreasoner", rate, EVERYTHING, seed)
            write(tmp_path, "sharpened", rate, [1] * 20 + [0] * 20, seed)
            write(tmp_path, "runner_up", rate, [1] * 20 + [seed > 0] * 20, seed)
    found = by_method(tmp_path)
    same, varied = (found[name].against_lightreasoner for name in ("sharpened", "runner_up"))
    variance = ((same.question_ci95[1] - same.question_ci95[0]) / 2 / 1.96) ** 2
    assert same.seed_variance == 0
    expected = 2 * stats.t.sf(0.5 / variance**0.5, N - 1)
    assert t_test(same) == pytest.approx(expected)
    assert found["sharpened"].p_holm == pytest.approx(2 * expected)
    assert varied.mean == pytest.approx(-1 / 6)
    assert found["runner_up"].p_holm > 0.3


def test_choosing_among_learning_rates_that_teach_nothing_gains_nothing(tmp_path):
    """The best of five on the questions that it is scored on would gain about 9 points."""
    draw = np.random.default_rng(0)
    for rate in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3):
        right = draw.integers(2, size=N).tolist()
        write(tmp_path, "lightreasoner", rate, right)
        write(tmp_path, "sharpened", rate, right)
    gain = by_method(tmp_path)["lightreasoner"].gain.mean
    assert abs(gain - 0.5) < 0.05


def test_seeds_that_lack_a_learning_rate_are_not_compared(tmp_path):
    for rate in (1e-4, 1e-3):
        for seed in (0, 1):
            write(tmp_path, "lightreasoner", rate, EVERYTHING, seed)
            if (rate, seed) != (1e-3, 1):
                write(tmp_path, "sharpened", rate, NOTHING, seed)
    assert [*by_method(tmp_path)] == ["lightreasoner"]


def test_the_parts_of_a_gain_are_those_of_the_chosen_learning_rate(tmp_path):
    """Untuned: half of the answers are right, all of them unboxed. Tuned: all boxed, as right."""
    half = [1, 0] * (N // 2)
    for method in ("lightreasoner", "sharpened"):
        for rate, right in ((1e-4, NOTHING), (1e-3, half)):
            forced = {"force_answer": True, "max_new_tokens": 2048, "decoder": "greedy"}
            write(tmp_path, method, rate, right, settings__evaluator=forced)
            folder = tmp_path / f"{method} {rate} 0"
            for who, boxed, correct in (("expert", False, NOTHING), ("tuned", True, right)):
                lines = [
                    {"id": f"micro_add/{i}", "correct": bool(r), "finished": True}
                    | {"rule": "box" if boxed else "last"}
                    for i, r in enumerate(correct)
                ]
                text = "".join(json.dumps(line) + "\n" for line in lines)
                (folder / answers_file(who, "micro_add", None)).write_text(text)
                made = (
                    []
                    if boxed
                    else [line | {"correct": bool(r)} for line, r in zip(lines, half, strict=True)]
                )
                place = folder / forced_file(who, "micro_add")
                place.parent.mkdir(parents=True)
                place.write_text("".join(json.dumps(line) + "\n" for line in made))
    found = by_method(tmp_path)["lightreasoner"]
    assert found.rates == ["0.001"]
    assert (found.latent.mean, found.format.mean) == (0, 0.5)
    table = controls_table(sweep_of(tmp_path), "controls")
    row = dict(zip([column.title for column in table.columns], table.rows[0], strict=True))
    assert row["method"] == "LightReasoner"
    assert row["latent"].startswith("+0.0 (-")
    assert row["format"].startswith("+50.0 (")
    assert table.records[1]["p_holm"] is None  # of one seed
    assert "was tried: LightReasoner" in table.notes[1]


def test_damaged_forced_answers_are_missing_answers(tmp_path):
    forced = {"force_answer": True, "max_new_tokens": 2048, "decoder": "greedy"}
    write(tmp_path, "lightreasoner", 1e-4, NOTHING, settings__evaluator=forced)
    (run,) = find_runs(tmp_path).runs
    place = run.folder / forced_file("tuned", "micro_add")
    place.parent.mkdir(parents=True)
    place.write_text('{"id": "micro_add/0"}\n')
    with pytest.raises(AnswersMissingError, match=r"forced.* cannot be read"):
        run.forced_records("tuned", "micro_add")


def test_a_sweep_with_one_learning_rate_has_no_such_table(tmp_path):
    write(tmp_path, "lightreasoner", 1e-4, EVERYTHING)
    write(tmp_path, "sharpened", 1e-4, NOTHING)
    assert controls_table(sweep_of(tmp_path), "controls") is None

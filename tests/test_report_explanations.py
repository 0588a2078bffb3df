"""Which explanations of a gain a report tests: nothing counts as tested that was not."""

import csv
from pathlib import Path
from typing import Any

from lr_exp.report.__main__ import main
from lr_exp.report.page import write_run_page
from tests.support.run_folders import result, write_run

PART = {"ci95": [0.1, 0.3], "won": 2, "lost": 0}


def explanations(folder: Path) -> dict[str, tuple[str, str]]:
    """The verdict and what was seen, by explanation."""
    assert main([str(folder)]) == 0
    with (folder / "report" / "results_explanations.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    return {row["explanation"]: (row["tested here"], row["seen"]) for row in rows}


def gains(latent: float, form: float) -> dict[str, Any]:
    """Gains of a run on one benchmark, with forced answers."""
    parts = {"strict": latent + form, "latent": latent, "format": form}
    return {
        "same_prompt": {"gain": 0.5, **PART},
        "decomposition": {name: {"gain": gain, **PART} for name, gain in parts.items()}
        | {"won_from": {}, "lost_to": {}},
    }


def test_the_budget_is_that_of_a_seed_that_trained(tmp_path):
    both = {"before": {"gsm8k": [0, 1]}, "after": {"gsm8k": [1, 1]}}
    stopped = {"after": {}, "distill": None, "stopped": "No step."}
    write_run(tmp_path / "0", seed=0, **{**both, **stopped})
    write_run(tmp_path / "1", seed=1, **both)
    seen = explanations(tmp_path)["learning rate and budget"][1]
    assert seen.startswith("100 optimizer steps at")


def test_a_plain_run_tests_almost_nothing(tmp_path):
    cut = {"truncated": 1, "boxed": 2, "strict_accuracy": 0.25}
    write_run(
        tmp_path / "run",
        before={"gsm8k": [0, 0, 0, 1]},
        after={"gsm8k": [1, 1, 0, 1]},
        evaluate__expert={"gsm8k": {**result(1, 4), **cut}},
    )
    found = explanations(tmp_path)
    assert found["the prompt"] == ("no", "one prompt")
    assert found["ending and boxing answers"] == (
        "partly",
        "boxed 50.0 → 0.0 %, strictly correct 25.0 → 0.0 %",
    )
    assert found["the token limit"] == ("partly", "25.0 → 0.0 % of the answers cut off")
    assert found["answers that the expert samples already"][0] == "no"
    assert found["luck of the seed"] == ("no", "1 seed")
    verdict, seen = found["benchmarks in the training data"]
    assert (verdict, seen.partition(";")[0]) == ("no", "0 of 1 benchmarks are generated")
    assert found["any sharpening, without the amateur"] == ("no", "–")  # noqa: RUF001
    second = "the expert's second choice, whatever the amateur says"
    assert found[second] == ("no", "–")  # noqa: RUF001
    assert found["learning rate and budget"] == ("no", "100 optimizer steps at 0.0001")
    assert found["this pair of models only"] == ("no", "1 pair")
    text = write_run_page(tmp_path / "run").read_text("utf-8")
    assert "What could explain this gain" in text
    assert "twice evaluator.max_new_tokens" in text


def test_a_sweep_tests_what_its_runs_vary(tmp_path):
    before = {"micro_add": [0, 0, 0, 0], "svamp": [0, 0, 0, 0]}
    after = {"micro_add": [1, 1, 0, 0], "svamp": [1, 1, 0, 0]}
    controls = {"no_contrast": [1, 0, 0, 0], "random_steps": [0, 0, 0, 0]}
    for seed in range(3):
        shared: dict[str, Any] = {"seed": seed, "before": before}
        shared["evaluate__generated"] = ["micro_add"]
        write_run(
            tmp_path / f"ours {seed}",
            after=after,
            prompts={"plain": (before, after)},
            evaluate__gains=dict.fromkeys(before, gains(0.3 + 0.1 * seed, 0.1)),
            **shared,
        )
        for method, right in controls.items():
            of_control = dict.fromkeys(before, gains(0.9, 0.0))
            write_run(
                tmp_path / f"{method} {seed}",
                method=method,
                after=dict.fromkeys(before, right),
                prompts={"plain": (before, after)},
                evaluate__gains=of_control,
                **shared,
            )
    found = explanations(tmp_path)
    verdict, seen = found["the prompt"]
    assert verdict == "yes"
    # LightReasoner's alone, whose prompts are equally good.
    assert seen.startswith("2 prompts: +50.0 (")
    assert ") between each model's best, smaller by +0.0 (" in seen
    verdict, seen = found["ending and boxing answers"]
    assert (verdict, seen.count("(")) == ("yes", 2)
    assert seen.startswith("latent +40.0 (")
    assert ", format +10.0 (" in seen
    assert found["the token limit"] == ("yes", "0.0 → 0.0 % of the answers cut off")
    assert found["luck of the seed"] == ("yes", "3 seeds")
    verdict, seen = found["benchmarks in the training data"]
    assert (verdict, seen.partition(";")[0]) == ("partly", "1 of 2 benchmarks are generated")
    verdict, seen = found["any sharpening, without the amateur"]
    assert verdict == "partly"
    assert seen.startswith("LightReasoner +50.0 (")
    assert "; without contrast +25.0 (" in seen
    assert "; random steps +0.0 (" in seen


def test_a_control_at_several_learning_rates_tests_an_explanation(tmp_path):
    for method in ("lightreasoner", "runner_up"):
        for rate in (1e-4, 1e-3):
            tuning = {"steps": 100, "learning_rate": rate}
            write_run(tmp_path / f"{method} {rate}", method=method, settings__distiller=tuning)
    found = explanations(tmp_path)
    verdict, seen = found["the expert's second choice, whatever the amateur says"]
    assert (verdict, seen) == ("yes", "LightReasoner +50.0; expert's second choice +50.0")
    assert found["what the expert does with another prompt"][0] == "no"
    expected = ("partly", "100 optimizer steps at 0.0001, 0.001")
    assert found["learning rate and budget"] == expected


def test_two_pairs_and_two_seeds_are_tested_in_part(tmp_path):
    for amateur in ("micro", "micro_master"):
        for seed in range(2):
            write_run(tmp_path / f"{amateur} {seed}", amateur=amateur, seed=seed)
    found = explanations(tmp_path)
    assert found["this pair of models only"] == ("partly", "2 pairs")
    assert found["luck of the seed"] == ("partly", "2 seeds")


def test_without_a_gain_there_is_nothing_to_explain(tmp_path):
    write_run(tmp_path / "run", evaluate=None)
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / "report" / "results_explanations.csv").exists()


def test_samples_of_the_untuned_expert_are_counted_over_runs(tmp_path):
    share = {"share": 0.5, "stderr": 0.1, "ci95": [0.2, 0.8], "total": 4}
    sampled = {"avg": share, "pass_at": {"1": share, "2": share}, "maj": share}
    for seed, had_right in enumerate((3, 1)):
        covered = {"won": 4, "had_right": had_right, "both_wrong": 0, "both_wrong_had_right": 0}
        samples = {
            "samples": 2,
            "temperature": 1.0,
            "expert": {"gsm8k": sampled},
            "coverage": {"gsm8k": covered},
        }
        write_run(tmp_path / str(seed), seed=seed, evaluate__samples=samples)
    assert explanations(tmp_path)["answers that the expert samples already"] == (
        "yes",
        "the untuned expert has a correct sample for 4 of 8 (50 %) questions won",
    )

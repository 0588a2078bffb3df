"""Claims as data, their estimates and verdicts, and the plan of a sweep."""

import shutil
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest
import yaml

from lr_exp.claims.__main__ import main
from lr_exp.claims.declared import SHIPPED, WORLDS, Claim, read_claims
from lr_exp.claims.judge import judge, overall, verdict_of
from lr_exp.claims.plan import DISCORDANT, SPREAD, detectable
from lr_exp.claims.table import judged
from lr_exp.config.composition import conf_dir
from lr_exp.config.options import read_option
from lr_exp.report import published
from lr_exp.report.analyse.compare import compare
from lr_exp.report.analyse.controls import controls
from lr_exp.report.analyse.paired import difference
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.read.runs import find_runs
from tests.support.run_folders import result, write_run

N = 100
T = {2: 4.302653}  # 97.5 % quantiles of Student's t


def right(count: int) -> dict[str, list[int]]:
    """The first `count` of N questions are right."""
    return {"micro_add": [1] * count + [0] * (N - count)}


def write(folder: Path, count: int, seed: int = 0, **changed) -> None:
    changed = {"method": "lightreasoner", "sweep": "mine", "before": right(10), **changed}
    names = [str(changed[key]) for key in ("method", "amateur", "expert") if key in changed]
    rate = changed.get("settings__distiller", {}).get("learning_rate", "")
    write_run(folder / f"{names} {seed} {rate}", after=right(count), seed=seed, **changed)


def claim(kind: str, test: str, margin: float, **changed) -> Claim:
    needed = {"theirs": {"method": "no_contrast"}} if kind in ("difference", "ratio") else {}
    values = {"claim": "It is so.", "source": "here", "micro": "mine", **needed}
    values |= {"ours": {"method": "lightreasoner"}, "kind": kind, "test": test, "margin": margin}
    return Claim.model_validate(values | changed)


def found(one: Claim, folder: Path, world: str = "micro"):
    (sweep,) = sweeps(find_runs(folder))
    return judge(one, world, sweep)


def verdict(one: Claim, folder: Path) -> str:
    return overall(found(one, folder))


@pytest.mark.parametrize(
    ("test", "supported", "refuted", "underpowered"),
    [
        ("superior", (2.1, 9), (-3, 1.9), (1.9, 9)),
        ("not_worse", (-1.9, 9), (-9, -2.1), (-2.1, 9)),
        ("equivalent", (-1.9, 1.9), (2.1, 9), (-1.9, 2.1)),
        ("equivalent", (-2, 2), (-9, -2.1), (-9, 9)),
        ("at_most", (0, 2), (2.1, 2.2), (1, 2.1)),
    ],
)
def test_the_rule_worked_by_hand(test, supported, refuted, underpowered):
    kind, more = ("ratio", {"cost": "hours"}) if test == "at_most" else ("difference", {})
    region = claim(kind, test, 2, **more).region
    assert verdict_of(supported, region) == "supported"
    assert verdict_of(refuted, region) == "refuted"
    assert verdict_of(underpowered, region) == "underpowered"


def test_a_difference_is_that_of_the_report_worked_by_hand(tmp_path):
    write(tmp_path, 60)
    write(tmp_path, 20, method="no_contrast")
    (one,) = found(claim("difference", "superior", 2), tmp_path)
    # 40 won and 0 lost, with one more of each of N + 2.
    p, q = 41 / 102, 1 / 102
    half = 1.96 * sqrt((p + q - (p - q) ** 2) / 102)
    assert one.value == pytest.approx(40)
    assert (one.low, one.high) == pytest.approx((100 * (p - q - half), 100 * (p - q + half)))
    (sweep,) = sweeps(find_runs(tmp_path))
    pair = next(pair for pair in compare(sweep).pairs if not pair.theirs.is_baseline)
    assert (one.low, one.high) == pytest.approx(
        tuple(-100 * e for e in pair.overall.difference.ci95)[::-1]
    )


def test_the_gain_is_a_difference_against_the_baseline(tmp_path):
    write(tmp_path, 60)
    (one,) = found(claim("difference", "superior", 2, theirs={"method": "baseline"}), tmp_path)
    (sweep,) = sweeps(find_runs(tmp_path))
    assert (one.low, one.high) == pytest.approx(
        tuple(100 * end for end in sweep.rows[-1].gain.ci95)
    )


@pytest.mark.parametrize(
    ("counts", "test", "expected"),
    [
        ((60, 20), "superior", "supported"),
        ((20, 60), "superior", "refuted"),
        ((22, 20), "superior", "underpowered"),
        ((60, 20), "not_worse", "supported"),
        ((20, 60), "not_worse", "refuted"),
        ((20, 20), "not_worse", "underpowered"),  # one question of 102 more or less: +- 2.8 points
        ((60, 20), "equivalent", "refuted"),
        ((20, 20), "equivalent", "underpowered"),
    ],
)
def test_differences_are_judged_each_of_three_ways(tmp_path, counts, test, expected):
    write(tmp_path, counts[0])
    write(tmp_path, counts[1], method="no_contrast")
    assert verdict(claim("difference", test, 2), tmp_path) == expected
    if counts == (20, 20):  # with a margin above 2.8 points, the same answers are equivalent
        assert verdict(claim("difference", test, 3), tmp_path) == "supported"


def test_seeds_widen_a_difference_worked_by_hand(tmp_path):
    for seed, count in enumerate((50, 60, 70)):
        write(tmp_path, count, seed)
        write(tmp_path, 20, seed, method="no_contrast")
    (one,) = found(claim("difference", "superior", 2), tmp_path)
    seeds = T[2] * 10 / sqrt(3)
    p, q = 41 / 102, 1 / 102  # 40 questions won, averaged over seeds
    middle, half = 100 * (p - q), 196 * sqrt((p + q - (p - q) ** 2) / 102)
    below = sqrt((middle - half - 40) ** 2 + seeds**2)
    assert (one.value, one.low, one.seeds) == pytest.approx((40, 40 - below, 3))


def write_pair(folder: Path, amateur: str, gap: int, count: int, seed: int = 0) -> None:
    gaps = {"expert": {"micro_add": result(50, N)}, "amateur": {"micro_add": result(50 - gap, N)}}
    write(folder, count, seed, amateur=amateur, evaluate__gap={"decoder": "greedy", **gaps})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((80, 60, 10), "supported"), ((10, 30, 60), "refuted"), ((30, 20, 28), "underpowered")],
)
def test_a_slope_has_the_sign_of_least_squares_worked_by_hand(tmp_path, counts, expected):
    gaps = (30, 20, -20)
    for name, gap, count in zip("abc", gaps, counts, strict=True):
        write_pair(tmp_path, f"micro_{name}", gap, count)
    (one,) = found(claim("slope", "superior", 2), tmp_path)
    # Distances from the mean gap of 10 are 20, 10 and -30: weights 2/3, 1/3 and -1.
    assert one.value == pytest.approx((2 * counts[0] + counts[1]) / 3 - counts[2])
    assert np.sign(one.value) == np.sign(np.polyfit(gaps, counts, 1)[0])
    wide = np.array([(2 * (i < counts[0]) + (i < counts[1])) / 3 for i in range(N)])
    narrow = np.array([float(i < counts[2]) for i in range(N)])
    expectation = difference(wide[None], narrow[None]).ci95
    assert (one.low, one.high) == pytest.approx(tuple(100 * end for end in expectation))
    assert one.verdict == expected


def test_a_slope_needs_two_gaps_and_the_same_seeds(tmp_path):
    write_pair(tmp_path / "one", "micro_a", 10, 20)
    (one,) = found(claim("slope", "superior", 2), tmp_path / "one")
    assert (one.verdict, one.value) == ("not judged", None)
    assert "two pairs" in one.reason
    write_pair(tmp_path / "two", "micro_a", 10, 20)
    for seed in (0, 1):
        write_pair(tmp_path / "two", "micro_b", 20, 20, seed)
    (one,) = found(claim("slope", "superior", 2), tmp_path / "two")
    assert "numbers of seeds on micro_add" in one.reason


def write_costs(folder: Path, ours: list[float], theirs: list[float], key: str) -> None:
    for seed, pair in enumerate(zip(ours, theirs, strict=True)):
        for method, value in zip(("lightreasoner", "no_contrast"), pair, strict=True):
            write(folder, 20, seed, method=method, **{f"distill__{key}": value})


def test_counts_are_judged_at_their_ratio(tmp_path):
    write_costs(tmp_path, [20], [1000], "tuned_tokens")
    for margin, expected in ((2, "supported"), (1.9, "refuted")):
        one = claim("ratio", "at_most", margin, cost="tuned_tokens")
        (judged_one,) = found(one, tmp_path)
        assert (judged_one.value, judged_one.low, judged_one.high) == (2, 2, 2)
        assert judged_one.verdict == expected


def test_times_are_judged_over_seeds_worked_by_hand(tmp_path):
    # Sampling takes 3 s everywhere: 5, 6 and 7 s against 60 s each.
    write_costs(tmp_path, [2.0, 3.0, 4.0], [57.0, 57.0, 57.0], "seconds")
    half = T[2] * (100 / 60) / sqrt(3)
    for margin, expected in ((15, "supported"), (10, "underpowered"), (5, "refuted")):
        (one,) = found(claim("ratio", "at_most", margin, cost="hours"), tmp_path)
        assert (one.value, one.low, one.high) == pytest.approx((10, 10 - half, 10 + half), rel=1e-5)
        assert one.verdict == expected
    write_costs(tmp_path / "single", [2.0], [57.0], "seconds")
    (one,) = found(claim("ratio", "at_most", 90, cost="hours"), tmp_path / "single")
    assert (one.low, one.high, one.verdict) == (0, inf, "underpowered")


@pytest.mark.parametrize(
    ("count", "expected"), [(70, "supported"), (20, "refuted"), (41, "underpowered")]
)
def test_controls_are_those_of_the_reports_table(tmp_path, count, expected):
    for rate in (1e-4, 1e-3):
        for method, own in (("lightreasoner", 40), ("sharpened", count)):
            write(tmp_path, own, method=method, settings__distiller={"learning_rate": rate})
    (one,) = found(claim("control", "not_worse", 2, ours={"method": "sharpened"}), tmp_path)
    (sweep,) = sweeps(find_runs(tmp_path))
    shown = controls(sweep)[1].against_lightreasoner
    assert (one.low, one.high) == pytest.approx(tuple(100 * end for end in shown.ci95))
    assert one.verdict == expected
    (one,) = found(claim("control", "not_worse", 2, ours={"method": "runner_up"}), tmp_path)
    assert one.verdict == "not judged"


def test_a_claim_is_about_every_expert(tmp_path):
    for expert, count in (("micro", 60), ("micro_b", 61)):
        for method, own in (("lightreasoner", count), ("no_contrast", 20)):
            write(tmp_path, own, expert=expert, method=method)
    one = claim("difference", "superior", 2)
    assert verdict(one, tmp_path) == "supported"
    write(tmp_path, 40, expert="micro_c")  # without the other method
    assert verdict(one, tmp_path) == "not judged"
    for method, own in (("lightreasoner", 20), ("no_contrast", 60)):
        write(tmp_path, own, expert="micro_d", method=method)
    assert verdict(one, tmp_path) == "refuted"
    assert overall([]) == "no runs"


def test_micro_models_do_not_answer_a_claim_about_real_ones(tmp_path):
    for method, own in (("lightreasoner", 60), ("no_contrast", 20)):
        write(tmp_path, own, method=method)
    one = claim("difference", "superior", 2, real="mine")
    assert len(found(one, tmp_path, "micro")) == 1
    assert found(one, tmp_path, "real") == []
    for method, own in (("lightreasoner", 60), ("no_contrast", 20)):
        choices = {"expert": "qwen_math_1_5b", "amateur": "qwen_0_5b", "method": method}
        after = {"gsm8k": next(iter(right(own).values()))}
        folder = tmp_path / "real" / method
        write_run(folder, sweep="mine", before={"gsm8k": [0] * N}, after=after, **choices)
    assert len(found(one, tmp_path / "real", "real")) == 1
    assert found(one, tmp_path / "real", "micro") == []


def test_the_program_prints_verdicts_numbers_and_missing_runs(tmp_path, capsys):
    for seed in range(3):
        for method, own in (("lightreasoner", 80), ("no_selection", 60), ("no_contrast", 20)):
            write(tmp_path / "runs", own, seed, method=method, sweep="micro_ablation")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    out, place = capsys.readouterr().out.split("All numbers: ")
    assert place == f"claims.csv in {tmp_path / 'out'}\n"
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert lines["contrast_over_selection"] == ["supported", "no", "runs"]
    assert lines["a_fifth_of_the_problems"][0] == "–"  # noqa: RUF001
    assert "+40.0 (+29.4 to +49.1)" in out
    assert "if all 2 true values" in " ".join(out.split())  # without rejection SFT
    assert "a_hundredth_of_the_tokens of micro: 0 rows have method rejection_sft;" in " ".join(
        out.split()
    )
    assert "micro_equal_work (few_tokens_suffice, positions_matter)" in " ".join(out.split())
    csv = (tmp_path / "out" / "claims.csv").read_text("utf-8").splitlines()
    assert csv[0].startswith("claim,world,sweep,expert,verdict,value,low,high,seeds")
    assert "contrast_over_selection,micro world,micro_ablation,micro,supported,40.0" in csv[5]


def test_a_note_says_how_a_sweep_was_changed(tmp_path):
    def notes(folder, seeds, *words):
        for seed in seeds:
            cell = ["+sweep=micro_ablation", "experiment=micro_tables", f"seed={seed}"]
            for method in ("lightreasoner", "no_selection"):
                ran = [*cell, f"method={method}", "wandb.mode=disabled", *words]
                sweep = "micro_ablation"
                write(folder, 60, seed, method=method, sweep=sweep, settings__overrides=ran)
        return judged(read_claims(SHIPPED), [folder]).notes

    text = "\n".join(notes(tmp_path / "one", [1], "distiller.steps=9", "evaluator.max_examples=5"))
    assert (
        "micro_ablation did not run as in its file: distiller.steps=9, evaluator.max_examples=5, "
        "seed=1." in text
    )
    assert "one seed: the intervals do not cover other training runs" in text
    text = "\n".join(notes(tmp_path / "own", [0, 1, 2]))
    assert "did not run" not in text
    assert "one seed" not in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"margn": 2}, "gain.margn"),
        ({"kind": "mean"}, "gain.kind"),
        ({"margin": -1}, "gain.margin"),
        ({"test": "at_most"}, "gain: kind: ratio needs"),
        ({"theirs": {}}, "gain: kinds difference and ratio need theirs"),
        ({"ours": {"methd": "lightreasoner"}}, "gain.ours.methd"),
        ({"ours": {"method": {"real": "lightreasoner"}}}, "gain: a sweep is needed"),
    ],
)
def test_an_invalid_claim_is_one_error(tmp_path, capsys, monkeypatch, changed, message):
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)
    path = tmp_path / "mine.yaml"
    values = claim("difference", "superior", 2).model_dump(exclude_none=True) | changed
    path.write_text(yaml.safe_dump({"gain": values}), "utf-8")
    assert main([str(tmp_path), "--claims", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {message}")
    assert error.count("\n") == 1


def test_claims_without_runs_are_one_error(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)
    write(tmp_path / "runs", 20)
    assert main([str(tmp_path / "runs")]) == 1
    assert "no claim can be judged: " in capsys.readouterr().err
    (tmp_path / "empty.yaml").write_text("{}")
    assert main([str(tmp_path / "runs"), "--claims", str(tmp_path / "empty.yaml")]) == 1
    assert "has no claims" in capsys.readouterr().err


def test_the_shipped_claims_are_about_rows_of_their_sweeps():
    claims = read_claims(SHIPPED)
    assert read_claims(Path(__file__).parents[1] / "docs/claims.yaml") == claims
    for name, one in claims.items():
        for world, sweep in one.sweeps.items():
            params = read_option(conf_dir() / "sweep" / f"{sweep}.yaml")["hydra"]["sweeper"][
                "params"
            ]
            listed = ",".join(map(str, params.values()))
            assert sweep.startswith("micro_") == (world == "micro"), name
            for choice in (*one.ours.values(), *one.theirs.values()):
                value = choice[world] if isinstance(choice, dict) else choice
                kinds = {"rejection_sft": "sft_", "lightreasoner": "", "baseline": ""}
                assert value in listed or kinds.get(value, " ") in listed, (name, value)


def test_the_published_costs_support_the_claims_about_costs():
    claims = read_claims(SHIPPED)
    margins = {
        one.cost: one.margin for one in claims.values() if one.cost in ("hours", "tuned_tokens")
    }
    rows = {(row["expert"], row["method"]): row for row in published._read("efficiency")}
    for cost, margin in margins.items():
        for expert in {expert for expert, _ in rows}:
            ours, theirs = (rows[expert, m][cost] for m in ("lightreasoner", "rejection_sft"))
            assert 100 * float(ours) / float(theirs) <= margin


def test_the_detectable_difference_worked_by_hand():
    error = sqrt(2 * (0.2 * 100 + 2) / 102**2) / 2
    assert detectable(0.2, 0.5, [100, 100], 1) == pytest.approx((1.96 + 0.8416) * error)
    seeds = 0.02 / sqrt(3)
    found_here = detectable(0.2, 0.02, [100, 100], 3)
    ends = np.hypot(1.96 * error, 4.302653 * seeds), np.hypot(0.8416 * error, 1.0606602 * seeds)
    assert found_here == pytest.approx(sum(ends), rel=1e-5)


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_detectable_difference_is_detected_eight_times_in_ten(seeds):
    """Questions are won and lost at random, and each seed shifts the difference."""
    random, n, repeats = np.random.default_rng(0), 500, 300
    shift = detectable(DISCORDANT, SPREAD, [n], seeds)
    detected = 0
    for _ in range(repeats):
        gains = shift + random.normal(0, SPREAD, (seeds, 1) if seeds > 1 else (1, 1)) * (seeds > 1)
        sign = random.random(n)  # the same questions for every seed
        ours, theirs = sign < (DISCORDANT + gains) / 2, sign > 1 - (DISCORDANT - gains) / 2
        detected += difference(ours.astype(float), theirs.astype(float)).ci95[0] > 0
    assert 0.72 < detected / repeats < 0.9


def test_a_plan_measures_the_runs_that_exist(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "micro_ablation", "--questions", "50", "--seeds", "5"]) == 0
    assumed = capsys.readouterr().out
    assert assumed.startswith("micro_ablation: runs: 30; seeds: 5; questions: 250 (micro_add 50, ")
    assert "assumed" in assumed
    assert "of 3 pairs" not in assumed
    assert " ".join(assumed.split()).endswith(
        "unknown, because the sweep's file has no measured one. Time one run and multiply by the "
        "number of runs: python -m lr_exp -m +sweep=micro_ablation method=rejection_sft seed=0"
    )
    for seed in range(2):
        for method, own in (("lightreasoner", 60), ("no_contrast", 20)):
            write(
                tmp_path / "runs/micro_ablation", own, seed, method=method, sweep="micro_ablation"
            )
    assert main(["plan", "micro_ablation"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    # Against the baseline, which has 10 right: 50 and 10; each other: 40.
    assert "median of 3 pairs            40.0                 0.0" in out
    assert "largest of 3 pairs           50.0                 0.0" in out
    assert "contrast_over_selection (at least +2 points)" in " ".join(out.split())
    shutil.rmtree(tmp_path / "runs")
    write(tmp_path / "runs/micro_ablation", 60, sweep="micro_ablation")
    assert main(["plan", "micro_ablation"]) == 0
    assert "median of 1 pairs            50.0                   –" in capsys.readouterr().out  # noqa: RUF001


def test_a_plan_quotes_the_cost_of_its_sweep(capsys, monkeypatch):
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)
    assert main(["plan", "efficiency"]) == 0
    assert "published: 22.6 h on one H200, without evaluation" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["plan", "micro_ablations"]) == 1
    assert "Did you mean 'micro_ablation'?" in capsys.readouterr().err
    assert main(["plan", "kl_profile"]) == 1
    assert "kl_profile evaluates nothing" in capsys.readouterr().err
    assert main(["plan", "efficiency", "--seeds", "0"]) == 1
    error = capsys.readouterr().err
    assert error == "error: --seeds=0 is out of range: expected an integer in [1, 2**16].\n"


def test_settings_that_differ_from_the_papers_are_listed(tmp_path):
    choices = {"expert": "qwen_math_1_5b", "amateur": "qwen_0_5b", "data": "gsm8k"}
    gsm8k = {"gsm8k": [0, 1]}
    write_run(tmp_path / "run", sweep="main_results", before=gsm8k, after=gsm8k, **choices)
    table = judged(read_claims(SHIPPED), [tmp_path])
    assert [column.title for column in table.columns] == ["claim", *WORLDS.values()]
    assert any("data.max_questions is 20 (paper: 1000)" in note for note in table.notes)
    assert any("if all 1 true values" in note for note in table.notes)

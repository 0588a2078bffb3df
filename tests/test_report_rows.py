"""How runs are grouped into rows, and which runs cannot share a table."""

import math
import shutil
from pathlib import Path

import pytest

from lr_exp.errors import UserError
from lr_exp.report.analyse.compare import compare
from lr_exp.report.analyse.gaps import measured_gap
from lr_exp.report.analyse.profiles import profiles
from lr_exp.report.analyse.rows import Row, Sweep, sweeps
from lr_exp.report.read.runs import find_runs
from tests.support.run_folders import result, write_failed, write_run


def _sweep(folder: Path) -> Sweep:
    (sweep,) = sweeps(find_runs(folder))
    return sweep


def _row(sweep: Sweep, label: str) -> Row:
    (row,) = [row for row in sweep.rows if row.label == label]
    return row


def test_seeds_are_one_row_and_the_baseline_is_counted_once(tmp_path):
    write_run(tmp_path / "0", seed=0, after={"micro_add": [1, 1, 1, 0]})
    write_run(tmp_path / "1", seed=1, after={"micro_add": [1, 0, 0, 0]})
    sweep = _sweep(tmp_path)
    assert [row.label for row in sweep.rows] == ["baseline", "LightReasoner"]
    baseline, tuned = sweep.rows
    assert (baseline.average.mean, baseline.average.seeds) == (0.25, 1)
    assert tuned.seeds == (0, 1)
    assert tuned.average.mean == 0.5
    assert tuned.average.stderr == pytest.approx(math.sqrt(0.125 / 4 + 0.125 / 2))
    # Before: 0 0 0 1. Differences of the seeds' means: 1, 0.5, 0.5, -1: mean 0.25, variance 0.5625.
    assert tuned.gain.mean == 0.25
    assert tuned.gain.stderr == pytest.approx(math.sqrt(0.5625 / 4 + 0.125 / 2))


def test_rows_have_the_papers_order_and_labels_with_the_choices_that_differ(tmp_path):
    for name in ("neither", "entropy_steps", "lightreasoner", "gt_sft", "my_own"):
        write_run(tmp_path / name, method=name)
    write_run(tmp_path / "0", beta=0.8)
    write_run(tmp_path / "1", method="no_selection", beta=None)
    assert [row.label for row in _sweep(tmp_path).rows] == [
        "baseline",
        "ground-truth SFT",
        "LightReasoner, β 0.4",
        "LightReasoner, β 0.8",
        "without step selection",
        "both removed",
        "entropy steps",
        "my_own",
    ]


def test_contrastive_decoding_has_rows_of_its_own(tmp_path):
    write_run(tmp_path / "0")
    right = {"micro_add": [0, 1, 1, 1]}
    write_run(tmp_path / "1", decoder="contrastive", before=right, after=right)
    sweep = _sweep(tmp_path)
    labels = ["baseline", "LightReasoner", "contrastive decoding"]
    assert [row.label for row in sweep.rows] == [*labels, f"{labels[1]} + {labels[2]}"]
    # The gain is over the expert with greedy decoding: contrastive decoding reads an amateur.
    gain = _row(sweep, "contrastive decoding").gain
    assert gain.mean == 0.5
    shutil.rmtree(tmp_path / "0")
    assert [row.gain for row in _sweep(tmp_path).rows] == [None, None]


STOPPED = {"after": {}, "distill": None, "stopped": "No step is above beta=0.4."}


def test_a_seed_that_trained_nothing_counts_with_the_experts_results(tmp_path):
    """Averaging only over the seeds that trained something would flatter the method."""
    write_run(tmp_path / "0", seed=0)  # 3 of 4 correct
    write_run(tmp_path / "1", seed=1)
    write_run(tmp_path / "2", seed=2, **STOPPED)  # the expert: 1 of 4
    row = _row(_sweep(tmp_path), "LightReasoner")
    assert row.remark == "1 of 3 seeds: nothing trained: No step is above beta=0.4."
    assert (row.seeds, row.missing_seeds) == ((0, 1, 2), ())
    assert (row.seed_count, row.trained_count) == (3, 2)
    assert row.average.mean == pytest.approx((0.75 + 0.75 + 0.25) / 3)
    assert row.gain.by_seed == pytest.approx((0.5, 0.5, 0.0))
    for folder in "01":
        shutil.rmtree(tmp_path / folder)
    row = _row(_sweep(tmp_path), "LightReasoner")
    assert row.remark == "nothing trained: No step is above beta=0.4."
    assert (row.gain.mean, row.gain.stderr) == (0, 0)


def test_failed_and_unevaluated_seeds_give_remarks_on_their_row(tmp_path):
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=1, evaluate=None, answers=False)
    cell = dict.fromkeys(("expert", "amateur", "data"), "micro")
    cell |= {"method": "lightreasoner", "alpha": 0.2, "beta": 0.4}
    for seed, error in ((2, "no luck"), (3, "no memory"), (0, "at first")):
        write_failed(tmp_path / error, error, seed=seed, **cell)
    write_failed(tmp_path / "5", "another beta", seed=0, **cell | {"beta": 0.8})
    sweep = _sweep(tmp_path)
    row = _row(sweep, "LightReasoner, β 0.4")
    # Seed 0 failed first and then finished, so it counts.
    assert row.remark == "1 of 4 seeds: not evaluated; 2 of 4 seeds: failed: no luck / no memory"
    assert (row.seeds, row.missing_seeds) == ((0,), (1, 2, 3))
    assert row.average.mean == 0.75
    assert _row(sweep, "LightReasoner, β 0.8").remark == "failed: another beta"


def test_a_setup_whose_seeds_all_failed_is_one_row_without_numbers(tmp_path):
    """A run with invalid settings is only listed."""
    write_run(tmp_path / "0")
    changed = {"expert": "micro", "method": "neither", "data": "micro"}
    write_failed(tmp_path / "2", "out of memory", seed=2, **changed)
    write_failed(tmp_path / "3", "out of memory", seed=3, **changed)
    write_failed(tmp_path / "4", "no such model", overrides=["expert=typo", "seed=3"])
    *_, removed = _sweep(tmp_path).rows
    assert (removed.label, removed.remark) == ("both removed", "failed: out of memory")
    assert removed.missing_seeds == (2, 3)


def test_rows_with_stopped_seeds_are_references_and_points_like_any_other(tmp_path):
    for amateur in ("micro", "micro_near"):
        for seed, changed in enumerate(({}, STOPPED)):
            gap = {"evaluate__gap": _gap(6, 2 if amateur == "micro" else 4)}
            write_run(tmp_path / f"{amateur} {seed}", amateur=amateur, seed=seed, **gap, **changed)
    sweep = _sweep(tmp_path)
    measured = [measured_gap(row.runs) for row in sweep.rows if row.gain]
    assert [gap.difference.mean for gap in measured if gap] == pytest.approx([0.4, 0.2])
    pairs = [(p.ours.label, p.theirs.label) for p in compare(sweep).pairs]
    assert ("LightReasoner, amateur micro", "baseline") in pairs
    assert len(pairs) == 3


def test_sweeps_are_separated_and_recognized(tmp_path):
    for i, name in enumerate((None, "ablation", "micro_ablation", "my_own")):
        write_run(tmp_path / str(i), sweep=name)
    write_failed(tmp_path / "5", "no memory", expert="micro", method="neither", sweep="baselines")
    found = sweeps(find_runs(tmp_path))
    (failed,) = [sweep for sweep in found if not sweep.runs]
    assert [row.remark for row in failed.rows] == ["failed: no memory"]
    named = [None, "ablation", "baselines", "micro_ablation", "my_own"]
    assert [sweep.name for sweep in found] == named
    tables = ["results", "ablation", "baselines", "ablation", "my_own"]
    assert [sweep.table for sweep in found] == tables


def test_an_average_needs_all_benchmarks_of_the_table(tmp_path):
    both = {"micro_add": [0, 1], "micro_plain": [1, 1]}
    write_run(tmp_path / "0", before=both, after=both)
    one = {"micro_add": [0, 1]}
    write_run(tmp_path / "1", method="neither", before=one, after={"micro_add": [1, 1]})
    sweep = _sweep(tmp_path)
    assert sweep.benchmarks == ["micro_add", "micro_plain"]
    assert _row(sweep, "both removed").average is None
    assert _row(sweep, "both removed").gain is None
    assert _row(sweep, "LightReasoner").average is not None


SEED_1, OTHER, NEW = {"seed": 1}, {"method": "neither"}, {"fingerprint": "new"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # One row, whose runs differ in more than the seed.
        (SEED_1 | {"settings__distiller__steps": 50}, "distiller.steps is 100 in 0 and 50 in 1"),
        (SEED_1 | {"provenance__data": "new"}, "provenance.data is of micro in 0 and new in 1"),
        (SEED_1 | {"provenance__amateur": NEW}, "model of the amateur is of micro in 0 and new in"),
        (SEED_1 | {"settings__data__max_questions": 30}, "max_questions is 20 in 0 and 30 in 1"),
        (
            SEED_1 | {"after": {"micro_add": [1, 1, 1, 1], "micro_plain": [1]}},
            "evaluated benchmarks is ['micro_add'] in 0 and ['micro_add', 'micro_plain'] in 1",
        ),
        # One expert, evaluated in two ways.
        (OTHER | {"provenance__expert": NEW}, "model of the expert is of micro in 0 and new in 1"),
        (
            OTHER | {"settings__evaluator__max_new_tokens": 9},
            "max_new_tokens is 2048 in 0 and 9 in",
        ),
        (
            OTHER | {"provenance__prompts": {"chat, micro_add": "new", "chat, micro_long": "x"}},
            "evaluator.prompts, chat, micro_add is old in 0 and new in 1",
        ),
        (OTHER | {"provenance__dtype": "bfloat16"}, "dtype is float32 in 0 and bfloat16 in 1"),
        (
            OTHER | {"before": {"micro_add": [1, 1, 1, 1]}},
            "baseline of micro: the same evaluation has different results: "
            "micro_add 1/4 in 0 and 4/4 in 1",
        ),
        # One benchmark with different questions, and histograms that cannot be added.
        (
            OTHER | {"provenance__benchmarks": {"micro_add": "another"}},
            "micro_add has different questions: of micro_add in 0 and another in 1",
        ),
        (
            OTHER | {"sample__histogram": {"bin_nats": 0.2, "counts": [1, 2]}},
            "50 bins of 0.1 nats in 0 and 2 bins of 0.2 nats in 1",
        ),
        # One seed, with two results.
        ({"after": {"micro_add": [0, 0, 0, 1]}}, "seed 0 was run twice"),
        ({"after": {"micro_add": [0, 0, 0, 1]}}, "micro_add 3/4 in 0 and 1/4 in 1"),
        (STOPPED, "training finished in 0 and stopped in 1"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, changed, message):
    write_run(tmp_path / "0", provenance__prompts={"chat, micro_add": "old"})
    write_run(tmp_path / "1", **changed)
    with pytest.raises(UserError) as error:
        _sweep(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"evaluate": None}, {}, "['micro_add', 'micro_plain'] in 1 and ['micro_add'] in 2"),
        (STOPPED, {}, "['micro_add', 'micro_plain'] in 0 and ['micro_add'] in 2"),
        ({"provenance__data": None}, {"provenance__data": "new"}, "new in 1 and of micro in 2"),
    ],
)
def test_a_run_without_a_fact_hides_no_difference_of_later_runs(tmp_path, first, second, message):
    both = {"micro_add": [0, 1], "micro_plain": [1, 1]}
    one = {"micro_add": [0, 1]}
    of_first = one if "provenance__data" in second else both
    write_run(tmp_path / "0", seed=0, before=of_first, answers=False, **first)
    write_run(tmp_path / "1", seed=1, before=of_first, after=of_first, answers=False, **second)
    write_run(tmp_path / "2", seed=2, before=one, after=one, answers=False)
    with pytest.raises(UserError, match="mixes runs") as error:
        _sweep(tmp_path)
    assert message in str(error.value)


def test_settings_that_do_not_change_results_do_not_split_rows(tmp_path):
    write_run(tmp_path / "0", settings__store="a", settings__hub_root="x", settings__device="cpu")
    changed = {
        "settings__store": "b",
        "settings__wandb": {"name": "other", "tags": ["t"]},
        "settings__expert": {"name": "micro", "path": "/elsewhere"},
        "provenance__expert": {"path": "/x", "revision": None, "fingerprint": "of micro"},
        "settings__sampler": {"max_new_tokens": 128, "batch_size": 4, "export": "file"},
    }
    write_run(tmp_path / "1", seed=1, **changed)
    sweep = _sweep(tmp_path)
    assert _row(sweep, "LightReasoner").seeds == (0, 1)
    assert any("sampler.batch_size is 16 in 0 and 4 in 1" in n for n in sweep.notes)


def test_a_repeated_run_counts_once_if_it_agrees(tmp_path):
    write_run(tmp_path / "0")
    write_run(tmp_path / "again")
    sweep = _sweep(tmp_path)
    assert _row(sweep, "LightReasoner").seeds == (0,)
    assert any("seed 0 was run twice (0, again); 0 is used" in note for note in sweep.notes)


def test_different_results_on_different_machines_give_a_warning(tmp_path):
    write_run(tmp_path / "0")
    write_run(
        tmp_path / "1",
        method="neither",
        before={"micro_add": [1, 1, 1, 1]},
        provenance__device_name="a GPU",
        versions={"lr_exp": "0.1.0", "torch": "2.99.0", "transformers": "5.23.0"},
    )
    sweep = _sweep(tmp_path)
    notes = "\n".join(sweep.notes)
    assert "torch version differs within this table: 2.13.0 in 0 and 2.99.0 in 1" in notes
    assert "device_name differs within this table: a CPU in 0 and a GPU in 1" in notes
    assert "different results: micro_add 1/4 in 0 and 4/4 in 1. The result of 0 is shown" in notes
    assert _row(sweep, "baseline").results.accuracies["micro_add"].mean == 0.25


def test_missing_answers_widen_errors_and_forbid_pairing_only(tmp_path):
    write_run(tmp_path / "0")
    write_run(tmp_path / "1", method="neither", answers=False)
    sweep = _sweep(tmp_path)
    assert _row(sweep, "both removed").average is not None
    found = compare(sweep)
    ((ours, theirs),) = ((pair.ours.label, pair.theirs.label) for pair in found.pairs)
    assert (ours, theirs) == ("LightReasoner", "baseline")
    (refused,) = found.refused
    assert refused.startswith(
        "both removed of micro is not compared: 1/answers/tuned/micro_add.jsonl is missing or is a "
        "dangling link into a deleted store."
    )


def test_pairs_count_won_and_lost_questions(tmp_path):
    before = {"micro_add": [0] * 8 + [1] * 2, "micro_plain": [1, 1]}
    after = {"micro_add": [1] * 8 + [0, 1], "micro_plain": [1, 1]}
    write_run(tmp_path / "0", before=before, after=after)
    (pair,) = compare(_sweep(tmp_path)).pairs
    assert [one.benchmark for one in pair.comparisons] == ["micro_add", "micro_plain", "AVG"]
    overall = pair.overall
    assert (overall.questions, overall.won, overall.lost) == (12, 8, 1)
    assert overall.p_majority == 0.0390625
    # The two questions of plain do not differ, the ten of add do: 8 signs against 1, as above.
    assert overall.p_mean == pytest.approx(0.0390625, abs=0.006)
    assert overall.difference.mean == pytest.approx((0.9 - 0.2) / 2)
    # The questions of plain, of which none was won or lost, widen the interval: 1.96 sqrt(2) / 4.
    half = 1.96 * math.sqrt((9 / 12 + 2 / 12 - (7 / 12) ** 2) / 12)
    below, above = 0.7 - (7 / 12 - half), min(1, 7 / 12 + half) - 0.7
    wide = 1.96 * math.sqrt(2) / 4
    assert overall.difference.ci95 == pytest.approx(
        (0.35 - math.hypot(below, wide) / 2, 0.35 + math.hypot(above, wide) / 2)
    )


def test_rows_on_different_questions_are_not_compared(tmp_path):
    write_run(tmp_path / "0")
    right = {"micro_plain": [0, 1]}
    write_run(tmp_path / "1", expert="other", before=right, after=right)
    found = compare(_sweep(tmp_path))
    assert {p.ours.setup.expert for p in found.pairs} == {"micro", "other"}
    assert all(p.ours.setup.expert == p.theirs.setup.expert for p in found.pairs)
    assert "answered different questions" in found.refused[0]


def _gap(expert: int, amateur: int, decoder: str = "greedy") -> dict:
    return {
        "decoder": decoder,
        "expert": {"micro_add": result(expert, 10)},
        "amateur": {"micro_add": result(amateur, 10)},
    }


def test_the_gap_is_counted_once(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, evaluate__gap=_gap(6, 2, "sampled"))
    gap = measured_gap(find_runs(tmp_path).runs)
    assert (gap.benchmark, gap.decoder) == ("micro_add", "sampled")
    assert gap.difference.by_seed == pytest.approx((0.4,))
    assert gap.difference.stderr == pytest.approx(math.sqrt((0.24 + 0.16) / 10))


def test_gaps_that_disagree_are_refused_unless_a_machine_explains_it(tmp_path):
    write_run(tmp_path / "0", evaluate__gap=_gap(6, 2))
    write_run(tmp_path / "1", seed=1, evaluate__gap=_gap(6, 3))
    with pytest.raises(UserError, match=r"different results: amateur 2/10 in 0 and 3/10"):
        measured_gap(find_runs(tmp_path).runs)
    other = {"provenance__device_name": "a GPU", "evaluate__gap": _gap(6, 3)}
    write_run(tmp_path / "apart" / "1", seed=1, **other)
    runs = [run for run in find_runs(tmp_path).runs if run.name != "1"]
    gap = measured_gap(runs)
    assert gap.difference.mean == pytest.approx(0.4)
    (note,) = gap.notes
    assert "on different machines" in note
    assert "2/10 in 0 and 3/10 in apart/1" in note
    write_run(tmp_path / "2", seed=2, evaluate__gap=_gap(6, 2, "sampled"))
    with pytest.raises(UserError, match="greedy on micro_add in 0 and sampled on micro_add in 2"):
        measured_gap([run for run in find_runs(tmp_path).runs if run.name in "02"])


def test_profiles_pool_the_seeds_by_their_steps(tmp_path):
    for method in ("lightreasoner", "no_contrast"):
        for seed, (mean, counts) in enumerate(((0.1, [10, 0]), (0.5, [20, 10]))):
            changed = {"sample__histogram": {"bin_nats": 0.1, "counts": counts}}
            changed |= {"sample__steps": sum(counts), "sample__kl_mean": mean}
            write_run(tmp_path / f"{method}{seed}", method=method, seed=seed, **changed)
    (profile,) = profiles(_sweep(tmp_path))
    assert (profile.steps, profile.seeds, profile.histogram.counts) == (40, 2, [30, 10])
    assert profile.means["kl_mean"] == pytest.approx((10 * 0.1 + 30 * 0.5) / 40)
    assert profile.methods == ("lightreasoner", "no_contrast")


def test_settings_that_a_sweep_varies_are_rows_in_ascending_order(tmp_path):
    axes = [(512, "typos", 0.5), (32, "typos", 0.5), (32, "numbers", 0.25), (32, None, 1.0)]
    for number, (tokens, kind, share) in enumerate(axes):
        noise = {"settings__data__noise": kind, "settings__data__noise_share": share}
        for seed in (0, 1):
            write_run(
                tmp_path / f"{number} {seed}",
                seed=seed,
                settings__sampler__max_new_tokens=tokens,
                sample__histogram={"bin_nats": 0.1, "counts": [number, 1]},
                **noise,
            )
    overrides = ["sampler.max_new_tokens=32", "data.noise=numbers", "data.noise_share=0.25"]
    cell = dict.fromkeys(("expert", "amateur", "data"), "micro")
    cell |= {"method": "lightreasoner", "alpha": 0.2, "beta": 0.4, "overrides": overrides}
    write_failed(tmp_path / "failed", "no luck", seed=2, **cell, learning_rate=1e-4)
    sweep = _sweep(tmp_path)
    found = [(row.label, row.seeds, row.missing_seeds) for row in sweep.rows[1:]]
    name = "LightReasoner, "
    assert found == [
        (f"{name}noisy share 1, answer tokens 32", (0, 1), ()),
        (f"{name}noise numbers, noisy share 0.25, answer tokens 32", (0, 1), (2,)),
        (f"{name}noise typos, noisy share 0.5, answer tokens 32", (0, 1), ()),
        (f"{name}noise typos, noisy share 0.5, answer tokens 512", (0, 1), ()),
    ]
    # Each has token positions of its own.
    made = {profile.label: (profile.seeds, profile.histogram.counts) for profile in profiles(sweep)}
    assert made == {
        f"micro / micro ({label})": (2, [2 * number, 2])
        for label, number in zip((row[0] for row in found), (3, 2, 1, 0), strict=True)
    }


def test_all_questions_are_labelled_with_their_number(tmp_path):
    for questions, limit in ((300, 300), (7473, None)):
        counted = {"sample__questions": questions, "settings__data__max_questions": limit}
        write_run(tmp_path / str(questions), **counted)
    labels = [row.label for row in _sweep(tmp_path).rows[1:]]
    assert labels == ["LightReasoner, questions 300", "LightReasoner, questions 7473"]

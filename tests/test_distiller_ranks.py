"""Training on two ranks (over gloo) gives the same numbers as training on one.

Two ranks sum in another order: losses may differ by a relative 1e-5, and weights (up to 0.1, with
updates of 0.01 per optimizer step) by 1e-4, since Adam normalizes gradients near 0.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lr_exp.distiller.adapter_files import ADAPTER, read_history, read_snapshots
from lr_exp.distiller.batches import assign_passes, build_batch, plan_batches
from tests.support.distilling import KilledError, a_supervision, train
from tests.support.distilling_on_ranks import CASES, MANY, STOP, train_all
from tests.support.forked import on_ranks, start

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the runs on one process (`alone/NAME`) and on two (`rank-0/NAME`)."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "alone").mkdir()
    for name in ("ddp", "ddp-one-pass"):
        train(folder / "alone" / name, settings=CASES[name])
    (folder / "rank-0").mkdir()
    with pytest.raises(KilledError):
        train(folder / "rank-0" / "one-then-two", settings=MANY, on_log=STOP)
    status, out, err = start(folder, on_ranks, 2, train_all, folder).wait(300)
    assert status == 0, err + out
    (folder / "stderr").write_text(err, "utf-8")
    train(folder / "rank-0" / "two-then-one", settings=MANY)
    return folder


@pytest.fixture(scope="module")
def results(trained):
    """What each rank recorded."""
    return [json.loads((trained / f"results-{rank}.json").read_text("utf-8")) for rank in range(2)]


def assert_same_adapter(first: Path, second: Path) -> None:
    name = "adapter_model.safetensors"
    weights, expected = load_file(first / name), load_file(second / name)
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert (weight - expected[key]).abs().max() < 1e-4, key
    config = "adapter_config.json"
    assert (first / config).read_bytes() == (second / config).read_bytes()


def assert_same_training(first: Path, second: Path) -> None:
    history, expected = read_history(first), read_history(second)
    assert [entry["step"] for entry in history] == [entry["step"] for entry in expected]
    for a, b in zip(history, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert_same_adapter(first / ADAPTER, second / ADAPTER)
    snapshots, expected = read_snapshots(first), read_snapshots(second)
    assert [step for step, _ in snapshots] == [step for step, _ in expected] == [3]
    for (_, a), (_, b) in zip(snapshots, expected, strict=True):
        assert_same_adapter(a, b)


def test_the_cases_cover_uneven_numbers_of_passes():
    """With an odd number of passes one rank has fewer; with a single pass it has none."""
    supervision = a_supervision()
    plan = plan_batches(supervision, replace(MANY, batch_size=8), 0)

    def counts(name):
        tokens = CASES[name].tokens_per_pass
        return [len(build_batch(supervision, steps, tokens)["passes"]) for steps in plan]

    assert max(counts("ddp")) >= 3
    assert any(count % 2 for count in counts("ddp"))
    assert set(counts("ddp-one-pass")) == {1}


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_like_one(trained, name):
    """Also with dropout, and where a rank has no pass."""
    alone = trained / "alone" / name.replace("fsdp", "ddp")  # one process shards nothing
    assert_same_training(trained / "rank-0" / name, alone)


@pytest.mark.parametrize("name", ["two-then-one", "two-then-sharded", "one-then-two"])
def test_training_resumes_with_another_number_of_ranks(trained, results, name):
    assert_same_training(trained / "rank-0" / name, trained / "alone" / "ddp")
    for result in results:
        if name == "two-then-one":
            assert result[name] == "stopped"
        else:  # from the checkpoint at step 2; earlier metrics are logged again
            assert result[name]["computed"] == 2
            assert [step for step, _ in result[name]["logged"]] == [1, 2, 3, 4]


def test_only_rank_0_writes(trained, results):
    assert [path for path in (trained / "rank-1").rglob("*") if path.is_file()] == []
    names = sorted(path.name for path in (trained / "rank-0" / "ddp").iterdir())
    assert names == sorted(path.name for path in (trained / "alone" / "ddp").iterdir())


def test_all_ranks_return_the_same_and_hold_half_of_the_sharded_weights(results):
    for name in CASES:
        assert results[0][name] == results[1][name]
    for result in results:  # and the whole adapter
        assert 0.45 < result["share_held"] < 0.6


def test_an_error_of_one_rank_ends_the_training_on_all(results):
    for name in ("infinite", "no-memory"):
        assert results[0][name] == results[1][name]
    assert "the loss is" in results[0]["infinite"]
    assert "sampler.max_new_tokens" in results[0]["no-memory"]
    assert "rank 1" in results[0]["no-memory"]
    assert all("distiller.tokens_per_pass" in result["no-memory-sharded"] for result in results)


@given(lengths=st.lists(st.integers(1, 50), max_size=12), count=st.integers(1, 5))
def test_passes_are_balanced_over_ranks(lengths, count):
    by_rank = assign_passes(lengths, count)
    assert len(by_rank) == count
    assert sorted(index for share in by_rank for index in share) == list(range(len(lengths)))
    tokens = [sum(lengths[index] for index in share) for share in by_rank]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)

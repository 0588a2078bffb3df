"""Training on two processes (over gloo) against training on one: the numbers are the same.

Sums come in another order on two ranks: losses may differ by 1e-5 of themselves. So may weights
(up to 0.1 large, moved by 0.01 a step), where Adam divides gradients near 0 by themselves: by 1e-4.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lr_exp.distiller import distill
from lr_exp.distiller.batches import BatchDataset, plan_batches, shares

from .distilling_on_ranks import CASES, MANY, StoppedError, stop
from .test_distiller import a_supervision, train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What one process and two have made: `alone/NAME` and `rank-0/NAME`."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "alone").mkdir()
    for name, settings in CASES.items():
        train(folder / "alone" / name, settings=settings)
    (folder / "rank-0").mkdir()
    with pytest.raises(StoppedError):
        train(folder / "rank-0" / "one-then-two", settings=MANY, on_log=stop)
    done = subprocess.run(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "tests.distilling_on_ranks", str(folder)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "said").write_text(done.stderr, "utf-8")
    train(folder / "rank-0" / "two-then-one", settings=MANY)
    return folder


@pytest.fixture(scope="module")
def told(place):
    return [json.loads((place / f"told-{rank}.json").read_text("utf-8")) for rank in range(2)]


def assert_same_adapter(one: Path, other: Path) -> None:
    name = "adapter_model.safetensors"
    mine, theirs = load_file(one / name), load_file(other / name)
    assert mine.keys() == theirs.keys()
    for key, weight in mine.items():
        assert (weight - theirs[key]).abs().max() < 1e-4, key
    config = "adapter_config.json"
    assert (one / config).read_bytes() == (other / config).read_bytes()


def assert_same_training(one: Path, other: Path) -> None:
    mine, theirs = distill.read_history(one), distill.read_history(other)
    assert [entry["step"] for entry in mine] == [entry["step"] for entry in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert_same_adapter(one / distill.ADAPTER, other / distill.ADAPTER)
    mine, theirs = distill.read_snapshots(one), distill.read_snapshots(other)
    assert [step for step, _ in mine] == [step for step, _ in theirs] == [3]
    for (_, a), (_, b) in zip(mine, theirs, strict=True):
        assert_same_adapter(a, b)


def test_the_cases_are_what_they_should_be():
    """Steps of an odd number of passes, where one rank has fewer; and of one, where it has none."""
    supervision = a_supervision()
    plan = plan_batches(supervision, batch_size=8, steps=6, order="trajectories", seed=0)

    def counts(name):
        batches = BatchDataset(supervision, plan, tokens_per_pass=CASES[name].tokens_per_pass)
        return [len(batches[step]["passes"]) for step in range(6)]

    assert max(counts("ddp")) >= 3
    assert any(count % 2 for count in counts("ddp"))
    assert set(counts("ddp-one-pass")) == {1}


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one(place, name):
    """Shared out and summed up, with dropout on; also where a rank has nothing to do.

    In "tight", which has no dropout, memory lets one of them compute single kept steps only.
    """
    assert_same_training(place / "rank-0" / name, place / "alone" / name)


@pytest.mark.parametrize("name", ["two-then-one", "two-then-sharded", "one-then-two"])
def test_a_training_goes_on_with_another_number_of_ranks(place, told, name):
    assert_same_training(place / "rank-0" / name, place / "alone" / "ddp")
    for one in told:
        if name == "two-then-one":
            assert one[name] == "stopped"
        else:  # from the checkpoint at step 4; the interrupted try's metrics are told again
            assert one[name]["computed"] == 2
            assert [step for step, _ in one[name]["seen"]] == [1, 2, 3, 4, 5, 6]


def test_the_first_rank_alone_writes(place, told):
    assert [path for path in (place / "rank-1").rglob("*") if path.is_file()] == []
    made = sorted(path.name for path in (place / "rank-0" / "ddp").iterdir())
    assert made == sorted(path.name for path in (place / "alone" / "ddp").iterdir())
    assert [path.name for path in (place / "rank-1" / "ddp").iterdir()] == []


def test_sharded_weights_lie_on_one_rank_each(told):
    for one in told:  # half of them, and the adapter, which every rank has
        assert 0.45 < one["held"] < 0.6


def test_every_rank_gives_the_same_facts_and_metrics(told):
    for name in CASES:
        assert told[0][name] == told[1][name]


def test_a_loss_that_is_not_finite_ends_the_training_on_every_rank(told):
    assert "the loss is" in told[0]["infinite"]
    assert told[0]["infinite"] == told[1]["infinite"]


def test_a_rank_that_lacks_memory_is_named_by_all(told):
    assert "sampler.max_new_tokens" in told[0]["no-memory"]
    assert "rank 1" in told[0]["no-memory"]
    assert told[0]["no-memory"] == told[1]["no-memory"]


def test_a_sharded_pass_that_does_not_fit_names_what_to_lower(told):
    """It cannot be split: the other ranks would wait where this one is not."""
    assert all("distiller.tokens_per_pass" in one["no-memory-sharded"] for one in told)


def test_ranks_that_have_nothing_to_do_are_told_of_once(place):
    said = (place / "said").read_text("utf-8")
    assert said.count("an optimizer step has 1.0 passes for 2 ranks") == 2  # of ddp and of fsdp
    assert said.count("passes for 2 ranks") == 2


@given(lengths=st.lists(st.integers(1, 50), max_size=12), count=st.integers(1, 5))
def test_every_pass_has_one_rank_and_none_has_much_more_than_another(lengths, count):
    shared = shares(lengths, count)
    assert len(shared) == count
    assert sorted(index for share in shared for index in share) == list(range(len(lengths)))
    tokens = [sum(lengths[index] for index in share) for share in shared]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)

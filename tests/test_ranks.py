"""A run of several processes: same results, output from rank 0 only, exit when a rank dies."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lr_exp import distributed
from lr_exp.__main__ import Program
from lr_exp.config.composition import conf_dir
from lr_exp.distributed import environment, group
from lr_exp.errors import UserError
from lr_exp.models import devices
from lr_exp.pipeline import rank_checks
from lr_exp.pipeline.inputs import Inputs
from tests.support import forked, ranked
from tests.support.demo import SMALL, contents, go, settings_for
from tests.support.files import read_lines, write_lines
from tests.support.forked import on_ranks, run_program
from tests.support.ranked import finish, torchrun

HOST = socket.gethostname()
# Questions of several lengths, and more shards than ranks, the last round not full.
WORDS = [
    *SMALL,
    "data.count=7",
    "sampler.batch_size=2",
    "sampler.max_new_tokens=48",
    "distiller.steps=4",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=5",
    "evaluator.batch_size=2",
    "evaluator.max_new_tokens=8",
]
PLACES = ["store=store", "hydra.run.dir=run"]
# Optional outputs and stages, so that the comparison covers them.
ALL = [
    *WORDS,
    "distiller.snapshot_every=2",
    "distiller.merge=true",
    "evaluator.decoder=contrastive",
    "evaluator.gap=sampled",
]


def error_of(out: str) -> str:
    """The run's single error line, without what torchrun adds."""
    lines = [line for line in out.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, out
    return lines[0]


def losses(folder: Path) -> list[float]:
    (path,) = folder.glob("store/adapter/*/history.jsonl")
    return [entry["loss"] for entry in read_lines(path)]


def sampled(store: Path) -> dict[str, bytes]:
    """Contents of the store's files, by name, of the stages before training."""
    return {
        name: content
        for name, content in contents(store).items()
        if name.startswith(("questions/", "rollout/", "score/", "supervision/"))
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process: its folder and its summary."""
    folder = tmp_path_factory.mktemp("alone")
    export = f"sampler.export={folder / 'kept.jsonl'}"
    return folder, go(folder, "run", *ALL[len(SMALL) :], export)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """Results of `ranked.primitives` on each of three ranks."""
    folder = tmp_path_factory.mktemp("results")
    status, out, err = forked.start(folder, on_ranks, 3, ranked.primitives, folder).wait()
    assert status == 0, out + err
    return [json.loads((folder / f"{number}.json").read_text("utf-8")) for number in range(3)]


@pytest.mark.integration
def test_results_of_collective_calls(results):
    """Each job runs once, and rank 0 takes the results in order."""
    assert results[0]["distribute_jobs"] == [[0, 0], [1, 11], [2, 22], [3, 30], [4, 41]]
    assert results[1]["distribute_jobs"] == results[2]["distribute_jobs"] == []
    for number, result in enumerate(results):
        assert result["run_on_rank0"] == 0
        assert result["all_gather"] == result["after errors"] == [0, 1, 2]
        assert result["run_on_all_ranks"] == number
        assert result["run_collectively"] == 3  # rank 0's own two results
        assert result["all_reduce"] == [[[6.0, 6.0], [6.0, 6.0]], [30.0, 30.0, 30.0]]
        assert result["environment"] is False  # so no library splits the work a second time


@pytest.mark.integration
def test_an_error_of_one_rank_is_raised_on_all_and_they_stay_in_step(results):
    for result in results:
        errors = result["errors"]
        assert errors["work of rank 1"] == "job 3 cannot be done"  # rank 0's job in round two
        assert errors["take"] == "job 2 cannot be done"
        assert errors["rank 0"] == "job 0 cannot be done"
        assert errors["all ranks"] == "job 7 cannot be done"
        assert errors["rank 1"] == f"rank 1 on {HOST}: job 1 cannot be done"
        assert errors["run_collectively"] == "job 3 cannot be done"
        assert errors["check_same"].startswith(
            f"questions: rank 1 on {HOST} has 1, but rank 0 on {HOST} has 0."
        )
        assert errors["disk"].startswith("the disk of the store ")
        assert "Finished work is kept" in errors["disk"]
        assert errors["jobs"] == "no prompt fits"
        assert errors["store"].startswith(f"rank 1 on {HOST}: the store ")
        assert errors["store"].endswith("set store= to a folder that all hosts share.")
    assert results[0]["reached"] == [0, 1, 2]
    assert results[0]["leftover files"] == []


@pytest.mark.integration
def test_when_rank_0_fails_alone_the_others_exit(results):
    kind, message = results[0]["rank 0 fails alone"]
    assert kind == "UserError"
    assert message.startswith("the disk of the store ")
    for result in results[1:]:
        kind, message = result["rank 0 fails alone"]
        assert kind == "PeerLostError"
        assert message.endswith("Run the same command again to resume.")


@pytest.mark.integration
def test_two_ranks_produce_the_same_files_as_one_process(alone, tmp_path):
    one_folder, one = alone
    words = [*ALL, *PLACES, "sampler.export=kept.jsonl", "distiller.parallel=fsdp"]
    status, out, err = forked.start(tmp_path, on_ranks, 2, run_program, words).wait()
    assert status == 0, out + err
    two = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))

    assert two["ranks"] == 2
    assert sampled(tmp_path / "store") == sampled(one_folder / "store")  # byte by byte
    assert two["sample"]["supervision"] == one["sample"]["supervision"]
    assert losses(tmp_path) == pytest.approx(losses(one_folder), rel=1e-5)
    texts, theirs = (
        [one["output"] for one in read_lines(folder / "run/answers/expert/micro_add.jsonl")]
        for folder in (one_folder, tmp_path)
    )
    assert texts == theirs
    for part in ("expert", "tuned", "curve", "gap"):
        assert two["evaluate"][part] == one["evaluate"][part]
    assert (tmp_path / "kept.jsonl").read_bytes() == (one_folder / "kept.jsonl").read_bytes()
    merged = [load_file(f / "run" / "merged" / "model.safetensors") for f in (one_folder, tmp_path)]
    for name, weight in merged[0].items():
        torch.testing.assert_close(merged[1][name], weight, rtol=1e-4, atol=1e-5)

    # Output and files come from rank 0 alone.
    assert err.count("micro_add (expert, contrastive): 5 questions") == 1
    assert out.count("Results: run") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.jsonl", "run", "store"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        [*(path.name for path in (one_folder / "run").iterdir()), ".hydra", ".lock"]
    )
    assert not list((tmp_path / "store").rglob(".seen-*"))
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
    assert metrics.count('"family": "distill"') == len(losses(tmp_path))


@pytest.mark.integration
def test_a_killed_rank_ends_the_run_and_any_number_of_ranks_resumes_it(alone, tmp_path):
    process = torchrun([*ALL, *PLACES], tmp_path)
    deadline = time.monotonic() + 600
    while not (made := list(tmp_path.glob("store/rollout/*.part/shard-*.parquet"))):
        assert time.monotonic() < deadline, finish(process, 1)
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid-1").read_text("utf-8")), signal.SIGKILL)
    killed_at = time.monotonic()
    status, out = finish(process)
    assert status != 0
    # Before torchrun kills ranks that ignored its signal for 30 seconds.
    assert time.monotonic() - killed_at < 25
    assert error_of(out).startswith("error: rank 1 (process ")
    assert "died" in error_of(out)
    failed = json.loads((tmp_path / "run" / "failed.json").read_text("utf-8"))
    assert failed["error"] in error_of(out)

    before = {path.name: path.stat().st_mtime_ns for path in made}
    go(tmp_path, "run", *ALL[len(SMALL) :], "stages=[sample]")
    assert sampled(tmp_path / "store") == sampled(alone[0] / "store")
    again = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("store/rollout/*/shard-*.parquet")}
    assert before.items() <= again.items()  # what was finished was not made again


@pytest.mark.parametrize(
    ("own", "lost", "prints"),
    [(0, 1, True), (0, 2, True), (1, 0, True), (1, 2, False), (2, 0, False)],
)
def test_one_rank_prints_that_another_died(monkeypatch, capsys, own, lost, prints):
    monkeypatch.setattr(environment, "_environment", environment._Environment(own, 3, own, 3))
    Program([])._print_error(distributed.PeerLostError("it died", rank=lost))
    assert capsys.readouterr().err.count("it died") == prints


def test_rank_0_has_time_to_print_an_error_before_the_ranks_connect(program, monkeypatch):
    """After the first exit, torchrun ends the other ranks."""
    slept = []
    monkeypatch.setattr(environment, "_environment", environment._Environment(1, 2, 1, 2))
    monkeypatch.setattr(group.time, "sleep", slept.append)
    outcome = program("nosuch.key=1")
    assert outcome.error.startswith(f"error: rank 1 on {HOST}: ")
    assert "'nosuch.key'" in outcome.error
    assert slept == [10]


@pytest.mark.integration
def test_a_rank_that_fails_alone_ends_the_run_with_its_reason(tmp_path):
    """In the second cell; the first keeps no step and trains nothing, which all ranks notice."""
    places = [f"store={tmp_path / 'store'}", "hydra.sweep.dir=sweep"]
    sweep = ["-m", "beta=50,0.4", "stages=[sample,distill]", "hydra.sweep.subdir=${hydra.job.num}"]
    words = [*sweep, *WORDS, *places]
    status, _, err = forked.start(tmp_path, on_ranks, 2, ranked.fails_alone, words).wait()
    assert status != 0
    assert err.count("No step has a KL above beta=50") == 1
    assert (tmp_path / "sweep" / "0" / "summary.json").exists()
    assert error_of(err) == f"error: rank 1 on {HOST}: the adapter cannot be written"
    failed = json.loads((tmp_path / "sweep" / "1" / "failed.json").read_text("utf-8"))
    assert failed["error"] == f"rank 1 on {HOST}: the adapter cannot be written"


@pytest.mark.integration
def test_a_sweep_continues_after_cells_that_fail_on_all_ranks(tmp_path):
    """The others, of rejection sampling, give what one process gives."""
    other = tmp_path / "other"  # rank 1's folder, as on a host with other files
    other.mkdir()
    for name, here, there in (
        ("differs", ["1 + 1", "2 + 2"], ["1 + 1", "2 + 3"]),
        ("few", ["1 + 1"], ["1 + 1"]),
        ("good", ["1 + 1", "2 + 2", "3 + 3"], ["1 + 1", "2 + 2", "3 + 3"]),
    ):
        for folder, texts in ((tmp_path, here), (other, there)):
            rows = [{"question": text, "answer": "4"} for text in texts]
            write_lines(folder / f"{name}.jsonl", rows)
    # A relative store path is a different folder for rank 1, as on a host's own disk.
    places = [f"store=own,{tmp_path / 'store'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    data = ["data=jsonl", "data.path=differs.jsonl,few.jsonl,good.jsonl", "stages=[sample]"]
    same = [*WORDS, "method=rejection_sft", "method.samples=2", "method.max_new_tokens=8"]
    same += ["data.max_questions=null", "data.answer=number"]
    words = ["-m", *same, *places, *data, "hydra.sweep.subdir=${hydra.job.num}"]
    status, out, err = forked.start(tmp_path, on_ranks, 2, ranked.elsewhere, other, words).wait()
    assert status != 0
    assert "cells: 1 finished, 5 failed" in out
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    of_store = [line for line in errors if "the store own is not that of rank 0" in line]
    of_data = [line for line in errors if f"data: rank 1 on {HOST} has " in line]
    of_count = [line for line in errors if "data=jsonl has 1 questions for 2" in line]
    assert [len(of_store), len(of_data), len(of_count)] == [3, 1, 1]
    assert "Give every process the same files" in of_data[0]
    assert "start at most 1 (torchrun --nproc-per-node), or use more" in of_count[0]
    finished = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/summary.json")]
    assert [summary["sample"]["questions"] for summary in finished] == [3]
    data[1] = f"data.path={tmp_path / 'good.jsonl'}"
    one = go(tmp_path, "alone", *same, *data)["sample"]
    assert one["reused"]
    assert {summary["sample"]["supervision"] for summary in finished} == {one["supervision"]}
    assert len(list(tmp_path.glob("sweep/*/failed.json"))) == 5
    assert [path.name for path in other.iterdir() if path.suffix != ".jsonl"] == []


def test_values_that_ranks_compare(tmp_path, monkeypatch):
    compared = {}
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(distributed, "check_same", compared.update)
    settings = settings_for(tmp_path)
    Path(settings.store).mkdir(exist_ok=True)
    rank_checks.check_machines(Inputs(settings, [conf_dir()]), {"peft": "1.0"})
    rank_checks.check_files(Inputs(settings, [conf_dir()]))
    assert compared["version of peft"] == "1.0"
    assert {"benchmark micro_add", "benchmark micro_plain"} <= {*compared}
    names = ("expert", "amateur", "data", "questions", "code of lr_exp")
    assert len({compared[name] for name in names}) == 5
    assert None not in compared.values()


@pytest.mark.integration
def test_a_hydra_launcher_cannot_be_combined_with_torchrun(program, monkeypatch):
    monkeypatch.setattr(environment, "_environment", environment._Environment(0, 2, 0, 2))
    outcome = program("-m", "experiment=demo", "hydra/launcher=joblib")
    assert "hydra/launcher=joblib starts processes of its own, and torchrun" in outcome.error


def test_each_rank_uses_its_own_gpu(monkeypatch):
    for visible, local_rank, own in ((None, 3, "3"), ("4,6", 1, "6"), ("", 1, "")):
        devices._select_gpu_by_local_rank.cache_clear()
        monkeypatch.setattr(
            environment, "_environment", environment._Environment(5, 8, local_rank, local_rank + 1)
        )
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        devices.choose_gpu(SimpleNamespace(device="auto"))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    devices._select_gpu_by_local_rank.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(environment, "_environment", environment._Environment(2, 4, 2, 4))
    with pytest.raises(UserError, match="4 processes of this run are on one host"):
        devices.choose_gpu(SimpleNamespace(device="cuda"))
    with pytest.raises(UserError, match="device=cuda:1 is one GPU, but this host runs 4"):
        devices.choose_gpu(SimpleNamespace(device="cuda:1"))
    devices.choose_gpu(SimpleNamespace(device="cpu"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    devices._select_gpu_by_local_rank.cache_clear()

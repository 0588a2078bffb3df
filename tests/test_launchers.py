"""Launchers: a sweep in other processes gives the same results and artifacts as in one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

from lr_exp.config import cells, launchers
from lr_exp.config.composition import conf_dir
from tests.support import forked, slurm
from tests.support.demo import contents
from tests.support.launchers import is_installed, launcher

ROOT = Path(__file__).parents[1]
YAML = sorted((conf_dir() / "hydra" / "launcher").glob("*.yaml"))

# Two cells that share everything except the labels, and one that fails.
WORDS = (
    "+sweep=micro_ablation",
    "hydra.sweep.dir=runs",
    "store=store",
    "wandb.mode=disabled",
    "stages=[sample,evaluate]",
    "method=lightreasoner",
    "seed=0",
    "data.count=6",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=4",
    "evaluator.max_new_tokens=16",
)
CELLS = "alpha=0.2,0.3,7"
LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": [],
    "submitit_slurm": [],
    "ray": [
        "hydra.launcher.ray.init.num_cpus=2",
        f"hydra.launcher.ray.init.object_store_memory={80 << 20}",
    ],
}


@dataclass(frozen=True)
class Sweep:
    """A finished sweep."""

    folder: Path
    status: int
    out: str
    err: str

    @property
    def summaries(self) -> list[dict]:
        found = sorted((self.folder / "runs").glob("*/summary.json"))
        return [json.loads(path.read_text("utf-8")) for path in found]

    @property
    def results(self) -> dict[float, tuple[dict, int]]:
        """The expert's evaluation and the kept steps, by alpha."""
        return {s["alpha"]: (s["evaluate"]["expert"], s["sample"]["kept"]) for s in self.summaries}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Starts the program in a new process, as users do."""
    queue = folder / "slurm"
    if "hydra/launcher=submitit_slurm" in words:
        slurm.install(queue)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{queue}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),  # Ray keeps files there
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "lr_exp", "-m", *WORDS, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str], folder: Path) -> Sweep:
    out, err = process.communicate(timeout=300)
    return Sweep(folder, process.returncode, out, err)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """The sweep with Hydra's default launcher."""
    folder = tmp_path_factory.mktemp("basic")
    words = ["-m", *WORDS, CELLS]
    return Sweep(folder, *forked.start(folder, forked.run_program, words).wait())


@pytest.mark.integration
def test_one_process_counts_its_cells_and_fails_if_one_did(one_by_one):
    assert one_by_one.status == 1
    assert "cells: 2 finished, 1 failed" in one_by_one.out
    assert set(one_by_one.results) == {0.2, 0.3}
    assert len(re.findall("^error: alpha=7", one_by_one.err, re.MULTILINE)) == 1
    assert "failed:" not in one_by_one.err  # its error line is enough


# Ray's processes take up to a minute to start on a busy machine, and fail after that. Joblib shows
# what is lost between processes, and the next test runs a cell with submitit.
@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        launcher("joblib"),
        *(launcher(name, pytest.mark.slow) for name in LAUNCHERS if name != "joblib"),
    ],
)
def test_a_launcher_gives_the_same_results_and_artifacts(name, one_by_one, tmp_path):
    words = [CELLS, f"hydra/launcher={name}", *LAUNCHERS[name]]
    sweep = wait(start(tmp_path, *words), tmp_path)
    assert sweep.status == 1, sweep.err  # a failed cell is reported across processes
    assert "cells: 2 finished, 1 failed" in sweep.out
    (failed,) = [line for line in sweep.err.splitlines() if line.startswith("failed:")]
    assert "alpha=7" in failed
    assert "Traceback" not in sweep.out + sweep.err
    assert contents(tmp_path / "store") == contents(one_by_one.folder / "store")
    assert sweep.results == one_by_one.results
    (record,) = tmp_path.glob("runs/*/failed.json")
    assert "alpha=7" in json.loads(record.read_text("utf-8"))["error"]


# A queue ----------------------------------------------------------------------------------------


def cell_of(folder: Path) -> psutil.Process | None:
    """The submitit process that runs a cell of this folder's sweep, or None."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and any(str(folder) in word for word in words):
            return process
    return None


def wait_for(condition, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not fulfilled within {seconds} s")


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [launcher("submitit_local"), launcher("submitit_slurm", pytest.mark.slow)]
)
def test_a_preempted_job_requeues_and_resumes(name, one_by_one, tmp_path):
    """SIGTERM comes first and must not end the job; then the queue's signal."""
    process = start(tmp_path, "alpha=0.2", f"hydra/launcher={name}")
    store = tmp_path / "store"
    wait_for(lambda: list(store.glob("score/*.part")) or list(store.glob("score/*/manifest.json")))
    cell = cell_of(tmp_path)
    rollout = next(store.glob("rollout/*/manifest.json")).read_bytes()
    cell.send_signal(signal.SIGTERM)
    cell.send_signal(signal.SIGUSR2)
    sweep = wait(process, tmp_path)
    (log,) = tmp_path.glob("runs/.submitit/*/*_log.err")
    errors = log.read_text("utf-8")
    assert "Requeued job" in errors
    assert sweep.status == 0, sweep.err + errors
    assert next(store.glob("rollout/*/manifest.json")).read_bytes() == rollout  # not repeated
    expected = contents(one_by_one.folder / "store")
    found = contents(store)
    assert {name: expected[name] for name in found} == found
    assert sweep.results == {0.2: one_by_one.results[0.2]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [launcher("joblib"), launcher("submitit_local")])
def test_a_sweep_that_is_stopped_leaves_no_process_behind(name, tmp_path):
    process = start(tmp_path, "alpha=0.2", f"hydra/launcher={name}")
    wait_for(lambda: list((tmp_path / "store").glob("rollout/*")))
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    sweep = wait(process, tmp_path)
    assert sweep.status in (130, 143)
    assert "stopped: run the same command again to resume" in sweep.err
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert "Traceback" not in sweep.err


# Configs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.stem)
def test_a_launchers_file_matches_its_packages_schema(path):
    assert {path.stem for path in YAML} == set(launchers._LAUNCHERS)
    if not is_installed(path.stem):
        pytest.skip("its package is not installed")
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the schemas
    schema = ConfigStore.instance().load(f"hydra/launcher/{path.stem}.yaml").node
    merged = OmegaConf.merge(schema, OmegaConf.load(path))  # raises for other keys or types
    assert OmegaConf.to_container(merged)["_target_"] == schema._target_


# Launchers that cannot work ---------------------------------------------------------------------


def test_launchers_that_cannot_work_are_errors_before_the_launch(program, monkeypatch):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    slurm_queue = ("experiment=demo", "hydra/launcher=submitit_slurm")
    assert "add -m" in program(*slurm_queue).error
    monkeypatch.setattr(launchers, "distribution", missing)
    outcome = program("experiment=demo", "hydra/launcher=joblib", flags=["-m"])
    assert "pip install 'lr_exp[joblib]'" in outcome.error
    monkeypatch.setattr(launchers, "distribution", lambda name: name)
    monkeypatch.setenv("PATH", "")
    outcome = program(*slurm_queue, flags=["-m"])
    assert "no Slurm queue here (sbatch, srun" in outcome.error
    assert list(outcome.folder.glob("*")) == []


# Failures of the libraries ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("joblib.externals.loky.process_executor", "n_jobs="),
        ("submitit.core.utils", ".submitit/"),
        ("ray.exceptions", "Ray could not run the cells (killed)"),
    ],
)
def test_a_launchers_error_is_one_line(module, message, program, monkeypatch):
    def fail(**_: object) -> None:
        raise type("Broken", (RuntimeError,), {"__module__": module})("killed")

    monkeypatch.setattr("lr_exp.__main__._run_hydra", fail)
    outcome = program("experiment=demo", flags=["-m"])
    assert message in outcome.error
    assert "same command again to resume" in outcome.error


# Pickling ---------------------------------------------------------------------------------------


def test_unpickling_an_outcome_records_it_once(monkeypatch):
    monkeypatch.setattr(cells, "outcomes", {})
    rebuild, parts = cells.Outcome(2, Path("b"), ("alpha=7", "seed=0"), "invalid").__reduce__()
    rebuild(*parts)
    rebuild(*parts)  # unpickled twice, counted once
    cells.record(1, Path("a"), ("alpha=0.2", "seed=0"), None)
    received = [(str(one.folder), one.error) for _, one in sorted(cells.outcomes.items())]
    assert received == [("a", None), ("b", "invalid")]
    assert cells.labels() == ["alpha=0.2", "alpha=7"]


def test_a_cell_restores_the_folder_in_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rebuild, parts = cells.Portable(lambda config: config).__reduce__()
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", ["worker", "--node=1"])
    registered = []
    monkeypatch.setattr(cells, "prepare", lambda: None)
    monkeypatch.setattr(cells, "register", lambda: registered.append(True))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("threading.excepthook", sys.excepthook)
    arrived = rebuild(*parts)
    assert Path.cwd() == tmp_path
    assert registered == [True]
    assert sys.argv == ["worker", "--node=1"]
    assert arrived(7) == 7
    assert arrived.__reduce__()[1][0] == str(tmp_path)  # a worker may pickle it again

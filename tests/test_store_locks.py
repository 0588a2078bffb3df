"""Processes that share a store or a run's folder: one writes, with `flock` and without it."""

import errno
import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lr_exp import distributed
from lr_exp.pipeline.outcome import FolderInUseError, only_writer
from lr_exp.store import Recipe, Store
from lr_exp.store.artifacts import problem_of
from lr_exp.store.inventory import list_entries, prune
from lr_exp.store.locks import locked
from tests.support.demo import contents

RECIPE = Recipe("rollout", 1, {"questions": "q"}, {"tokens": 4})


def build_slowly(folder: Path) -> dict:
    (folder / "made_by").write_text(str(os.getpid()), "utf-8")
    time.sleep(0.3)
    return {"count": 4}


def make(root: Path, start, results) -> None:
    start.wait(30)
    made = Store(root).make(RECIPE, build_slowly)
    results.put((os.getpid(), made.reused, (made.folder / "made_by").read_text("utf-8")))


@pytest.fixture(params=[None, errno.ENOSYS])
def file_system(request, monkeypatch):
    """With `flock`, and with an error of file systems that do not have it."""
    if request.param is not None:
        without_flock(monkeypatch, request.param)


def without_flock(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.integration
def test_one_of_four_processes_builds_for_all(tmp_path, file_system):
    fork = multiprocessing.get_context("fork")
    start, results = fork.Event(), fork.Queue()
    workers = [fork.Process(target=make, args=(tmp_path, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    made = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sorted(reused for _, reused, _ in made) == [False, True, True, True]
    assert len({builder for _, _, builder in made}) == 1
    assert [entry.state for entry in list_entries(tmp_path)] == ["finished"]
    assert problem_of(tmp_path / RECIPE.stage / RECIPE.address, RECIPE.address) is None


def test_a_held_lock_excludes_others(tmp_path, file_system, caplog):
    path = tmp_path / "stage" / "a.lock"
    path.parent.mkdir()
    with locked(path, wait=False) as first, locked(path, wait=False) as second:
        assert (first, second) == (True, False)
    with locked(path, wait=True) as again:
        assert again
    assert "waiting" not in caplog.text


@pytest.mark.integration
def test_a_killed_owner_releases_its_lock(tmp_path, file_system):
    path = tmp_path / "stage" / "a.lock"
    path.parent.mkdir()

    def hold() -> None:
        with locked(path, wait=False):
            os.kill(os.getpid(), 9)

    worker = multiprocessing.get_context("fork").Process(target=hold)
    worker.start()
    worker.join(30)
    with locked(path, wait=True) as is_held:
        assert is_held


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_missing_flock_is_reported_once(tmp_path, monkeypatch, caplog, number):
    without_flock(monkeypatch, number)
    store = Store(tmp_path)
    for stage in ("rollout", "score"):
        store.make(Recipe(stage, 1, {}, {}), lambda folder: {})
    (message,) = [message for message in caplog.messages if "no flock" in message]
    assert str(tmp_path) in message


def test_locks_that_other_hosts_do_not_see_leave_one_complete_artifact(tmp_path, monkeypatch):
    """Another host finishes the same artifact while this one builds it."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)

    def overtaken(folder: Path) -> dict:
        (folder / "made_by").write_text("ours", "utf-8")
        hidden = folder.with_name("hidden")
        folder.rename(hidden)
        Store(tmp_path).make(RECIPE, build_slowly)
        hidden.rename(folder)
        return {"count": 4}

    made = Store(tmp_path).make(RECIPE, overtaken)
    assert made.reused
    assert (made.folder / "made_by").read_text("utf-8") == str(os.getpid())
    assert [entry.state for entry in list_entries(tmp_path)] == ["finished"]


def test_one_run_writes_to_a_folder_at_a_time(tmp_path, file_system, monkeypatch):
    """Two runs in one folder mixed their metrics, and one deleted the other's summary."""
    one = tmp_path / "one"
    with only_writer(one):
        refused = pytest.raises(FolderInUseError, match=rf"{one}: .*\(hydra\.run\.dir=")
        with refused, only_writer(one):
            pass
        with only_writer(tmp_path / "sweep" / "beta=0.4"):  # another cell has its own folder
            pass
        monkeypatch.setattr(distributed, "is_rank0", lambda: False)
        with only_writer(one):  # another rank of the same run
            pass
    monkeypatch.undo()
    with only_writer(one):
        pass


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_run_leaves_the_folder_of_another_as_it_is(program, tmp_path, flags):
    """It deleted the page and the links, and replaced `.hydra/` and `failed.json`."""
    cell = tmp_path / "run" / ("dtype=float32,beta=-3" if flags else "")
    with only_writer(cell):
        for name in ("summary.json", "report.html", ".hydra/overrides.yaml"):
            (cell / name).parent.mkdir(exist_ok=True)
            (cell / name).write_text("other", "utf-8")
        before = contents(cell)
        assert f"another run is writing to {cell}" in program("beta=-3", flags=flags).error
        assert contents(cell) == before
    assert "beta=-3.0 is out of range" in program("beta=-3", flags=flags).error
    assert (cell / "failed.json").is_file()
    assert {*contents(cell / ".hydra")} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert "beta=-3" in (cell / ".hydra" / "overrides.yaml").read_text("utf-8")


def test_prune_keeps_artifacts_being_built(tmp_path, file_system):
    """For instance by a run in a folder that was not given."""
    store, runs = Store(tmp_path / "store"), tmp_path / "runs"
    runs.mkdir()
    (runs / "artifacts.txt").write_text("score/" + "0" * 24 + "\n", "utf-8")
    made = store.make(RECIPE, build_slowly)
    with locked(made.folder.with_suffix(".lock"), wait=False):
        assert prune(list_entries(store.root), [runs]) == []
    (entry,) = prune(list_entries(store.root), [runs])
    assert entry.name == f"rollout/{RECIPE.address}"

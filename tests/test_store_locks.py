"""Processes that share a store: locks let one build; without locks nothing is damaged."""

import errno
import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lr_exp.store import Recipe, Store
from lr_exp.store.artifacts import problem_of
from lr_exp.store.inventory import list_entries, prune
from lr_exp.store.locks import locked

RECIPE = Recipe("rollout", 1, {"questions": "q"}, {"tokens": 4})


def build_slowly(folder: Path) -> dict:
    (folder / "made_by").write_text(str(os.getpid()), "utf-8")
    time.sleep(0.3)
    (folder / "answers").write_text("four", "utf-8")
    return {"count": 4}


def make(root: Path, start, results) -> None:
    start.wait(30)
    made = Store(root).make(RECIPE, build_slowly)
    results.put((os.getpid(), made.reused, (made.folder / "made_by").read_text("utf-8")))


def make_in_four_processes(root: Path) -> list[tuple[int, bool, str]]:
    """Process id, whether the artifact was reused, and the id of its builder, by process."""
    fork = multiprocessing.get_context("fork")
    start, results = fork.Event(), fork.Queue()
    workers = [fork.Process(target=make, args=(root, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    made = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    return made


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_process_builds_for_all(tmp_path):
    made = make_in_four_processes(tmp_path)
    assert sorted(reused for _, reused, _ in made) == [False, True, True, True]
    assert len({builder for _, _, builder in made}) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_artifacts_are_built_twice_but_not_damaged(tmp_path, monkeypatch, number):
    without_locks(monkeypatch, number)
    made = make_in_four_processes(tmp_path)
    assert len({builder for _, _, builder in made}) == 1  # all use the one that was finished first
    (only,) = list_entries(tmp_path)
    assert only.state == "finished"
    assert problem_of(only.folder, only.address) is None


def test_missing_locks_are_reported_once(tmp_path, monkeypatch, caplog):
    without_locks(monkeypatch)
    store = Store(tmp_path)
    store.make(RECIPE, build_slowly)
    store.make(Recipe("score", 1, {}, {}), build_slowly)
    (message,) = [message for message in caplog.messages if "no locks" in message]
    assert str(tmp_path) in message


def test_locks_that_other_hosts_do_not_see_leave_one_complete_artifact(tmp_path, monkeypatch):
    """Another host finishes the same artifact while this one builds it."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)

    def overtaken(folder: Path) -> dict:
        (folder / "answers").write_text("ours", "utf-8")
        hidden = folder.with_name("hidden")
        folder.rename(hidden)
        Store(tmp_path).make(RECIPE, build_slowly)
        hidden.rename(folder)
        return {"count": 4}

    made = Store(tmp_path).make(RECIPE, overtaken)
    assert made.reused
    assert (made.folder / "answers").read_text("utf-8") == "four"
    assert [entry.state for entry in list_entries(tmp_path)] == ["finished"]


def test_a_held_lock_excludes_others(tmp_path):
    path, waited = tmp_path / "a.lock", []
    with locked(path, on_wait=None) as first, locked(path, on_wait=None) as second:
        assert (first, second) == (True, False)
    with locked(path, on_wait=lambda: waited.append(1)) as again:
        assert again is True
    assert waited == []


def test_without_locks_prune_keeps_unfinished_artifacts(tmp_path, monkeypatch):
    store, runs = Store(tmp_path / "store"), tmp_path / "runs"
    runs.mkdir()
    (runs / "artifacts.txt").write_text("score/" + "0" * 24 + "\n", "utf-8")
    store.make(RECIPE, build_slowly)
    half = tmp_path / "store" / "score" / ("1" * 24 + ".node7-12.part")
    half.mkdir(parents=True)
    half.with_name("1" * 24 + ".lock").touch()
    without_locks(monkeypatch)
    found = list_entries(tmp_path / "store")
    assert sorted(entry.state for entry in found) == ["finished", "unfinished"]
    assert [entry.state for entry in prune(found, [runs])] == ["finished"]
    assert half.exists()

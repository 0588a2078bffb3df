"""Processes that share a store: one makes an artifact, with locks; without, none is damaged."""

import errno
import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lr_exp.store import Recipe, Store
from lr_exp.store.artifacts import problem_of
from lr_exp.store.inventory import entries, prune
from lr_exp.store.locks import locked

RECIPE = Recipe("rollout", 1, {"questions": "q"}, {"tokens": 4})


def build_slowly(folder: Path) -> dict:
    (folder / "made_by").write_text(str(os.getpid()), "utf-8")
    time.sleep(0.3)
    (folder / "answers").write_text("four", "utf-8")
    return {"count": 4}


def make(root: Path, start, told) -> None:
    start.wait(30)
    made = Store(root).make(RECIPE, build_slowly)
    told.put((os.getpid(), made.reused, (made.folder / "made_by").read_text("utf-8")))


def made_by_four(root: Path) -> list[tuple[int, bool, str]]:
    fork = multiprocessing.get_context("fork")
    start, told = fork.Event(), fork.Queue()
    workers = [fork.Process(target=make, args=(root, start, told)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    said = [told.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    return said


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_processes_that_need_the_same_make_it_once(tmp_path):
    said = made_by_four(tmp_path)
    assert sorted(reused for _, reused, _ in said) == [False, True, True, True]
    assert len({maker for _, _, maker in said}) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_work_is_done_twice_and_nothing_is_damaged(tmp_path, monkeypatch, number):
    without_locks(monkeypatch, number)
    said = made_by_four(tmp_path)
    assert len({maker for _, _, maker in said}) == 1  # all use the one that was first
    (only,) = entries(tmp_path)
    assert only.state == "finished"
    assert problem_of(only.folder, only.address) is None


def test_without_locks_a_user_is_told_once(tmp_path, monkeypatch, caplog):
    without_locks(monkeypatch)
    store = Store(tmp_path)
    store.make(RECIPE, build_slowly)
    store.make(Recipe("score", 1, {}, {}), build_slowly)
    (told,) = [one for one in caplog.messages if "no locks" in one]
    assert str(tmp_path) in told


def test_locks_that_do_not_reach_another_host_leave_one_whole_artifact(tmp_path, monkeypatch):
    """Another host, unseen, finishes the same artifact while this one builds."""
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
    assert [entry.state for entry in entries(tmp_path)] == ["finished"]


def test_a_lock_that_is_held_is_seen_by_others(tmp_path):
    path, waited = tmp_path / "a.lock", []
    with locked(path, on_wait=None) as first, locked(path, on_wait=None) as second:
        assert (first, second) == (True, False)
    with locked(path, on_wait=lambda: waited.append(1)) as again:
        assert again is True
    assert waited == []


def test_without_locks_prune_leaves_what_may_be_in_the_making(tmp_path, monkeypatch):
    store, runs = Store(tmp_path / "store"), tmp_path / "runs"
    runs.mkdir()
    (runs / "artifacts.txt").write_text("score/" + "0" * 24 + "\n", "utf-8")
    store.make(RECIPE, build_slowly)
    half = tmp_path / "store" / "score" / ("1" * 24 + ".node7-12.part")
    half.mkdir(parents=True)
    half.with_name("1" * 24 + ".lock").touch()
    without_locks(monkeypatch)
    found = entries(tmp_path / "store")
    assert sorted(entry.state for entry in found) == ["finished", "unfinished"]
    assert [entry.state for entry in prune(found, [runs])] == ["finished"]
    assert half.exists()

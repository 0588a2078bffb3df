"""The store: recipe addresses, building once, resuming, damage and concurrent processes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_exp.errors import UserError
from lr_exp.store import MANIFEST, Recipe, Store, digest, write_atomically

RECIPE = Recipe("stage", 1, {"model": "a"}, {"beta": 0.4})

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars.filter(lambda v: not isinstance(v, str) or v.isprintable()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


def build_hello(folder):
    (folder / "text.txt").write_text("hello")
    return {"count": 1}


def must_not_build(folder):
    raise AssertionError("built again")


def shuffled(value):
    """The same value with the keys of all dicts reversed."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text("abcd", min_size=1), json_values, max_size=5))
def test_the_order_of_keys_does_not_change_an_address(settings):
    assert digest(settings) == digest(shuffled(settings))
    assert Recipe("s", 1, settings, {}).address == Recipe("s", 1, shuffled(settings), {}).address


@given(json_values, json_values)
def test_different_values_have_different_digests(left, right):
    def canonical(value):
        return json.dumps(value, sort_keys=True)

    assert (digest(left) == digest(right)) == (canonical(left) == canonical(right))


@given(json_values)
def test_a_digest_survives_a_json_round_trip(value):
    assert digest(json.loads(json.dumps(value))) == digest(value)


@pytest.mark.parametrize(
    "other",
    [
        Recipe("stage2", 1, {"model": "a"}, {"beta": 0.4}),
        Recipe("stage", 2, {"model": "a"}, {"beta": 0.4}),
        Recipe("stage", 1, {"model": "b"}, {"beta": 0.4}),
        Recipe("stage", 1, {"model": "a"}, {"beta": 0.8}),
        Recipe("stage", 1, {"model": "a", "beta": 0.4}, {}),
        Recipe("stage", 1, {"model": "a"}, {"beta": 0.4, "alpha": None}),
    ],
)
def test_any_change_of_a_recipe_changes_its_address(other):
    assert other.address != RECIPE.address


def test_the_builder_runs_once(tmp_path):
    made = Store(tmp_path).make(RECIPE, build_hello)
    found = Store(tmp_path).make(RECIPE, must_not_build)
    assert not made.reused
    assert found.reused
    assert (found.folder, found.facts, found.seconds) == (made.folder, made.facts, made.seconds)
    assert not list(tmp_path.rglob("*.part"))
    assert not list(made.folder.rglob(".*"))  # no clock or temporary file


def test_facts_are_the_same_when_made_and_when_found(tmp_path):
    """JSON turned tuples and integer keys into something else on the second run."""
    made = Store(tmp_path).make(RECIPE, lambda folder: {"pair": (1, 2), "by": {3: "x"}})
    assert made.facts == Store(tmp_path).make(RECIPE, must_not_build).facts


def test_the_next_attempt_resumes_after_a_crash(tmp_path):
    store = Store(tmp_path)

    def crash(folder):
        (folder / "first").write_text("done")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        store.make(RECIPE, crash)
    assert store.find(RECIPE) is None

    def resume(folder):
        assert (folder / "first").read_text() == "done"
        (folder / "second").write_text("done")
        return {}

    made = store.make(RECIPE, resume)
    assert sorted(path.name for path in made.folder.iterdir()) == ["first", MANIFEST, "second"]


def test_seconds_are_summed_over_interrupted_tries(tmp_path):
    store = Store(tmp_path)

    def crash(folder):
        time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(RECIPE, crash)
    made = store.make(RECIPE, lambda folder: {})
    assert 0.05 <= made.seconds < 5
    assert json.loads((made.folder / MANIFEST).read_text())["seconds"] == made.seconds


def test_a_stop_between_the_manifest_and_the_rename_builds_nothing_again(tmp_path):
    """The old manifest was listed among the files and then replaced: a damaged artifact."""
    store = Store(tmp_path)
    made = store.make(RECIPE, build_hello)
    made.folder.rename(made.folder.with_suffix(".part"))
    again = store.make(RECIPE, must_not_build)
    assert again.folder == made.folder
    assert again.facts == made.facts


def test_a_part_folder_that_does_not_match_its_manifest_is_built_again(tmp_path):
    store = Store(tmp_path)
    made = store.make(RECIPE, build_hello)
    part = made.folder.with_suffix(".part")
    made.folder.rename(part)
    (part / "text.txt").write_text("changed")
    assert store.make(RECIPE, build_hello).facts == {"count": 1}
    assert store.make(RECIPE, must_not_build).reused


def damage_bytes(folder):
    (folder / "text.txt").write_text("jello")


def truncate(folder):
    (folder / "text.txt").write_text("hel")


def remove_file(folder):
    (folder / "text.txt").unlink()


def remove_manifest(folder):
    (folder / MANIFEST).unlink()


def break_manifest(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def list_as_manifest(folder):
    (folder / MANIFEST).write_text("[]")


def foreign_manifest(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "address": "0" * 24}))


def manifest_without_facts(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["facts"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def file_in_its_place(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("not a folder")


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        truncate,
        remove_file,
        remove_manifest,
        break_manifest,
        list_as_manifest,
        foreign_manifest,
        manifest_without_facts,
        file_in_its_place,
    ],
)
def test_a_damaged_artifact_is_set_aside_and_made_again(tmp_path, damage, caplog):
    store = Store(tmp_path)
    folder = store.make(RECIPE, build_hello).folder
    damage(folder)
    with caplog.at_level(logging.WARNING, logger="lr_exp"):
        again = store.make(RECIPE, build_hello)
    assert not again.reused
    assert (again.folder / "text.txt").read_text() == "hello"
    assert len(list(folder.parent.glob("*.damaged-*"))) == 1
    assert len(caplog.records) == 1
    assert store.make(RECIPE, must_not_build).reused


WORKER = """
import os, sys, time
from pathlib import Path
from lr_exp.store import Recipe, Store

def build(folder):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    (folder / "shard").write_text("x")
    if sys.argv[3] == "hang":
        time.sleep(60)
    time.sleep(0.3)
    return {}

Store(sys.argv[1]).make(Recipe("stage", 1, {"model": "a"}, {"beta": 0.4}), build)
"""


def worker(tmp_path, mode):
    command = [sys.executable, "-c", WORKER, str(tmp_path / "store"), str(tmp_path / "log"), mode]
    return subprocess.Popen(command)  # noqa: S603


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    """Both built, and the second rename failed or mixed their files."""
    both = [worker(tmp_path, "build") for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
    assert Store(tmp_path / "store").make(RECIPE, must_not_build).reused


def test_a_killed_owner_leaves_no_lock_and_its_seconds_count(tmp_path):
    """The lock file of a killed run blocked every later run, and its build time was lost."""
    process = worker(tmp_path, "hang")
    part = tmp_path / "store" / "stage" / f"{RECIPE.address}.part"
    for _ in range(500):
        if (part / "shard").exists():
            break
        time.sleep(0.02)
    os.utime(part / "shard", (time.time() + 10, time.time() + 10))  # as if it had built for 10 s
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    made = Store(tmp_path / "store").make(RECIPE, build_hello)
    assert (made.folder / "shard").read_text() == "x"
    assert 9 < made.seconds < 40


@pytest.mark.parametrize("place", ["store", "store/stage"])
def test_a_store_that_is_not_writable_raises_user_error(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"is not writable .* Set store="):
        Store(tmp_path / "store").make(RECIPE, build_hello)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

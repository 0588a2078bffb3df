"""The store: recipe addresses, building once, resuming, damage and concurrent processes."""

import errno
import json
import logging
import os
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_exp.errors import UserError
from lr_exp.store import MANIFEST, Recipe, Store, artifacts, digest, write_atomically

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
def test_neither_the_order_of_keys_nor_a_json_round_trip_changes_an_address(settings):
    assert digest(settings) == digest(shuffled(settings))
    assert digest(settings) == digest(json.loads(json.dumps(settings)))
    assert Recipe("s", 1, settings, {}).address == Recipe("s", 1, shuffled(settings), {}).address


@given(json_values, json_values)
def test_different_values_have_different_digests(left, right):
    def canonical(value):
        return json.dumps(value, sort_keys=True)

    assert (digest(left) == digest(right)) == (canonical(left) == canonical(right))


@pytest.mark.parametrize(
    "changed",
    [
        *({"stage": "stage2"}, {"version": 2}, {"inputs": {"model": "b"}}),
        *({"settings": {"beta": 0.8}}, {"settings": {"beta": 0.4, "alpha": None}}),
        {"inputs": {"model": "a", "beta": 0.4}, "settings": {}},
    ],
)
def test_any_change_of_a_recipe_changes_its_address(changed):
    assert replace(RECIPE, **changed).address != RECIPE.address


def test_files_get_the_mode_of_the_umask(tmp_path):
    """safetensors writes weights that only their owner can read."""

    def build(folder):
        build_hello(folder)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights.safetensors").touch(0o600)
        return {}

    before = os.umask(0o027)
    try:
        artifact = Store(tmp_path).make(RECIPE, build)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in artifact.folder.rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_an_unreadable_artifact_is_reported_with_who_can_mend_it(tmp_path, monkeypatch):
    artifact = Store(tmp_path).make(RECIPE, build_hello)
    denied = PermissionError(errno.EACCES, "Permission denied", str(artifact.folder / "text.txt"))
    monkeypatch.setattr(artifacts, "file_digest", Mock(side_effect=denied))
    with pytest.raises(UserError, match=r"text.txt is not readable: .* `chmod -R a\+rX .* store="):
        Store(tmp_path).make(RECIPE, must_not_build)


def test_the_builder_runs_once(tmp_path):
    """JSON turned tuples and integer keys into something else on the second run."""
    made = Store(tmp_path).make(RECIPE, lambda folder: {"pair": (1, 2), "by": {3: "x"}})
    found = Store(tmp_path).make(RECIPE, must_not_build)
    assert not made.reused
    assert found.reused
    assert (found.folder, found.facts, found.seconds) == (made.folder, made.facts, made.seconds)
    assert not list(tmp_path.rglob("*.part"))
    assert not list(made.folder.rglob(".*"))  # no clock or temporary file


def test_the_next_attempt_resumes_after_a_crash_and_adds_its_seconds(tmp_path):
    store = Store(tmp_path)

    def crash(folder):
        (folder / "first").write_text("done")
        time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(RECIPE, crash)
    assert store.find(RECIPE) is None

    def resume(folder):
        assert (folder / "first").read_text() == "done"
        (folder / "second").write_text("done")
        return {}

    made = store.make(RECIPE, resume)
    assert sorted(path.name for path in made.folder.iterdir()) == ["first", MANIFEST, "second"]
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
    # Unless the files do not match the manifest.
    part = again.folder.rename(again.folder.with_suffix(".part"))
    (part / "text.txt").write_text("changed")
    assert not store.make(RECIPE, build_hello).reused
    assert store.make(RECIPE, must_not_build).reused


def file_in_its_place(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("not a folder")


def change_manifest(change):
    def damage(folder):
        path = folder / MANIFEST
        path.write_text(change(path.read_text()))

    return damage


DAMAGES = {
    "changed file": lambda folder: (folder / "text.txt").write_text("jello"),
    "short file": lambda folder: (folder / "text.txt").write_text("hel"),
    "missing file": lambda folder: (folder / "text.txt").unlink(),
    "missing manifest": lambda folder: (folder / MANIFEST).unlink(),
    "short manifest": change_manifest(lambda text: text[: len(text) // 2]),
    "list as manifest": change_manifest(lambda text: "[]"),
    "another manifest": change_manifest(lambda text: text.replace(RECIPE.address, "0" * 24)),
    "manifest without facts": change_manifest(lambda text: text.replace("facts", "fact")),
    "file in its place": file_in_its_place,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
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


def test_the_seconds_of_a_killed_attempt_count(tmp_path, monkeypatch):
    """Up to its last write. That its lock is free is in test_store_locks."""

    def killed(folder):
        shard = folder / "shard"
        shard.write_text("x")
        os.utime(shard, (time.time() + 10, time.time() + 10))  # as if it had built for 10 s
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The clock's file is written at the start, and not again.
        written = artifacts.write_atomically
        patch.setattr(artifacts, "write_atomically", lambda p, s: p.exists() or written(p, s))
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).make(RECIPE, killed)
    made = Store(tmp_path).make(RECIPE, build_hello)
    assert (made.folder / "shard").read_text() == "x"
    assert 9 < made.seconds < 40


def test_a_file_where_a_stages_folder_should_be_raises_user_error(tmp_path):
    (tmp_path / "stage").touch()
    with pytest.raises(UserError, match=r"is not writable .* Set store="):
        Store(tmp_path).make(RECIPE, build_hello)


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.replace"])
def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*_):
        assert path.read_text() == "old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

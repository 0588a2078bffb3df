"""`python -m lr_exp.store`: listing, verifying, pruning; full and read-only disks."""

import errno
import re
from pathlib import Path

import pytest

from lr_exp.errors import UserError
from lr_exp.store import MANIFEST, Recipe, Store
from lr_exp.store.__main__ import main
from lr_exp.store.inventory import (
    REFERENCES,
    RUNS,
    find_unreferenced,
    list_entries,
    prune,
    record_reference,
    record_run,
    users,
)


def recipe(number: int, stage: str = "rollout") -> Recipe:
    return Recipe(stage, 1, {}, {"number": number})


def put(store: Store, number: int, text: str = "x" * 2048) -> str:
    """Builds an artifact of one file and returns its name."""
    made = recipe(number)

    def build(folder: Path) -> dict:
        (folder / "data.txt").write_text(text)
        return {}

    store.make(made, build)
    return f"{made.stage}/{made.address}"


@pytest.fixture
def call(capsys):
    def called(root: Path, *words: object) -> tuple[int, str, str]:
        status = main(["--store", str(root), *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return called


@pytest.fixture
def filled(tmp_path):
    """A store of three artifacts, the first of them used by a run."""
    root, run = tmp_path / "store", tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    store = Store(root, on_use=lambda name: record_reference(run, name))
    first = put(store, 1)
    store = Store(root)
    return root, run, [first, put(store, 2), put(store, 3)]


def test_a_reference_is_recorded_before_the_artifact_is_built(tmp_path):
    """A run that is stopped while it builds an artifact uses it, too."""
    store = Store(tmp_path / "store", on_use=lambda name: record_reference(tmp_path, name))

    def stopped(folder: Path) -> dict:
        (folder / "half").write_text("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(recipe(1), stopped)
    put(store, 1)
    put(store, 2)
    references = (tmp_path / REFERENCES).read_text().split()
    assert references == [f"rollout/{recipe(n).address}" for n in (1, 2)]


def test_the_list_has_every_artifact_with_its_size_and_state(filled, call, capsys):
    root, _, names = filled
    part = root / "score" / f"{recipe(9, 'score').address}.part"
    part.mkdir(parents=True)
    (part / "half").write_text("a")
    (root / "notes").mkdir()  # not a stage
    status, out, _ = call(root, "list")
    assert status == 0
    assert main(["list", "--store", str(root)]) == 0  # the option may also be last
    assert capsys.readouterr().out == out
    for name in names:
        stage, address = name.split("/")
        (line,) = [line for line in out.splitlines() if address in line]
        assert line.startswith(stage)
        assert line.endswith("finished")
        assert "2.3 KiB" in line or "2.4 KiB" in line
    assert "unfinished" in out
    assert "3 finished, 1 unfinished" in out.splitlines()[-1]


def test_verify_reports_damaged_artifacts(filled, call):
    root, _, names = filled
    status, out, _ = call(root, "verify")
    assert (status, out) == (0, "3 intact artifacts, 0 damaged\n")
    (root / names[1] / "data.txt").write_text("y" * 2048)
    (root / names[2] / MANIFEST).unlink()
    status, out, _ = call(root, "verify")
    assert status == 1
    assert f"{names[1]}: data.txt is damaged" in out
    assert f"{names[2]}: the manifest cannot be read" in out
    assert "1 intact artifact, 2 damaged" in out


def test_prune_keeps_artifacts_that_a_run_uses(filled, call):
    root, run, names = filled
    status, out, _ = call(root, "prune", run.parent)
    assert status == 0
    assert "2 artifacts" in out
    assert "would be deleted" in out
    assert all((root / name).exists() for name in names)  # only listed
    status, out, _ = call(root, "prune", run.parent, "--yes")
    assert status == 0
    assert "2 artifacts" in out
    assert [(root / name).exists() for name in names] == [True, False, False]
    assert "; 1 kept" in out


def test_list_and_prune_name_the_runs_that_use_an_artifact(filled, call, tmp_path, monkeypatch):
    """A second run in another folder uses the first two artifacts; a third one was deleted."""
    root, run, names = filled
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "elsewhere" / "two"
    other.mkdir(parents=True)
    (other / "summary.json").write_text('{"method": "sharpened"}')
    for name in names[:2]:
        record_reference(other, name)
    for folder in (run, other, other, tmp_path / "deleted"):
        record_run(root, folder)
    assert (root / RUNS).read_text().count("\n") == 3
    lines = call(root, "list")[1].splitlines()
    used, address = {}, ""
    for line in lines[:-1]:
        if line.startswith("  "):
            used[address].append(line.strip())
        else:
            address = line.split()[1]
            used[address] = []
    first, second, third = (used[name.partition("/")[2]] for name in names)
    assert first == ["no method recorded, runs/one", "sharpened, elsewhere/two"]
    assert (second, third) == (["sharpened, elsewhere/two"], [])
    lost = r"1 artifact, 2\.\d KiB: sharpened, elsewhere/two"
    assert re.search(f"Another run would lose {lost}", call(root, "prune", run)[1])
    assert "Another run" not in call(root, "prune", tmp_path)[1]
    assert re.search(f"Another run loses {lost}", call(root, "prune", run, "--yes")[1])


def test_a_store_that_cannot_be_written_to_does_not_stop_a_run(tmp_path):
    record_run(tmp_path / "missing", tmp_path)
    assert users(tmp_path / "missing") == {}


def test_prune_keeps_unfinished_artifacts_of_runs_and_deletes_damaged_ones(filled, call):
    root, run, names = filled
    (root / names[1]).rename(root / f"{names[1]}.part")
    (root / names[2]).rename(root / f"{names[0]}.damaged-17")
    record_reference(run, names[1])
    assert call(root, "prune", run, "--yes")[0] == 0
    assert [(entry.name, entry.state) for entry in list_entries(root)] == sorted(
        [(names[0], "finished"), (names[1], "unfinished")]
    )


def test_prune_refuses_a_folder_without_runs(filled, call, tmp_path):
    """With an empty or mistyped folder, prune would delete everything."""
    root, _, names = filled
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        status, _, err = call(root, "prune", folder, "--yes")
        assert (status, err.count("\n")) == (1, 1)
        assert "there is no run" in err
    assert all((root / name).exists() for name in names)


# Full and read-only disks ------------------------------------------------------------------------


FULL = {
    "system": OSError(errno.ENOSPC, "No space left on device", "shard-000001.tmp"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded", "shard-000001.tmp"),
    "safetensors": RuntimeError("I/O error: No space left on device (os error 28)"),
    "other": OSError(errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_is_a_user_error_and_finished_files_stay(tmp_path, error):
    """Another error of the disk is not reported as a full one."""
    is_other = error is FULL["other"]
    store = Store(tmp_path)
    finished = put(store, 1)

    def build(folder: Path) -> dict:
        if not (folder / "first").exists():
            (folder / "first").write_text("done")
            raise error
        return {"found": (folder / "first").read_text()}

    kind, message = (OSError, "Input/output") if is_other else (UserError, "full.*store=")
    with pytest.raises(kind, match=message) as caught:
        store.make(recipe(2), build)
    assert caught.value is error or caught.value.__cause__ is error
    assert (tmp_path / finished / "data.txt").exists()
    assert store.make(recipe(2), build).facts == {"found": "done"}  # resumed


def test_find_writes_nothing(tmp_path):
    """A store may be on a read-only disk, and another process may build a damaged artifact."""
    name = put(Store(tmp_path), 1)
    (tmp_path / f"{name}.lock").unlink()
    before = sorted(tmp_path.rglob("*"))
    put(Store(tmp_path), 1)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / name / "data.txt").write_text("y")
    assert Store(tmp_path).find(recipe(1)) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_artifact_that_cannot_be_set_aside(tmp_path, monkeypatch):
    name = put(Store(tmp_path), 1)
    (tmp_path / name / "data.txt").write_text("y")

    def refused(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UserError, match=r"data.txt is damaged.*Read-only.*store="):
        put(Store(tmp_path), 1)


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path):
    store, made = Store(tmp_path), recipe(1)
    part = tmp_path / made.stage / f"{made.address}.part"
    (part / "deeper").mkdir(parents=True)
    (part / "deeper" / ".data.txt.123.tmp").write_text("half")
    name = put(store, 1)
    files = {path.name for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert files == {"data.txt", MANIFEST}


def test_the_manifest_is_written_before_the_rename(tmp_path, monkeypatch):
    """Other processes take a folder with the final name for complete."""
    seen, rename = [], Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append((self / MANIFEST).exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    put(Store(tmp_path), 1)
    assert seen == [True]


def test_a_temporary_read_error_is_not_damage(tmp_path, monkeypatch):
    """With too many open files, for instance, intact artifacts must not be set aside."""
    name = put(Store(tmp_path), 1)

    def refused(path: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("lr_exp.store.artifacts.file_digest", refused)
    with pytest.raises(OSError, match="Too many"):
        Store(tmp_path).find(recipe(1))
    assert (tmp_path / name / MANIFEST).exists()


@pytest.mark.parametrize("content", [None, b"garbage\n", b"\xff\xfe\x00", b"rollout/0123", b""])
def test_prune_refuses_missing_and_damaged_references(filled, call, content):
    root, run, names = filled
    (run / "summary.json").write_text("{}")
    (run / REFERENCES).unlink()
    if content is not None:
        (run / REFERENCES).write_bytes(content)
    status, _, err = call(root, "prune", run.parent, "--yes")
    assert status == 1
    assert f"{run / REFERENCES}, " in err
    assert "Run its command again" in err
    assert all((root / name).exists() for name in names)
    record_reference(run, names[0])  # the same command again repairs them
    assert (run / REFERENCES).read_text() == f"{names[0]}\n"


def test_prune_keeps_an_artifact_requested_meanwhile(filled):
    root, run, names = filled
    candidates = find_unreferenced(root, [run])
    assert {entry.name for entry in candidates} == set(names[1:])
    record_reference(run, names[1])
    assert [entry.name for entry in prune(candidates, [run])] == [names[2]]
    assert (root / names[1]).exists()

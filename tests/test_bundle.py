"""Replication bundles: what they contain, and how a report reads those of others."""

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from lr_exp.bundle import members
from lr_exp.bundle.__main__ import main as bundle
from lr_exp.bundle.members import MANIFEST
from lr_exp.claims.__main__ import main as claims
from lr_exp.errors import printable
from lr_exp.evaluator import grade
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.report.__main__ import main as report
from tests.support.run_folders import write_metrics, write_run

HOSTILE = "\x1b[2J<img src=x onerror=alert(1)>\u202e"
RUN = "lightreasoner"
ANSWERS = "other/answers/tuned/micro_add.jsonl"


def write_gradable(folder: Path, **choices: Any) -> Path:
    """A run whose answers can be graded again, with the summary that belongs to them."""
    write_run(folder, **choices)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    for path in folder.glob("answers/*/*.jsonl"):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for record in records:
            answer = "2" if record["correct"] else "3"
            record |= {"question": HOSTILE, "output": f"{HOSTILE} \\boxed{{{answer}}}"}
            record |= {"reference": "2", "kind": "number", "tokens": 5, "finished": True}
            record |= {"extracted": answer, "rule": "box"}
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        result = aggregate(records).to_dict()
        for part in (summary["evaluate"], summary["evaluate"]["prompts"]["chat"]):
            part[path.parent.name][path.stem] = result
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of a method and one of another, with private settings."""
    folder = tmp_path / "theirs"
    private = {
        "settings__store": "/home/jane/store",
        "settings__overrides": ["data.path=/home/jane/x"],
        "settings__wandb": {"entity": "janes-team"},
        "settings__sampler": {"prompt": "/home/jane/plain.jinja", "system_prompt": "/no_think"},
    }
    for seed in (0, 1):
        write_gradable(folder / f"{RUN}{seed}", seed=seed, **private)
        write_metrics(folder / f"{RUN}{seed}", {1: 0.5})
    write_gradable(folder / "other", method="no_contrast", **private)
    (folder / f"{RUN}0" / "adapter").mkdir()
    (folder / f"{RUN}0" / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / f"{RUN}0" / "artifacts.txt").write_text("rollout/0123\n", encoding="utf-8")
    return folder


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)

    def run(program: Callable[..., int], *words: object) -> tuple[int, str]:
        shown = io.StringIO()
        with redirect_stdout(shown), redirect_stderr(shown):
            status = program([str(word) for word in words])
        return status, shown.getvalue()

    return run


@pytest.fixture
def made(runs: Path, tmp_path: Path, call: Call) -> Path:
    """A bundle of the runs, alone in a folder."""
    out = tmp_path / "mine" / "gpu.bundle.zip"
    out.parent.mkdir()
    assert call(bundle, runs, "-o", out)[0] == 0
    return out


Content = dict[str, bytes]


def change(path: Path, edit: Callable[[Content], None], *, listed: bool = False) -> None:
    """Rewrites a bundle; with `listed`, its manifest lists what it then contains."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    edit(content)
    if listed:
        manifest = json.loads(content.pop(MANIFEST))
        manifest["members"] = {
            name: {"bytes": len(one), "sha256": sha256(one)} for name, one in content.items()
        }
        content[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in content.items():
            archive.writestr(name, one)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lines_of(text: str) -> list[str]:
    """The rows of the first table in the terminal."""
    return [line.replace(", bundle gpu", "") for line in text.splitlines() if "±" in line]


def test_a_report_of_the_bundle_has_the_numbers_of_the_runs_and_a_mark(made, runs, call):
    own, theirs = call(report, runs), call(report, made.parent)
    assert own[0] == theirs[0] == 0
    rows = [[*line.split()] for line in lines_of(own[1])]
    assert rows
    assert [[*line.split()] for line in lines_of(theirs[1])] == rows
    for line in theirs[1].splitlines():
        assert "±" not in line or ", bundle gpu" in line or line.startswith("AVG")
    folder = made.parent / "report"
    names = {path.name for path in folder.iterdir()}
    expected = {path.name for path in (runs / "report").iterdir()}
    assert names == {one.replace("results", "results_bundle_gpu") for one in expected}
    text = (folder / "report.html").read_text("utf-8")
    assert "Results, bundle gpu" in text
    assert "is a bundle of other people" in text
    assert ", bundle gpu" in (folder / "results_bundle_gpu.tex").read_text("utf-8")
    assert ", bundle gpu" in (folder / "results_bundle_gpu.csv").read_text("utf-8")
    assert "graded again: 24 (" in theirs[1]
    assert "grade: 0. Accuracies that differ from the bundle's: 0." in " ".join(theirs[1].split())


def test_own_runs_and_bundles_share_no_row(made, runs, call):
    write_gradable(made.parent / "own", seed=5)
    (made.parent / "b.bundle.zip").write_bytes(made.read_bytes())
    status, text = call(report, made.parent)
    assert status == 0
    assert "runs: 7 finished" in text
    seeds = [line for line in text.splitlines() if line.startswith("LightReasoner")]
    assert [line.split("  ")[0] for line in seeds] == [
        *("LightReasoner", "LightReasoner, bundle b", "LightReasoner, bundle gpu")
    ]
    status, text = call(report, made.parent, "--where", "seed=0")
    assert "runs: 4 finished with seed=0" in text


def test_a_bundle_is_reported_alone_too(made, call):
    assert call(report, made)[0] == 0
    assert (made.parent / "gpu.bundle" / "report" / "report.html").exists()


def test_a_bundle_is_not_compared_with_a_run(made, runs, call):
    for program in (report, claims):
        status, text = call(program, runs / "other", made)
        assert status == 1
        assert f"{made} is a bundle, which is not compared question by question: put it" in text


def test_a_bundle_has_no_weights_paths_or_names_of_the_sender(made, runs, tmp_path, call):
    with zipfile.ZipFile(made) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    places = {name.partition("/")[2] for name in content if name.startswith(f"{RUN}0/")}
    answers = {f"answers/{who}/micro_add.jsonl" for who in ("expert", "tuned")}
    assert places == {"summary.json", "metrics.jsonl", "artifacts.txt", *answers}
    every = b"\n".join(content.values())
    assert b"jane" not in every
    assert str(tmp_path).encode() not in every
    settings = json.loads(content[f"{RUN}0/summary.json"])["settings"]
    assert settings["sampler"] == {"prompt": "plain.jinja", "system_prompt": "/no_think"}
    assert json.loads(content[MANIFEST])["grading"] == grade.VERSION
    again = tmp_path / "again.bundle.zip"
    text = call(bundle, runs, "-o", again)[1]
    assert again.read_bytes() == made.read_bytes()
    assert f"sha256 {sha256(made.read_bytes())}" in text


def altered(content: Content) -> None:
    content["other/summary.json"] += b" "


def as_large(content: Content) -> None:
    content["other/summary.json"] = content["other/summary.json"][:-1] + b" "


def missing(content: Content) -> None:
    del content[ANSWERS]


def compressed(content: Content) -> None:
    """The grader would unpack it, however large it is."""
    content[ANSWERS] = gzip.compress(content[ANSWERS])


def without_last_answer(content: Content) -> None:
    content[ANSWERS] = b"".join(content[ANSWERS].splitlines(keepends=True)[:-1])


def without_manifest(content: Content) -> None:
    del content[MANIFEST]


def other_format(content: Content) -> None:
    content[MANIFEST] = json.dumps({**json.loads(content[MANIFEST]), "format": 2}).encode()


def add(name: str, text: bytes = b"{}") -> Callable[[Content], None]:
    return lambda content: content.update({name: text})


def edit_summary(key: str, value: Any) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        summary = json.loads(content["other/summary.json"])
        content["other/summary.json"] = json.dumps({**summary, key: value}).encode()

    return edit


def edit_answers(**values: Any) -> Callable[[Content], None]:
    """Replaces values in the first answer of the run `other`."""

    def edit(content: Content) -> None:
        first, *others = content[ANSWERS].splitlines(keepends=True)
        content[ANSWERS] = (
            json.dumps(json.loads(first) | values).encode() + b"\n" + b"".join(others)
        )

    return edit


@pytest.mark.parametrize(
    ("edit", "listed", "message"),
    [
        (altered, False, "other/summary.json was altered"),
        (as_large, False, "other/summary.json was altered"),
        (missing, False, "tuned/micro_add.jsonl was added or removed"),
        (missing, True, "tuned/micro_add.jsonl is missing"),
        (add("other/x.json"), False, "other/x.json was added or removed"),
        (add("other/x.json"), True, "other/x.json is missing, or is not a file of a run"),
        (add("other/report.html"), True, "is not a file of a run"),
        (add("summary.json"), True, "summary.json"),
        (add("../outside"), True, "invalid name '../outside'"),
        (add("/outside"), True, "invalid name '/outside'"),
        (add("a/../../outside"), True, "invalid name"),
        (add("a\\..\\outside"), True, "invalid name"),
        (add("C:outside"), True, "invalid name"),
        (add("other/\x1b[2J"), True, "invalid name 'other/\\x1b[2J'"),
        (add("other/"), True, "invalid name"),
        (without_manifest, False, f"it has no {MANIFEST}"),
        (other_format, False, "its format is 2, not 1"),
        (add(MANIFEST, b"[]"), False, "the bundle cannot be used: manifest.json: "),
        (add(MANIFEST, b'{"format": 1}'), False, "manifest.json: lr_exp is missing"),
        (edit_summary("seed", "x"), True, "be used: other/summary.json cannot be read (seed "),
        (add("other/failed.json"), True, "other/failed.json is not a file of a finished run"),
        (edit_answers(kind="x"), True, "other/answers/tuned/micro_add.jsonl, line 1: kind"),
        (edit_answers(tokens="x"), True, "line 1: tokens"),
        (edit_answers(finished=HOSTILE), True, "line 1: finished"),
        (edit_answers(rule=[], tokens=10**400), True, "line 1: tokens"),
        (edit_answers(reference=[]), True, "line 1: reference"),
        (edit_answers(id="micro_add/1"), True, f"{ANSWERS}: a question of micro_add occurs twice"),
        (edit_answers(reference="3"), True, f"{ANSWERS}: question 'micro_add/0' of micro_add"),
        (edit_answers(kind="math"), True, f"{ANSWERS}: question 'micro_add/0' of micro_add"),
        (
            without_last_answer,
            True,
            f"{ANSWERS} has 3 answers to micro_add, but summary.json has 4",
        ),
        (compressed, True, f"{ANSWERS}: 'utf-8' codec can't decode byte 0x8b"),
        (add(ANSWERS, b"[]\n5\n"), True, f"{ANSWERS}: it is not a JSON object"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_one_error(made, call, tmp_path, edit, listed, message):
    change(made, edit, listed=listed)
    before = sorted(tmp_path.rglob("*"))
    status, text = call(report, made.parent)
    assert status == 1
    assert message in text
    assert len(text.splitlines()) == 1
    assert printable(text) == text
    assert "Run the same command" not in text  # which is somebody else's
    assert "lr_exp_bundles" not in text  # the folder that it was unpacked to
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unusable_bundle_does_not_stop_the_report_of_other_runs(made, call):
    change(made, altered)
    write_gradable(made.parent / "own")
    status, text = call(report, made.parent)
    assert status == 0
    assert "damaged: gpu.bundle.zip: the bundle cannot be used: other/summary.json was" in text
    assert "runs: 1 finished, 0 failed, 1 damaged" in text


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_archive_is_one_error(tmp_path, call, content):
    (tmp_path / "x.bundle.zip").write_bytes(content)
    for place in (tmp_path, tmp_path / "x.bundle.zip"):
        status, text = call(report, place)
        assert (status, len(text.splitlines())) == (1, 1)
        assert "x.bundle.zip: the bundle cannot be used: File is not a zip file" in text


def test_a_truncated_archive_is_one_error(made, call):
    content = made.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        made.write_bytes(content[:length] + bytes(20) + content[length + 20 :])
        status, text = call(report, made)
        assert len(text.splitlines()) == 1 or status == 0
        made.write_bytes(content[:length])
        assert call(report, made)[0] == 1


@pytest.mark.parametrize("limit", ["MAX_MEMBER_BYTES", "MAX_TOTAL_BYTES", "MAX_MEMBERS"])
def test_a_bundle_above_a_limit_is_not_unpacked(made, call, monkeypatch, limit):
    monkeypatch.setattr(members, limit, 10)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    status, text = call(report, made)
    assert status == 1
    assert "too large" in text


def test_a_member_is_unpacked_only_up_to_its_declared_size(made, call):
    """A bomb whose header understates its size."""
    with zipfile.ZipFile(made, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other/bomb", bytes(2**24))
    content = made.read_bytes()
    size = (2**24).to_bytes(4, "little")
    assert content.count(size) == 2  # in the member's header and in the directory
    made.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    status, text = call(report, made)
    assert (status, len(text.splitlines())) == (1, 1)


def test_methods_of_compression_without_a_limit_on_memory_are_refused(made, call):
    with zipfile.ZipFile(made, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("other/x", b"x")
    assert "other/x has an unknown compression" in call(report, made)[1]


def test_two_members_of_the_same_name_are_refused(made, call):
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("other/summary.json", b"{}")
    assert "two members of the same name" in call(report, made)[1]


def test_answers_are_graded_again(made, call):
    """Grades of another version, and a summary that does not match the answers."""

    def edit(content: Content) -> None:
        manifest = json.loads(content[MANIFEST])
        content[MANIFEST] = json.dumps({**manifest, "grading": 1}).encode()
        edit_answers(correct=False)(content)
        summary = json.loads(content["other/summary.json"])
        result = summary["evaluate"]["tuned"]["micro_add"]
        result |= {"correct": 4, "accuracy": 1.0}
        summary["evaluate"]["gains"] = None
        content["other/summary.json"] = json.dumps(summary).encode()

    untouched = call(report, made)[1]
    change(made, edit, listed=True)
    status, text = call(report, made)
    assert status == 0
    assert lines_of(text) == lines_of(untouched)
    assert max(map(len, text.splitlines()[:-1])) <= 80  # the last line has paths
    text = " ".join(text.split())
    assert "graded again: 24 (grading version 1 there, 3 here); with another grade: 1 (mic" in text
    assert "1 (micro_add). Accuracies that differ from the bundle's: 1 (micro_add)." in text


def test_hostile_texts_of_a_bundle_are_shown_escaped(runs, tmp_path, call):
    name = "<img src=x>"
    write_gradable(runs / name, method=HOSTILE, expert=HOSTILE, sweep=HOSTILE)
    out = tmp_path / "mine" / "<b>.bundle.zip"
    out.parent.mkdir()
    assert call(bundle, runs, "-o", out)[0] == 0
    status, text = call(report, out.parent)
    assert status == 0
    assert printable(text) == text
    for path in (out.parent / "report").iterdir():
        if path.suffix in (".html", ".csv"):
            text = path.read_text("utf-8")
            assert printable(text) == text
            assert path.suffix == ".csv" or ("<img src=x" not in text and "<b>.bundle" not in text)


def test_the_bundle_of_a_single_run_has_its_name(runs, tmp_path, call):
    out = tmp_path / "x.bundle.zip"
    status, text = call(bundle, runs / "other", "-o", out)
    assert status == 0
    assert ": 1 run in " in text
    with zipfile.ZipFile(out) as archive:
        assert "other/summary.json" in archive.namelist()


@pytest.mark.parametrize("name", ["x.zip", "there.bundle.zip", "no folder/x.bundle.zip"])
def test_an_output_that_cannot_be_written_is_one_error(runs, tmp_path, call, name):
    (tmp_path / "there.bundle.zip").write_bytes(b"mine")
    status, text = call(bundle, runs, "-o", tmp_path / name)
    assert (status, len(text.splitlines())) == (1, 1)
    assert name in text
    assert (tmp_path / "there.bundle.zip").read_bytes() == b"mine"


def test_runs_that_cannot_be_bundled_are_one_error(runs, tmp_path, call):
    out = tmp_path / "x.bundle.zip"
    (tmp_path / "empty").mkdir()
    assert "contains no run" in call(bundle, tmp_path / "empty", "-o", out)[1]
    (runs / "other" / "answers" / "tuned" / "micro_add.jsonl").unlink()
    status, text = call(bundle, runs, "-o", out)
    assert (status, len(text.splitlines())) == (1, 1)
    assert "other/answers/tuned/micro_add.jsonl is missing" in text
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == []

"""`python -m bench.gpu`: its steps run in children, are skipped when done, and fill a document."""

import json
import sys

import pytest

from bench import gpu, gpu_tables
from bench.gpu_steps import STEPS
from tests.support.files import replaced_text, write_marked_document

SCRIPT = """
import json, pathlib, sys, time
step, options, path = sys.argv[1:]
calls = pathlib.Path(path).parent / "calls"
calls.write_text((calls.read_text() if calls.exists() else "") + step + " ")
pathlib.Path(path).write_text(json.dumps({"value": 7}))
if step == "micro":
    sys.exit("no such kernel")
if step == "compiled":
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the program with children that do nothing, and returns its status and their names."""
    monkeypatch.setattr(gpu, "CHILD", (sys.executable, "-c", SCRIPT))

    def run(*words):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        status = gpu.main(["--device", "cpu", "--out", str(tmp_path), *words])
        return status, calls.read_text("utf-8").split() if calls.exists() else []

    return run


def test_the_steps_have_the_names_of_the_program():
    assert tuple(STEPS) == gpu.STEPS


@pytest.mark.integration
def test_finished_steps_are_skipped_until_code_or_device_change(run, monkeypatch):
    steps = ("--steps", "environment", "ranks")
    assert run(*steps) == (0, ["environment", "ranks"])
    assert run(*steps) == (0, [])
    assert run(*steps, "--again", "ranks") == (0, ["ranks"])
    assert run(*steps, "--toy") == (0, ["environment", "ranks"])
    key = {"code": "other", "device": "cpu", "toy": True}
    monkeypatch.setattr(gpu, "_key", lambda _: key)
    assert run("--steps", "ranks", "--toy") == (0, ["ranks"])


@pytest.mark.integration
def test_a_failing_and_a_stopped_step_are_recorded_and_repeated(run, tmp_path):
    words = ("--steps", "micro", "compiled", "ranks", "--step-seconds", "4")
    assert run(*words) == (1, ["micro", "compiled", "ranks"])
    records = [gpu.read_record(tmp_path, name) for name in words[1:4]]
    assert [record["status"] for record in records] == ["failed", "failed", "done"]
    reasons = ["status 1: no such kernel", "stopped after 4 s", ""]
    assert [record["reason"] for record in records] == reasons
    assert all(record["results"] == {"value": 7} for record in records)  # of stopped ones, too
    assert run(*words)[1] == ["micro", "compiled"]


@pytest.mark.integration
def test_the_document_has_the_tables_of_all_records(run, tmp_path):
    run("--steps", "environment")
    document = write_marked_document(tmp_path / "page.md")
    run("--steps", "micro", "--commit", "abc", "--readme", str(document))
    text = replaced_text(document)
    assert "### environment\n\ncpu, " in text
    assert "commit abc" in text
    assert "**Failed**: status 1: no such kernel." in text
    assert "- value: 7" in text
    assert "### environment" in (tmp_path / "gpu.md").read_text("utf-8")
    assert run("--steps") == (0, [])
    assert "### micro" in (tmp_path / "gpu.md").read_text("utf-8")


def test_values_become_facts_and_tables_by_their_shape():
    results = {
        "seconds": 12345.678,
        "spread": {"median": 1e-7, "idle_share": None},
        "stages": {"rollout": {"seconds": 2, "peak_memory_bytes": 2**30}, "score": {"share": 0.5}},
        "kernels": [{"kernel": "a|b", "calls": 3}],
    }
    facts = {"step": "micro", "device": "cpu", "date": "2026-12-01", "commit": None, "seconds": 3.2}
    record = {**facts, "code": "abc", "toy": False, "reason": "", "results": results}
    lines = gpu_tables.markdown([record]).splitlines()
    assert "cpu, 2026-12-01, code abc, 3 s." in lines
    assert "- seconds: 12,346" in lines
    assert "- spread: median 1e-07, idle share None" in lines
    assert "| stages | seconds | peak memory | share |" in lines
    assert "| rollout | 2 | 1.00 GiB |  |" in lines
    assert "| score |  |  | 50.0% |" in lines
    assert lines[-4:] == ["", "| kernel | calls |", "|---|---|", "| a\\|b | 3 |"]


def test_a_missing_or_old_package_stops_the_program_before_any_work(tmp_path, monkeypatch, capsys):
    assert gpu.missing_packages() == []
    found = gpu.importlib.metadata.distribution

    def distribution(name):
        if name in ("hydra-core", "antlr4-python3-runtime"):  # the second: of omegaconf, too
            raise gpu.importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(gpu.importlib.metadata, "distribution", distribution)
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "hydra-core<1.4,>=1.3.2" in error
    assert "antlr4-python3-runtime" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.integration
def test_a_rehearsal_at_toy_sizes_finishes_every_step(tmp_path):
    assert gpu.main(["--toy", "--device", "cpu", "--out", str(tmp_path)]) == 0
    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in gpu.STEPS}
    results = {name: record["results"] for name, record in records.items()}
    assert results["environment"]["attention"]["sdpa"] == {"packs": True, "caches": True}
    assert results["micro"]["equal_answers"] == results["micro"]["answers"] == 6
    assert results["micro"]["kept"] > 0 == results["micro"]["kl_difference_nats"]["max"]
    assert results["micro"]["adapter_relative_difference"] == 0
    for name in ("qwen_math_1_5b", "qwen_math_7b"):
        assert [*results[name]["stages"]] == ["rollout", "score", "training", "evaluate"]
    for part in ("decode", "train"):
        assert results["compiled"][part]["eager"]["speedup"] == 1
        assert len(results["profile"][f"kernels, {part}"]) == 15
    assert results["precision"]["micro"]["steps"] > 0
    variants = {row["variant"] for row in results["ablation"]["micro_ablation"]}
    assert variants == {"baseline", "LightReasoner", "both removed"}
    assert results["ranks"] == {"note": "one device"}
    assert "| rollout |" in (tmp_path / "gpu.md").read_text("utf-8")

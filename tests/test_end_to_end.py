"""Whole runs of the micro pair: results, reuse, resuming, records, and the empty selection."""

import json
import random
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lr_exp.config.composition import conf_dir
from lr_exp.distiller import distill
from lr_exp.errors import UserError
from lr_exp.inference.generation import single_decoding
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import Inputs
from lr_exp.sampler.supervision import Supervision
from lr_exp.store import Store
from lr_exp.store.shards import read_shards
from tests.support.demo import go, results, settings_for
from tests.support.files import read_lines
from tests.support.sampling import load_micro
from tests.support.trajectories_file import read_compressed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder and the summary of a finished run."""
    tmp_path = tmp_path_factory.mktemp("first")
    return tmp_path, go(tmp_path, "run", figures=True)


def test_the_summary_is_complete_and_true_to_the_files(first):
    tmp_path, summary = first
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    for key in ("method", "expert", "amateur", "alpha", "beta", "seed", "versions"):
        assert key in summary
    sample, distill, evaluate = (summary[name] for name in ("sample", "distill", "evaluate"))
    assert sample["questions"] == 24
    assert 0 < sample["kept"] < sample["steps"]
    assert sample["seconds"] > 0
    assert Supervision.load(Path(sample["artifact"])).digest() == sample["supervision"]
    assert (distill["optimizer_steps"], distill["tuned_tokens"]) == (8, 128)
    assert summary["peak_memory_bytes"] > 10**7
    for who in ("expert", "tuned"):
        for name in ("micro_add", "micro_plain"):
            result = evaluate[who][name]
            records = read_lines(tmp_path / "run" / "answers" / who / f"{name}.jsonl")
            assert result["total"] == len(records) == 12
            assert result["correct"] == sum(record["correct"] for record in records)
            assert result["accuracy"] == result["correct"] / 12
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    metrics = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [m["step"] for m in metrics if m["family"] == "distill"] == [1, 2, 4, 6, 8]
    assert {"sample", "eval/micro_add", "eval/micro_plain"} <= {m["family"] for m in metrics}


def test_the_trajectories_on_the_page_are_those_of_the_summary(first):
    """All 24 are shown, so their tokens are the summary's steps, and their marks what it kept."""
    tmp_path, summary = first
    shown = json.loads(read_compressed(tmp_path / "run" / "trajectories.json.gz"))
    assert (shown["answers_total"], shown["chosen"]) == (24, "all 24 answers")
    for key in ("method", "expert", "amateur", "alpha", "beta"):
        assert shown[key] == summary[key]
    answers, sample = shown["answers"], summary["sample"]
    assert sum(len(answer["token"]) for answer in answers) == sample["steps"]
    assert sum(sum(answer["kept"]) for answer in answers) == sample["kept"]
    divergences = [kl for answer in answers for kl in answer["kl"]]
    assert np.mean(divergences) == pytest.approx(sample["kl_mean"], abs=1e-4)
    same = [flag for answer in answers for flag in answer["same_top1"]]
    assert np.mean(same) == pytest.approx(sample["share_same_top1"])
    by_position = sample["by_position"]
    assert sum(by_position["steps"]) == sample["steps"]
    assert sum(by_position["kept"]) == sample["kept"]
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"({sample['kept']:,} of {sample['steps']:,}" in page


def test_a_warning_about_the_pair_is_in_the_log_the_summary_and_the_page(first, caplog):
    tmp_path, without = first
    assert without["warnings"] == []
    summary = go(tmp_path, "peer", "amateur=micro_peer", "stages=[sample]")
    (warning,) = summary["warnings"]
    assert "hardly differs from the expert" in warning
    assert [one.getMessage() for one in caplog.records].count(warning) == 1
    page = (tmp_path / "peer" / "report.html").read_text("utf-8")
    assert "hardly differs from the expert" in page


def test_all_random_generators_are_seeded(tmp_path, first, monkeypatch):
    """A library that uses a global generator must draw the same in a second run."""
    names = {"python", "numpy", "torch", "questions", "data_order"}
    assert first[1]["seeds"] == dict.fromkeys(names, first[1]["seed"])
    drawn = []

    def draw(*_: object, **__: object) -> None:
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
        raise UserError("stop here")

    monkeypatch.setattr("lr_exp.pipeline.run.RunContext", draw)
    for _ in range(2):
        with pytest.raises(UserError, match="stop here"):
            go(tmp_path, "run")
    assert drawn[0] == drawn[1]


def test_a_failed_run_renames_earlier_numbers_and_deletes_the_earlier_page(tmp_path):
    """Earlier results must neither be lost by a mistake nor be taken for those of this run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("summary.json", "metrics.jsonl", "report.html", "trajectories.json.gz"):
        (folder / name).write_text("earlier", "utf-8")
    with pytest.raises(UserError):
        go(tmp_path, "run", "expert.path=/nowhere")
    earlier = [path for path in folder.iterdir() if path.read_text("utf-8") == "earlier"]
    assert {path.name for path in earlier} == {"previous.summary.json", "previous.metrics.jsonl"}


def test_a_second_run_reuses_everything_and_gives_the_same_results(first, monkeypatch):
    tmp_path, summary = first
    monkeypatch.setattr(
        "lr_exp.models.loading.load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    monkeypatch.setattr("lr_exp.report.figures.draw_run", lambda _: pytest.fail("was drawn again"))
    again = go(tmp_path, "again", figures=True)
    assert again["sample"]["reused"]
    assert again["distill"]["reused"]
    assert results(again) == results(summary)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "again")]
    assert lines[0] == lines[1]  # the record is whole although nothing was trained
    pages = [(tmp_path / name / "report.html").read_text("utf-8") for name in ("run", "again")]
    images = [re.findall(r'src="(data:image[^"]*)', page) for page in pages]
    assert images[0] == images[1]
    assert len(images[0]) >= 3


def test_no_step_above_beta_ends_the_run_without_training(first, caplog):
    tmp_path, summary = first
    stopped = go(tmp_path, "stopped", "beta=1000")
    assert stopped["sample"]["kept"] == 0
    assert "distill" not in stopped
    assert stopped["evaluate"]["expert"] == summary["evaluate"]["expert"]
    assert "tuned" not in stopped["evaluate"]
    assert f"{summary['sample']['kl_max']:.4g} nats" in stopped["stopped"]
    assert (tmp_path / "stopped" / "summary.json").is_file()


def test_exported_records_distil_like_the_run_they_came_from(first):
    tmp_path, _ = first
    file = tmp_path / "records.jsonl"
    exported = go(tmp_path, "export", f"sampler.export={file}", "stages=[sample]")
    assert len(file.read_text("utf-8").splitlines()) == exported["sample"]["kept"]
    imported = go(tmp_path, "import", "data=lr_samples", f"data.path={file}")
    assert imported["sample"]["supervision"] == exported["sample"]["supervision"]
    assert imported["distill"]["reused"]  # the same supervision: the same adapter
    # What made the records is not known, so nothing is claimed of it.
    for name in ("method", "amateur", "alpha", "beta"):
        assert imported[name] is None


def test_stages_that_are_left_out_are_read_from_the_store_or_named_in_an_error(first):
    """A folder that is used again keeps no link of the earlier run."""
    tmp_path, summary = first
    used = tmp_path / "used"
    go(tmp_path, "used", "stages=[distill]", "distiller.steps=1")
    later = go(tmp_path, "used", "stages=[distill,evaluate]")
    assert results(later) == results(summary)
    assert (used / "adapter").resolve().is_relative_to(later["distill"]["artifact"])
    short = go(tmp_path, "used", "stages=[evaluate]", "evaluator.max_new_tokens=3")
    assert "tuned" not in short["evaluate"]
    assert not (used / "adapter").exists()
    linked = sorted(path.name for path in (used / "answers").glob("*/*"))
    assert linked == ["micro_add.jsonl", "micro_plain.jsonl"]
    assert short["evaluate"]["expert"]["micro_add"]["truncated"] == 12
    assert summary["evaluate"]["expert"]["micro_add"]["truncated"] == 0
    with pytest.raises(UserError, match="Add sample to stages"):
        go(tmp_path, "missing", "stages=[distill]", "sampler.max_new_tokens=17")


def test_tuned_answers_are_those_of_plain_peft_and_belong_to_their_questions(first):
    """The bare expert evaluated as tuned, or answers graded against other questions, show here."""
    tmp_path, _ = first
    inputs = Inputs(settings_for(tmp_path), [conf_dir()])
    context = RunContext(inputs, Store(tmp_path / "store"))
    questions = {q.id: q for q in inputs.benchmark_questions["micro_add"]}
    expert = context.models.expert()
    tuned = distill.attach_adapter(expert, tmp_path / "run" / "adapter")
    system = inputs.settings.evaluator.system_prompt
    outputs: dict[str, list[str]] = {"tuned": [], "expert": []}
    for who, model in (("tuned", tuned), ("expert", None)):
        records = read_lines(tmp_path / "run" / "answers" / who / "micro_add.jsonl")
        assert [record["id"] for record in records] == list(questions)
        for record in records[:3]:
            question = questions[record["id"]]
            assert record["question"] == question.text
            assert record["reference"] == question.answer
            prompt = render_prompt(expert.tokenizer, question.text, Prompt(system))
            with tuned.disable_adapter() if model is None else nullcontext():
                (plain,) = single_decoding(
                    replace(expert, model=tuned), [prompt], max_new_tokens=128
                ).decode(0, [0], 0)
            text = expert.tokenizer.decode(plain.token_ids, skip_special_tokens=True)
            assert record["output"] == text
            outputs[who].append(record["output"])
    assert outputs["tuned"] != outputs["expert"]  # tuning shows


@pytest.mark.integration
def test_flops_are_those_of_the_tokens_that_the_models_read(tmp_path):
    summary = go(tmp_path, "run", "stages=[sample,distill]")
    expert, amateur = (
        sum(one.numel() for one in load_micro(name).model.parameters())
        for name in ("expert", "micro")
    )
    store = tmp_path / "store"
    rows = [row for path in store.glob("rollout/*") for row in read_shards(path)]
    prompts = sum(len(row["prompt_ids"]) for row in rows)
    answers = sum(len(row["token_ids"]) for row in rows)
    assert answers == summary["sample"]["generated_tokens"]
    read = prompts + answers
    assert summary["sample"]["flops"] == 2 * expert * read + 2 * (expert + amateur) * read
    assert summary["distill"]["flops"] == 4 * expert * summary["distill"]["tokens_read"]

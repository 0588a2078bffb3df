"""Reads a `.wandb` file back and checks the run's identity, curves, summary and lineage."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import lr_exp
from lr_exp.config.composition import conf_dir
from lr_exp.config.settings import WandbSettings
from lr_exp.distiller import adapter_files
from lr_exp.distiller.trainer import ContrastTrainer
from lr_exp.evaluator import answer, forcing, grade
from lr_exp.models.prompt_forms import Example
from lr_exp.pipeline.identity import identity_of
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.outcome import choices
from lr_exp.sampler import rollout, score, select
from lr_exp.tracking import RunIdentity, Tracker
from tests.support.files import read_lines
from tests.support.recorded import Record, alone, go, settings_for

pytestmark = pytest.mark.integration

MODELS = Path(lr_exp.__file__).parent / "micro" / "models"


@pytest.fixture(scope="module")
def place(recorded_run):
    with alone(recorded_run):
        yield recorded_run


@pytest.fixture(scope="module")
def first(place):
    """The record and the summary of a run."""
    folder = place / "runs" / "one"
    return Record(folder), json.loads((folder / "summary.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def again(place, first):
    """The same command in another folder: every stage is reused."""
    go(place / "again", place / "store")
    return Record(place / "again")


def test_a_run_is_identified_by_its_cell(first):
    record, summary = first
    assert re.fullmatch("[0-9a-f]{24}", record.run["run_id"])
    assert record.run["run_group"] == "a_sweep"
    assert record.run["job_type"] == "sample+distill+evaluate"
    assert record.run["display_name"] == "lightreasoner micro/micro alpha=0.2 beta=0.4 seed=0"
    assert record.config["distiller"]["steps"] == 8
    assert record.config["wandb"]["artifacts"] is True
    assert record.config["cell"]["method"] == "lightreasoner"
    assert record.config["provenance"] == summary["provenance"]
    assert record.config["versions"] == summary["versions"]


def test_a_record_is_complete_when_every_stage_is_reused(first, again):
    record, _ = first
    assert again.run["run_id"] == record.run["run_id"]
    assert again.artifacts.keys() == record.artifacts.keys()  # outputs of an earlier attempt
    for name, axis in (
        ("distill/loss", "distill/step"),
        ("distill/entropy", "distill/step"),
        ("distill/grad_norm", "distill/step"),
        ("eval/micro_add/accuracy", "eval/step"),
        ("sample/kl_profile", "sample/kl_nats"),
    ):
        assert record.curve(name, axis)
        assert again.curve(name, axis) == record.curve(name, axis)
    numbers = {key for key, value in record.summary.items() if isinstance(value, int | float)}
    numbers -= {key for key in numbers if key.startswith("_") or key.endswith((".size", ".nrows"))}
    assert {k: again.summary[k] for k in numbers} == {k: record.summary[k] for k in numbers}


def test_a_resumed_training_logs_its_whole_curve_once(place, first, monkeypatch):
    """An uploaded record overwrites an earlier attempt's, so it must start with the same lines."""
    train, overrides = ContrastTrainer.training_step, ("seed=1", "stages=[sample,distill]")

    def stop(self, *args, **kwargs):
        if self.step == 5:
            raise RuntimeError("stopped")
        return train(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ContrastTrainer, "training_step", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            go(place / "stopped", place / "store", *overrides)
    half = Record(place / "stopped")
    assert half.of("exit")[0]["exit_code"] == 1
    go(place / "stopped", place / "store", *overrides)
    whole = Record(place / "stopped")
    assert half.run["run_id"] == whole.run["run_id"]
    steps = [step for step, _ in whole.curve("distill/loss", "distill/step")]
    assert steps == [1, 2, 4, 6, 8]
    done = half.curve("distill/loss", "distill/step")
    assert [step for step, _ in done] == [1, 2, 4]
    assert whole.curve("distill/loss", "distill/step")[:3] == done
    logged = read_lines(place / "stopped" / "metrics.jsonl")
    assert [line["step"] for line in logged if line["family"] == "distill"] == steps
    assert {name.partition("-")[0] for name in whole.artifacts} == {"supervision", "adapter"}


def test_summaries_have_the_values_for_the_run_table(first):
    record, summary = first
    for name, of in (("loss", min), ("entropy", min), ("grad_norm", max)):
        values = [value for _, value in record.curve(f"distill/{name}", "distill/step")]
        assert record.summary[f"distill/{name}.{of.__name__}"] == of(values)
    losses = record.curve("distill/loss", "distill/step")
    assert record.summary["distill/loss.last"] == losses[-1][1]
    assert record.summary["distill/tuned_tokens.max"] == 64 == summary["distill"]["tuned_tokens"]
    assert record.in_summary("eval/gap") == "number"
    for name in ("micro_add", "micro_plain"):
        before = summary["evaluate"]["expert"][name]["accuracy"]
        after = summary["evaluate"]["tuned"][name]["accuracy"]
        # The expertise gap evaluates the expert again, which adds no point.
        assert record.curve(f"eval/{name}/accuracy", "eval/step") == [(0, before), (8, after)]
        assert record.summary[f"eval/{name}/expert"] == before
        assert record.summary[f"eval/{name}/tuned"] == after
        assert record.summary[f"eval/{name}/accuracy"] == after
        for key in ("correct", "total", "stderr"):  # of the same model
            expected = summary["evaluate"]["tuned"][name][key]
            assert record.summary[f"eval/{name}/{key}"] == expected
        assert record.summary[f"eval/{name}/gain"] == pytest.approx(after - before)
    assert "sample/kl_profile" not in record.summary  # the last point of a profile is meaningless


def test_sampling_curves_match_the_summary_over_hidden_axes(first):
    record, summary = first
    defined = {row.get("name") or row["glob_name"]: row for row in record.of("metric")}
    assert defined["eval/*"]["step_metric"] == "eval/step"
    assert defined["sample/kl_profile"]["step_metric"] == "sample/kl_nats"
    for axis in ("sample/step", "distill/step", "eval/step", "sample/kl_nats", "sample/position"):
        assert defined[axis]["options"]["hidden"]
    counts = summary["sample"]["histogram"]["counts"]
    shares = [share for _, share in record.curve("sample/kl_profile", "sample/kl_nats")]
    assert shares == pytest.approx([count / sum(counts) for count in counts])
    profile = summary["sample"]["by_position"]
    pairs = enumerate(zip(profile["kept"], profile["steps"], strict=True))
    expected = {i * profile["bin_tokens"]: kept / steps for i, (kept, steps) in pairs if steps}
    curve = record.curve("sample/kept_profile", "sample/position")
    assert dict(curve) == pytest.approx(expected)
    assert len(curve) == len(expected)


def test_artifacts_reference_the_files_in_the_store(place, first):
    record, summary = first
    kinds = sorted(name.partition("-")[0] for name in record.artifacts)
    assert kinds == ["adapter", *["grades"] * 4, "supervision"]
    (adapter,) = (row for name, row in record.artifacts.items() if name.startswith("adapter"))
    assert adapter["type"] == "model"
    metadata = json.loads(adapter["metadata"])
    assert metadata["facts"]["optimizer_steps"] == 8
    assert metadata["inputs"]["supervision"] == summary["sample"]["supervision"]
    files = {file["path"]: Path(file["local_path"]) for file in adapter["manifest"]["contents"]}
    assert "adapter/adapter_model.safetensors" in files
    for path in files.values():
        assert path.is_relative_to(place / "store")  # no copies
        assert path.is_file()
    metadata = [json.loads(row["metadata"]) for row in record.artifacts.values()]
    graded = {(row["benchmark"], row["who"]) for row in metadata if row["stage"] == "grades"}
    assert graded == {
        (name, who) for name in ("micro_add", "micro_plain") for who in ("expert", "tuned")
    }


def test_a_table_has_the_answers_of_both_models(place, first):
    record, summary = first
    assert record.in_summary("eval/answers") == "table-file"
    table = json.loads((record.files / record.summary["eval/answers.path"]).read_text("utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    changed = [row["correct before"] != row["correct after"] for row in rows]
    for name in ("micro_add", "micro_plain"):
        own = {row["id"]: row for row in rows if row["benchmark"] == name}
        for when, who in (("before", "expert"), ("after", "tuned")):
            graded = read_lines(place / "runs" / "one" / "answers" / who / f"{name}.jsonl")
            assert len(own) == len(graded) == 12
            for line in graded:
                row = own[line["id"]]
                assert (row["question"], row["reference"]) == (line["question"], line["reference"])
                for key in ("output", "correct", "finished"):
                    assert row[f"{key} {when}"] == line[key]
        gains = summary["evaluate"]["gains"][name]["same_prompt"]
        first_ones, changed = changed[:12], changed[12:]
        assert sum(first_ones) == gains["won"] + gains["lost"]
        assert first_ones == sorted(first_ones, reverse=True)


VARIABLES = {
    **{"MODE": "offline", "PROJECT": "a_project", "ENTITY": "a_team", "RUN_GROUP": "a_group"},
    **{"NAME": "a name", "TAGS": "one,two", "NOTES": "some notes"},
}
OF_AGENT = {"SWEEP_ID": "a_sweep", "RUN_ID": "an_id"}


@pytest.mark.parametrize(("more", "run_id"), [({}, "i"), (OF_AGENT, "an_id")])
def test_a_record_has_what_wandbs_variables_say(place, tmp_path, monkeypatch, more, run_id):
    """An agent of a W&B sweep determines the run's id."""
    import wandb

    for name, value in {**VARIABLES, **more, "DIR": str(tmp_path / "there")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # it reads the variables once in a process
    try:
        with Tracker(tmp_path, WandbSettings(), {"alpha": 0.2}, RunIdentity("i", "n", "j")):
            pass
    finally:
        wandb.teardown()
    record = Record(tmp_path / "there").run
    assert record["project"] == "a_project"
    assert record["entity"] == "a_team"
    assert record["run_group"] == "a_group"
    assert record["display_name"] == "a name"
    assert record["tags"] == ["one", "two"]
    assert record["notes"] == "some notes"
    assert record.get("sweep_id") == more.get("SWEEP_ID")
    assert record["run_id"] == run_id
    assert record["job_type"] == "j"


def test_the_job_type_lists_the_stages_that_ran(place, first):
    go(place / "evaluated", place / "store", "stages=[evaluate]", "evaluator.gap=null")
    record = Record(place / "evaluated")
    assert record.run["job_type"] == "evaluate"
    assert record.config["cell"]["beta"] is None
    assert record.run["display_name"] == "micro seed=0"  # without unused choices
    assert cell(place, "wandb.name=mine").name == "mine"
    assert record.artifacts == {}  # another run made the grades; W&B declares inputs online only


def cell(place: Path, *overrides: str, **options: str):
    settings = settings_for(place / "store", *overrides, **options)
    inputs = Inputs(settings, [conf_dir()])
    return identity_of(inputs.settings, inputs, choices(inputs.settings))


def test_locations_do_not_change_the_run_id(place, first, tmp_path):
    for override in (
        "wandb.project=other",
        f"store={tmp_path}",
        f"hub_root={tmp_path}",
        "sampler.export=there.jsonl",
        "distiller.checkpoint_seconds=0",
        "distiller.merge=true",
        "server.url=http://localhost:1",
        "server.concurrency=2",
        "server.attempts=2",
    ):
        assert cell(place, override).id == first[0].run["run_id"], override


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "alpha=0.3",
        "method=random_steps",
        "amateur=micro_near",
        "beta=0.5",
        "stages=[sample]",
        "benchmarks=[micro_add]",
        "evaluator.max_examples=11",
        "data.seed=1",
        "distiller.learning_rate=1e-3",
        "dtype=bfloat16",
        "attention=eager",
        "data.max_questions=15",
    ],
)
def test_settings_that_change_results_change_the_run_id(place, first, override):
    assert cell(place, override).id != first[0].run["run_id"]


@pytest.mark.parametrize("module", [rollout, score, select, adapter_files, answer, forcing, grade])
def test_a_new_stage_version_changes_the_run_id(place, first, module, monkeypatch):
    """Its results differ and would have overwritten the existing ones."""
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert cell(place).id != first[0].run["run_id"]


def test_another_prompt_changes_the_run_id(place):
    """Another version of the prompt, or other few-shot examples."""
    settings = settings_for(place / "store")
    inputs = Inputs(settings, [conf_dir()])
    inputs.benchmarks[0].version += 1
    ids = {cell(place).id, identity_of(settings, inputs, choices(settings)).id}
    shot = Example("1+1?", "2")
    inputs.prompts["chat"]["micro_add"] = replace(
        inputs.prompts["chat"]["micro_add"], examples=(shot,)
    )
    assert len(ids | {identity_of(settings, inputs, choices(settings)).id}) == 3


def test_the_run_id_of_a_training_covers_the_inputs_of_its_supervision(place, tmp_path):
    """Another amateur at the same path yields other supervision, even if that is reused."""
    link, ids = tmp_path / "amateur", set()
    for name in ("micro", "micro_near"):
        link.unlink(missing_ok=True)
        link.symlink_to(MODELS / name)
        ids.add(cell(place, "stages=[distill]", f"amateur.path={link}").id)
    assert len(ids) == 2


def test_the_sweep_changes_the_run_id_but_the_order_of_stages_does_not(place):
    ordered = cell(place, "stages=[sample,distill]")
    assert cell(place, "stages=[sample,distill]", sweep="another").id != ordered.id
    reversed_ = cell(place, "stages=[distill,sample]")
    assert (reversed_.id, reversed_.job_type) == (ordered.id, "sample+distill")


@pytest.mark.parametrize("folder", ["", "~/"])
def test_the_run_id_covers_the_content_of_imported_records(place, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, ids = tmp_path / "records.jsonl", []
    overrides = ("data=lr_samples", f"data.path='{folder or f'{tmp_path}/'}records.jsonl'")
    for text in ("{}", "[]"):
        path.write_text(text)
        ids.append(cell(place, *overrides).id)
    assert ids[0] != ids[1]
    path.unlink()
    cell(place, *overrides)  # a missing file is reported when it is read

"""What W&B holds of a run, read back from the `.wandb` file: who it is, its curves, its lineage."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import lr_exp
from lr_exp.config.composition import conf_dir
from lr_exp.distiller import distill
from lr_exp.distiller.trainer import ContrastTrainer
from lr_exp.evaluator import answer, grade
from lr_exp.pipeline.identity import cell_of, config_of
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.outcome import choices
from lr_exp.sampler import rollout, score, select
from lr_exp.tracking import show
from lr_exp.tracking.trajectories import COLUMNS, entropy_histogram, rows

from .recorded import Record, alone, go, settings_for

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
    """The same command in another folder: nothing is made again."""
    go(place / "again", place / "store")
    return Record(place / "again")


@pytest.fixture(scope="module")
def other_beta(place, first):
    go(place / "other", place / "store", "beta=1.5")
    return Record(place / "other")


def test_a_run_is_its_cell(first):
    record, summary = first
    assert re.fullmatch("[0-9a-f]{24}", record.run["run_id"])
    assert record.run["run_group"] == "a_sweep"
    assert record.run["job_type"] == "sample+distill+evaluate"
    assert record.run["display_name"] == "lightreasoner micro/micro alpha=0.2 beta=0.4 seed=0"
    assert record.config["distiller"]["steps"] == 8
    assert record.config["cell"]["method"] == "lightreasoner"
    assert record.config["provenance"] == summary["provenance"]
    assert record.config["versions"] == summary["versions"]


def test_the_same_command_is_the_same_run_and_another_beta_another(first, again, other_beta):
    """A run that went on after a stop came as a second one, with half of a curve each."""
    record, _ = first
    assert again.run["run_id"] == record.run["run_id"]
    assert other_beta.run["run_id"] != record.run["run_id"]


def test_a_record_is_whole_although_nothing_was_done_again(first, again):
    record, _ = first
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
    own = {key for key in numbers if key.startswith("_") or key.endswith((".size", ".nrows"))}
    assert {k: again.summary[k] for k in numbers - own} == {
        k: record.summary[k] for k in numbers - own
    }


def test_a_training_that_was_stopped_shows_its_curve_once_and_whole(place, first, monkeypatch):
    """On the service a record takes the place of an earlier try's: it must begin with its lines."""
    train, words = ContrastTrainer.training_step, ("seed=1", "stages=[sample,distill]")

    def stop(self, *given, **named):
        if self.state.global_step == 5:
            raise RuntimeError("stopped")
        return train(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ContrastTrainer, "training_step", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            go(place / "stopped", place / "store", *words)
    half = Record(place / "stopped")
    assert half.of("exit")[0]["exit_code"] == 1
    go(place / "stopped", place / "store", *words)
    whole = Record(place / "stopped")
    assert half.run["run_id"] == whole.run["run_id"]
    steps = [step for step, _ in whole.curve("distill/loss", "distill/step")]
    assert steps == [1, 2, 4, 6, 8]
    done = half.curve("distill/loss", "distill/step")
    assert [step for step, _ in done] == [1, 2, 4]
    assert whole.curve("distill/loss", "distill/step")[:3] == done
    lines = (place / "stopped" / "metrics.jsonl").read_text("utf-8").splitlines()
    logged = [json.loads(line) for line in lines]
    assert [one["step"] for one in logged if one["family"] == "distill"] == steps
    assert not whole.used & {name for name in whole.artifacts if name.startswith("supervision")}


def test_summaries_are_what_a_table_of_runs_should_show(first):
    record, summary = first
    losses = [loss for _, loss in record.curve("distill/loss", "distill/step")]
    assert record.summary["distill/loss.min"] == min(losses)
    assert record.summary["distill/loss.last"] == losses[-1]
    entropies = [value for _, value in record.curve("distill/entropy", "distill/step")]
    assert record.summary["distill/entropy.min"] == min(entropies)
    norms = [value for _, value in record.curve("distill/grad_norm", "distill/step")]
    assert record.summary["distill/grad_norm.max"] == max(norms)
    assert record.summary["distill/tuned_tokens.max"] == 64 == summary["distill"]["tuned_tokens"]
    for name in ("micro_add", "micro_plain"):
        before = summary["evaluate"]["expert"][name]["accuracy"]
        after = summary["evaluate"]["tuned"][name]["accuracy"]
        assert record.curve(f"eval/{name}/accuracy", "eval/step") == [(0, before), (8, after)]
        assert record.summary[f"eval/{name}/expert"] == before
        assert record.summary[f"eval/{name}/tuned"] == after
        assert record.summary[f"eval/{name}/accuracy"] == after
        for key in ("correct", "total", "stderr"):  # of the same outcome
            told = summary["evaluate"]["tuned"][name][key]
            assert record.summary[f"eval/{name}/{key}"] == told
        assert record.summary[f"eval/{name}/gain"] == pytest.approx(after - before)
    assert "sample/kl_profile" not in record.summary  # the last point of a curve says nothing


def test_axes_are_hidden_and_every_family_has_its_own(first):
    record, _ = first
    defined = {one.get("name") or one["glob_name"]: one for one in record.of("metric")}
    assert defined["eval/*"]["step_metric"] == "eval/step"
    assert defined["sample/kl_profile"]["step_metric"] == "sample/kl_nats"
    for axis in ("sample/step", "distill/step", "eval/step", "sample/kl_nats", "sample/position"):
        assert defined[axis]["options"]["hidden"]


def test_curves_of_sampling_are_the_summarys(first):
    record, summary = first
    counts = summary["sample"]["histogram"]["counts"]
    shares = [share for _, share in record.curve("sample/kl_profile", "sample/kl_nats")]
    assert shares == pytest.approx([count / sum(counts) for count in counts])
    told = summary["sample"]["by_position"]
    pairs = enumerate(zip(told["kept"], told["steps"], strict=True))
    expected = {i * told["bin_tokens"]: kept / steps for i, (kept, steps) in pairs if steps}
    curve = record.curve("sample/kept_profile", "sample/position")
    assert dict(curve) == pytest.approx(expected)
    assert len(curve) == len(expected)


def test_artifacts_hold_the_stages_files_where_the_store_has_them(place, first):
    record, summary = first
    kinds = sorted(name.partition("-")[0] for name in record.artifacts)
    assert kinds == ["adapter", *["grades"] * 4, "supervision"]
    (adapter,) = (one for name, one in record.artifacts.items() if name.startswith("adapter"))
    assert adapter["type"] == "model"
    told = json.loads(adapter["metadata"])
    assert told["facts"]["optimizer_steps"] == 8
    assert told["inputs"]["supervision"] == summary["sample"]["supervision"]
    files = {one["path"]: Path(one["local_path"]) for one in adapter["manifest"]["contents"]}
    assert "adapter/adapter_model.safetensors" in files
    for path in files.values():
        assert path.is_relative_to(place / "store")  # no copies
        assert path.is_file()
    graded = [json.loads(one["metadata"]) for one in record.artifacts.values()]
    of = {(one.get("benchmark"), one.get("who")) for one in graded if one["stage"] == "grades"}
    assert of == {(name, who) for name in ("micro_add", "micro_plain") for who in WHO}


WHO = ("expert", "tuned")


def test_lineage_says_who_made_what(first, again, other_beta):
    """A later try finds its own work in the store: that does not make it the work's user."""
    record, _ = first
    assert record.made == set(record.artifacts)
    assert again.made == record.made
    assert again.used == set()
    assert {name.partition("-")[0] for name in other_beta.used} == {"grades"}  # of the expert
    assert len(other_beta.used) == 2
    assert other_beta.used < record.made
    digests = {name: record.artifacts[name]["digest"] for name in other_beta.used}
    assert {name: other_beta.artifacts[name]["digest"] for name in other_beta.used} == digests
    made = {name.partition("-")[0] for name in other_beta.made}
    assert made == {"supervision", "adapter", "grades"}


def test_artifacts_can_be_left_out(place, first):
    go(place / "without", place / "store", "wandb.artifacts=false")
    record = Record(place / "without")
    assert record.artifacts == {}
    assert record.run["run_id"] == first[0].run["run_id"]
    assert record.summary["eval/mean_gain"] == first[0].summary["eval/mean_gain"]


def test_only_what_was_done_is_in_the_job_type(place, first):
    go(place / "evaluated", place / "store", "stages=[evaluate]", "evaluator.gap=null")
    record = Record(place / "evaluated")
    assert record.run["job_type"] == "evaluate"
    assert record.config["cell"]["beta"] is None
    assert record.run["display_name"] == "micro seed=0"
    assert {name.partition("-")[0] for name in record.artifacts} == {"grades"}


def test_the_machine_is_watched(first):
    record, _ = first
    assert {"system/proc.memory.rssMB", "system/proc.cpu.threads"} <= record.machine


def test_the_table_of_answers_has_a_row_a_token(place, first):
    record, _ = first
    told = json.loads((place / "runs" / "one" / "trajectories.json").read_text("utf-8"))
    (path,) = record.files.glob("media/table/sample/trajectories_*.table.json")
    table = json.loads(path.read_text("utf-8"))
    assert tuple(table["columns"]) == COLUMNS
    assert len(table["data"]) == sum(len(answer["token"]) for answer in told["answers"])
    by_name = [dict(zip(COLUMNS, row, strict=True)) for row in table["data"]]
    kept = [row for row in by_name if row["kept"]]
    assert kept
    assert all(row["kl (nats)"] > 0.4 and row["label"] for row in kept)
    assert all(row["label"] is None for row in by_name if not row["kept"])


def cell(place: Path, *overrides: str):
    settings = settings_for(place / "store", *overrides)
    return cell_of(settings, Inputs(settings, [conf_dir()]), choices(settings))


def test_where_things_are_does_not_make_another_run(place, tmp_path):
    own = cell(place)
    for same in (
        "wandb.project=other",
        f"store={tmp_path}",
        f"hub_root={tmp_path}",
        "sampler.export=there.jsonl",
        "distiller.checkpoint_every=4",
        "distiller.merge=true",
        *("server.url=http://localhost:1", "server.concurrency=2", "server.attempts=2"),
    ):
        assert cell(place, same).id == own.id, same


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1", "alpha=0.3", "method=random_steps", "amateur=micro_near"),
        *("beta=0.5", "stages=[sample]", "benchmarks=[micro_add]", "evaluator.max_examples=11"),
        *("data.seed=1", "distiller.learning_rate=1e-3", "dtype=bfloat16", "attention=eager"),
        "data.max_questions=15",
    ],
)
def test_what_changes_results_makes_another_run(place, override):
    assert cell(place, override).id != cell(place).id


@pytest.mark.parametrize("module", [rollout, score, select, distill, answer, grade])
def test_a_mended_stage_makes_another_run(place, module, monkeypatch):
    """Its results are others, and would have taken the place of those that are there."""
    own = cell(place)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert cell(place).id != own.id


def test_what_no_asked_stage_reads_makes_no_other_run(place, monkeypatch):
    """An evaluation of the expert alone is the same after a change of the sampler."""
    words = ("stages=[evaluate]", "evaluator.gap=null")
    own = cell(place, *words)
    for module in (rollout, score, select, distill):
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert cell(place, *words).id == own.id


def test_another_prompt_makes_another_run(place):
    """By its version, or by the examples in it."""
    settings = settings_for(place / "store")
    inputs = Inputs(settings, [conf_dir()])
    inputs.benchmarks[0].version += 1
    ids = {cell(place).id, cell_of(settings, inputs, choices(settings)).id}
    inputs.shots["micro_add"].append(inputs.benchmark_questions["micro_add"][0])
    assert len(ids | {cell_of(settings, inputs, choices(settings)).id}) == 3


def test_a_training_on_what_is_in_the_store_is_told_apart_by_all_that_made_it(place, tmp_path):
    """Another amateur below the same name is another supervision, which this run only finds."""
    there, ids = tmp_path / "amateur", set()
    for name in ("micro", "micro_near"):
        there.unlink(missing_ok=True)
        there.symlink_to(MODELS / name)
        ids.add(cell(place, "stages=[distill]", f"amateur.path={there}").id)
    assert len(ids) == 2


def test_the_order_of_stages_is_the_programs(place):
    own = cell(place, "stages=[sample,distill]")
    turned = cell(place, "stages=[distill,sample]")
    assert (turned.id, turned.job_type) == (own.id, "sample+distill")


def test_a_run_belongs_to_one_sweep(place):
    settings = settings_for(place / "store", sweep="another")
    other = cell_of(settings, Inputs(settings, [conf_dir()]), choices(settings))
    assert other.id != cell(place).id


@pytest.mark.parametrize("folder", ["", "~/"])
def test_imported_records_are_told_apart_by_what_they_hold(place, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, ids = tmp_path / "records.jsonl", []
    words = ("data=lr_samples", f"data.path='{folder or f'{tmp_path}/'}records.jsonl'")
    for text in ("{}", "[]"):
        path.write_text(text)
        ids.append(cell(place, *words).id)
    assert ids[0] != ids[1]
    path.unlink()
    cell(place, *words)  # that it is missing is said where it is read


def test_a_name_that_was_given_is_kept(place):
    assert cell(place, "wandb.name=mine").name == "mine"


def test_config_holds_settings_as_they_are(place):
    settings = settings_for(place / "store")
    inputs = SimpleNamespace(provenance=lambda: {"dtype": "float32"})
    told = config_of(settings, inputs, choices(settings), {"lr_exp": "1"})  # type: ignore[arg-type]
    assert told["evaluator"]["max_examples"] == 12
    assert told["wandb"]["artifacts"] is True
    assert told["cell"] == choices(settings)
    assert told["versions"] == {"lr_exp": "1"}


TOLD = {
    "tokens": ["a", "\n", "\x1b[31m", "</script>"],
    "answers": [
        {
            "id": "q",
            "correct": False,
            "token": [0, 1, 2],
            "kl": [None, 0.5, 1.0],
            "kept": [0, 1, 0],
            "expert_entropy": [None, 0.05, 9.0],
            "amateur_entropy": [None, 0.1, 0.2],
            "candidates": [
                [],
                [[0, 0.7, 0.2, 1, 0.6], [1, 0.3, 0.8, 1, 0.4]],
                [[3, 1.0, 0.5, 1, None]],
            ],
        }
    ],
}


def test_rows_show_both_models_first_tokens_and_the_label():
    names = ["text" if name == "token" else name for name in COLUMNS]
    first, second, third = (dict(zip(names, row, strict=True)) for row in rows(TOLD))
    assert first["kl (nats)"] is None
    assert first["expert's top"] is None
    assert (second["expert's top"], second["p by expert"]) == ("a", 0.7)
    assert (second["amateur's top"], second["p by amateur"]) == ("\\n", 0.8)
    assert second["label"] == '"a" 0.60, "\\n" 0.40'
    assert (second["kept"], second["correct"], second["position"]) == (True, False, 1)
    assert third["text"] == "\\x1b[31m"  # what a terminal would obey is spelt
    assert third["label"] is None


def test_rows_are_bounded_at_the_end_of_an_answer():
    many = {**TOLD, "answers": TOLD["answers"] * 5}
    assert len(rows(many, most=7)) == 6
    assert len(rows(many, most=2)) == 2  # of one that is longer than all of it


def test_answers_of_another_form_cost_their_picture_and_not_the_run(tmp_path, caplog):
    (tmp_path / "trajectories.json").write_text('{"answers": [{}]}')
    tracker = SimpleNamespace(has_service=True)  # and nothing else: it is told nothing
    show.trajectories(tracker, tmp_path / "trajectories.json")  # type: ignore[arg-type]
    assert "trajectories.json is not shown" in caplog.text


def test_entropies_above_the_last_bin_are_in_it():
    counts, edges = entropy_histogram(TOLD)
    assert counts[0] == 1
    assert counts[-1] == 1
    assert sum(counts) == 2
    assert len(edges) == len(counts) + 1
    assert entropy_histogram({"answers": []}) == ([], [])


def test_a_choice_that_was_not_made_is_not_in_the_name(place):
    settings = settings_for(place / "store", "stages=[evaluate]", "evaluator.gap=null")
    inputs = Inputs(settings, [conf_dir()])
    assert cell_of(settings, inputs, choices(settings)).name == "micro seed=0"
    named = replace(settings, wandb=replace(settings.wandb, name="mine"))
    assert cell_of(named, inputs, choices(settings)).name == "mine"

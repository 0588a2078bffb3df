"""The public API: its names, its import time, and the same results as the internal functions."""

import ast
import json
import math
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import hydra
import pandas as pd
import pytest
import torch

import lr_exp
from tests.support.files import one_line_error, read_lines, run_python, summary_of
from tests.support.trajectories_file import write_compressed

SMALL = (
    "experiment=demo",
    "data.count=12",
    "sampler.batch_size=6",
    "distiller.steps=3",
    "distiller.batch_size=8",
    "benchmarks=[micro_add,micro_plain]",
    "evaluator.max_examples=6",
    "wandb.mode=disabled",
    "device=cpu",
    "dtype=float32",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def settings(place):
    return lr_exp.compose(*SMALL, f"store={place / 'store'}")


@pytest.fixture(scope="module")
def sample(settings):
    return lr_exp.sample(settings)


@pytest.fixture(scope="module")
def finished(settings, sample, place):
    """A run after `sample` with the same settings: its folder and its return value."""
    return place / "runs" / "one", lr_exp.run_experiment(settings, place / "runs" / "one")


@pytest.mark.integration
def test_importing_composing_and_reading_import_nothing_heavy(finished):
    folder, _ = finished
    heavy = "torch", "transformers", "pandas", "hydra", "matplotlib", "datasets", "wandb"
    code = (
        f"import sys, lr_exp; assert not {{*{heavy}}} & {{*sys.modules}}; lr_exp.compose();"
        f"lr_exp.read_runs({str(folder)!r}); lr_exp.read_answers({str(folder)!r});"
        "lr_exp.style, lr_exp.paired; assert 'torch' not in sys.modules"
    )
    done = run_python("-c", code, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_every_exported_name_exists_has_a_docstring_and_is_seen_by_type_checkers():
    for name in lr_exp.__all__:
        value = getattr(lr_exp, name)
        assert value.__doc__, name
        # Importing a submodule of a function's name later would replace the function.
        assert isinstance(value, type(lr_exp)) or find_spec(f"lr_exp.{name}") is None, name
    assert {*lr_exp.__all__} <= {*dir(lr_exp)}
    assert sorted(lr_exp.__all__) == lr_exp.__all__
    with pytest.raises(AttributeError, match="No lr_exp attribute runs"):
        _ = lr_exp.runs
    tree = ast.parse(Path(lr_exp.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} == {*lr_exp.__all__}


def test_composed_settings_are_the_programs(program, settings):
    """The program writes its settings to the summary."""
    ran = summary_of(program(*SMALL, "stages=[sample]"))["settings"]
    ours = lr_exp.compose(*SMALL, "stages=[sample]", f"store={ran['store']}").to_dict()
    # The summary also has the defaults of the choices' parameters, and of sizes on this device.
    ours["method"] |= {"a": 1.0, "b": 1.0, "mix": 1.0, "clip": None}
    ours["sampler"] |= {"tokens_per_pass": 1024}
    ours["distiller"] |= {"tokens_per_pass": 1024}
    assert {*ours.pop("overrides")} <= {*ran.pop("overrides")}  # the fixture has more
    assert json.loads(json.dumps(ours)) == ran


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("bta=0.3", "'bta' is not a setting. Did you mean 'beta'?"),
        ("beta=-1", "beta=-1.0 is out of range: expected a number in [0, inf)."),
        ("beta=high", "beta=high (Value 'high' of type 'str' could not be converted to Float)"),
        ("beta=0.2,0.4", "beta=0.2,0.4 is several runs: compose the settings of each."),
        ("+sweep=ablation", "starts several runs: run python -m lr_exp -m +sweep=ablation."),
        ("hydra.run.dir=x", "hydra.run.dir=x: Hydra's own settings have no effect here"),
        ("-m", "'-m' is not an override"),
        ("beta=range(1,3),9", "a range cannot be one of several values"),
    ],
)
def test_errors_are_the_programs_one_line_messages(word, message):
    with one_line_error(message):
        lr_exp.compose(word)


def test_an_error_does_not_repeat_a_secret(monkeypatch):
    secret = "0123456789abcdef0123"  # noqa: S105
    monkeypatch.setenv("SOME_API_KEY", secret)
    with pytest.raises(lr_exp.UserError) as caught:
        lr_exp.compose(f"alpha=x{secret}")
    assert secret not in str(caught.value)
    assert "alpha=x***" in str(caught.value)


def test_it_composes_inside_another_hydra_program(tmp_path):
    (tmp_path / "config.yaml").write_text("mine: 7\n")
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        assert lr_exp.compose("experiment=demo").expert.name == "micro"
        assert hydra.compose("config").mine == 7  # the caller's program is unchanged


@pytest.mark.integration
def test_a_run_reuses_the_sample_and_prints_nothing(finished, sample, capsys):
    folder, summary = finished
    assert summary.to_dict() == json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary.sample.reused
    assert summary.sample.kept == sample.facts["kept"] == len(sample.labels)
    lr_exp.run_experiment(lr_exp.compose(*SMALL, f"store={folder.parents[1] / 'store'}"), folder)
    assert capsys.readouterr().out == ""


def test_a_pair_equals_the_stages(settings, sample):
    pair, questions = lr_exp.load_pair(settings), lr_exp.read_questions(settings)
    assert [one.id for one in questions] == [one.question_id for one in sample.answers]
    (answer,) = pair.roll_out(questions[:1])
    assert answer == sample.answers[0]
    defaults = replace(settings, sampler=replace(settings.sampler, batch_size=None))
    assert lr_exp.load_pair(defaults).roll_out(questions[:1]) == [answer]
    expert, amateur = (lr_exp.contrast.log_probs(logits) for logits in pair.logits(answer))
    steps = sample.steps[sample.steps.answer == 0]
    assert expert.shape == amateur.shape == (len(answer.token_ids), pair.shared.size)
    kl = lr_exp.contrast.kl_nats(expert, amateur)
    torch.testing.assert_close(kl, torch.tensor(steps.kl_nats.to_numpy()), atol=1e-4, rtol=1e-3)
    # The row of a token position predicts the token there.
    assert pair.texts(expert.argmax(-1).tolist()) == steps.expert_top1.tolist() == answer.tokens


def test_own_questions_are_answered_in_their_order(settings):
    pair = lr_exp.load_pair(settings)
    long = "Tom has 12 pens. Tom buys 11 more. Then Tom finds 13 more. How many pens does Tom have?"
    short = "A box holds 11 keys. Kim puts in 12 and then 13 extra. What is the total?"
    answers = pair.roll_out([long, short, long])
    assert [answer.question for answer in answers] == [long, short, long]
    assert answers[0].token_ids == answers[2].token_ids
    assert all(answer.text.endswith("<|end|>") for answer in answers)


def test_the_steps_frame_holds_the_whole_table(sample, settings):
    steps = sample.steps
    assert len(steps) == sample.facts["steps"] == sum(len(a.tokens) for a in sample.answers)
    tokens = [token for answer in sample.answers for token in answer.tokens]
    assert steps.token.tolist() == tokens
    assert steps.kept.tolist() == (steps.kl_nats > settings.beta).tolist()
    assert steps.kl_nats.mean() == pytest.approx(sample.facts["kl_mean"], rel=1e-5)
    assert all(top in tokens for top, tokens in zip(steps.expert_top1, steps.support, strict=True))
    assert sample.labels.weights.map(sum).tolist() == pytest.approx([1.0] * len(sample.labels))
    assert_kept_steps_are_labelled(sample)


def assert_kept_steps_are_labelled(sample):
    kept = sample.steps[sample.steps.kept]
    assert 0 < len(kept) < len(sample.steps)
    for column in ("answer", "question_id", "step", "kl_nats"):
        assert kept[column].tolist() == sample.labels[column].tolist()


def test_questions_from_python_replace_those_of_the_settings(settings, sample):
    first, second, *_ = sample.answers
    for given in ([first, second], [second]):  # other questions have another address
        own = lr_exp.sample(settings, questions=[answer.question for answer in given])
        assert [answer.token_ids for answer in own.answers] == [one.token_ids for one in given]
        assert [*own.steps.question_id.unique()] == [f"questions/{i}" for i in range(len(given))]


def test_randomly_drawn_steps_match_the_labels(place):
    words = (*SMALL, "method=random_steps", "seed=1", f"store={place / 'store'}")
    assert_kept_steps_are_labelled(lr_exp.sample(lr_exp.compose(*words)))


def test_labels_cover_the_tokens_that_alpha_keeps(sample, place):
    """Computed from the step table by Eq. 4-6, without the package's functions."""
    alpha = 0.9
    words = (*SMALL, f"alpha={alpha}", f"store={place / 'store'}")
    other = lr_exp.sample(lr_exp.compose(*words))
    pd.testing.assert_frame_equal(other.steps, sample.steps)  # scores do not depend on alpha
    joined = other.labels.merge(other.steps, on=["answer", "step"])
    assert len(joined) == len(other.labels) > 0
    for _, row in joined.iterrows():
        log_ratios = {
            text: expert - amateur
            for text, expert, amateur in zip(
                row.support, row.support_expert, row.support_amateur, strict=True
            )
            if expert >= max(row.support_expert) + math.log(alpha)
        }
        assert {*row.tokens} == {*log_ratios}
        total = sum(map(math.exp, log_ratios.values()))
        for text, weight in zip(row.tokens, row.weights, strict=True):
            assert weight == pytest.approx(math.exp(log_ratios[text]) / total, abs=1e-5)
    assert other.labels.tokens.map(len).sum() < sample.labels.tokens.map(len).sum()


def test_a_pair_without_a_kept_step_has_empty_labels_of_the_same_columns(settings, sample, place):
    peers = lr_exp.sample(lr_exp.compose(*SMALL, "beta=50", f"store={place / 'store'}"))
    assert peers.facts["kept"] == len(peers.labels) == 0
    assert [*peers.labels.columns] == [*sample.labels.columns]
    assert len(peers.steps.merge(peers.labels, on=["question_id", "step"])) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=no_contrast", "method.select=all"], "uses no amateur"),
        (["data=lr_samples", "data.path=x.jsonl", "stages=[distill]"], "holds kept steps"),
    ],
)
def test_a_sample_needs_two_models(words, message, place):
    settings = lr_exp.compose(*SMALL[:1], *words, f"store={place / 'store'}")
    with pytest.raises(lr_exp.UserError, match=message):
        lr_exp.sample(settings)


@pytest.mark.integration
def test_runs_and_answers_as_tables(finished):
    folder, _ = finished
    runs = lr_exp.read_runs(folder.parent)
    named = [["one", "micro_add"], ["one", "micro_plain"]]
    assert runs[["run", "benchmark"]].to_numpy().tolist() == named
    row = runs.set_index("benchmark").loc["micro_plain"]
    summary = json.loads((folder / "summary.json").read_text("utf-8"))  # of the latest run
    evaluate = summary["evaluate"]
    for who, when in (("expert", "before"), ("tuned", "after")):
        for name in ("accuracy", "stderr"):
            assert row[f"{name}_{when}"] == evaluate[who]["micro_plain"][name]
    assert row.gain == pytest.approx(row.accuracy_after - row.accuracy_before)
    assert runs.questions.tolist() == [6, 6]
    assert row.steps == summary["sample"]["steps"]
    assert row.kl_mean_nats == summary["sample"]["kl_mean"]
    assert row.tuned_tokens == 3 * 8
    assert row.peak_memory_bytes == summary["peak_memory_bytes"]
    for stage in ("sample", "distill", "evaluate"):
        assert row[f"{stage}_seconds"] == summary[stage]["seconds"]
        assert row[f"{stage}_reused"] == summary[stage]["reused"]
    assert {*runs.columns} >= described_in(lr_exp.read_runs)
    kept = summary["sample"]["kept"]
    assert (row.beta, row.kept, row.trained, row.error) == (0.4, kept, True, None)
    answers = lr_exp.read_answers(folder.parent)
    assert len(answers) == 2 * 2 * 6
    shares = answers.groupby(["who", "benchmark"]).correct.mean()
    for who in ("expert", "tuned"):
        for name in ("micro_add", "micro_plain"):
            assert shares[who, name] == evaluate[who][name]["accuracy"]
    assert answers.output.str.contains("boxed").any()
    assert {*answers.columns} == described_in(lr_exp.read_answers)
    # A failed run is a row with its reason.
    failed = folder.parent / "two"
    failed.mkdir()
    record = {"error": "no such model", "beta": 0.8, "seed": 1, "method": "lightreasoner"}
    (failed / "failed.json").write_text(json.dumps(record))
    # An unfinished run is a row with its choices, once it has sampled.
    going_on = folder.parent / "three"
    going_on.mkdir()
    sampled = {"expert": "micro", "method": "lightreasoner", "seed": 3}
    write_compressed(going_on / "trajectories.json.gz", json.dumps(sampled))
    table = lr_exp.read_runs(folder.parent)
    last, unfinished = table.iloc[-2], table.iloc[-1]
    assert (last.run, last.error, last.beta) == ("two", "no such model", 0.8)
    assert (unfinished.run, unfinished.error) == ("three", "not finished")
    assert (unfinished.expert, unfinished.method, unfinished.seed) == ("micro", "lightreasoner", 3)
    assert pd.isna(last.accuracy_after)
    assert pd.isna(unfinished.accuracy_after)


def described_in(function) -> set[str]:
    """The names in backticks of a reader's docstring: columns, values of `who`, another reader."""
    named = re.findall(r"`(\w+)`", function.__doc__.partition("Raises:")[0])
    return {*named} - {"expert", "tuned", "read_runs"}


@pytest.mark.integration
def test_an_output_with_any_line_separator_is_one_answer(finished, place):
    """A model may write U+2028 or U+0085, at which Python's splitlines splits."""
    folder, _ = finished
    copy = place / "separators"
    shutil.copytree(folder, copy)
    path = copy / "answers" / "expert" / "micro_add.jsonl"
    lines = read_lines(path)
    lines[0]["output"] = "one\u2028two\x85three"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    answers = lr_exp.read_answers(copy)
    assert len(answers) == 2 * 2 * 6
    assert answers.output[0] == "one\u2028two\x85three"
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        lr_exp.read_answers(copy)


@pytest.mark.integration
def test_a_run_that_trained_nothing_stays_where_it_was(place):
    words = (*SMALL, "beta=50", "benchmarks=[micro_plain]", f"store={place / 'store'}")
    lr_exp.run_experiment(lr_exp.compose(*words), place / "nothing")
    (row,) = lr_exp.read_runs(place / "nothing").to_dict("records")
    assert not row["trained"]
    assert row["accuracy_after"] == row["accuracy_before"]
    assert row["gain"] == 0

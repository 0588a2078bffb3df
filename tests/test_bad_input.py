"""Inputs that cannot work: one line that says which file, line and key, and no result left behind.

Each kind goes through the program itself, on the micro models; of records most through the reader.
"""

import json

import pytest

from lr_exp.config.composition import conf_dir
from lr_exp.errors import UserError
from lr_exp.sampler.records import import_records
from tests.support.tiny import TOKENS, tiny_model, tiny_tokenizer

MICRO = ("experiment=demo", "benchmarks=[micro_add]", "evaluator.max_examples=2")


@pytest.fixture
def refused(program):
    """Calls the program, which must end in one line and leave nothing that counts as finished."""

    def call(*words):
        outcome = program(*MICRO, *words)
        assert outcome.error
        assert outcome.finished == []
        assert not outcome.has_summary
        return outcome.error

    return call


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


QUESTION = json.dumps({"question": "Ana owns 9 coins. Ana finds 7 more. How many does Ana have?"})


# Questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (None, "no such file. Set data.path"),
        ((), "no questions in it"),
        (("", "  "), "no questions in it"),
        ((QUESTION, '{"question": "cut'), "line 2: not JSON"),
        ((QUESTION, "", "[1]"), "line 3: not an object"),
        ((QUESTION, '{"text": "Q"}'), "line 2: "),
        (('{"question": "  "}',), "line 1: "),
        (('{"question": 3}',), "line 1: "),
    ],
)
def test_files_of_questions(refused, tmp_path, lines, says):
    path = tmp_path / "questions.jsonl"
    if lines is not None:
        write(path, *lines)
    error = refused("data=jsonl", f"data.path={path}", "stages=[sample]")
    assert str(path) in error
    assert says in error


def test_a_folder_as_file_of_questions(refused, tmp_path):
    assert "no such file" in refused("data=jsonl", f"data.path={tmp_path}")


def test_a_prompt_longer_than_the_models_context(refused, tmp_path):
    """Positions beyond the context give plausible wrong numbers."""
    model = tiny_model(tmp_path, max_position_embeddings=64)
    path = write(tmp_path / "q.jsonl", json.dumps({"question": "How many? " * 20}))
    models = (f"expert.path={model}", f"amateur.path={model}")
    error = refused("data=jsonl", f"data.path={path}", "stages=[sample]", *models)
    assert "question jsonl/1: its prompt has" in error
    assert "has a context of 64" in error


def test_a_data_set_that_is_not_in_the_mirror(refused, tmp_path):
    error = refused("data=gsm8k", f"hub_root={tmp_path}")
    assert "hub_root=" in error
    assert "openai/gsm8k" in error


# Models ----------------------------------------------------------------------------------------


def test_a_model_folder_that_is_empty(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    error = refused(f"expert.path={tmp_path / 'empty'}")
    assert "expert.path=" in error
    assert "no config.json" in error


def test_an_amateur_of_another_family(refused, tmp_path):
    error = refused(f"amateur.path={tiny_model(tmp_path)}")
    assert "expert and amateur do not share a vocabulary" in error


def test_weights_cut_short(refused, tmp_path):
    model = tiny_model(tmp_path)
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-100])
    error = refused(f"expert.path={model}", "amateur=early_exit", "amateur.drop_layers=[1]")
    assert "weights in" in error


def test_a_layer_that_the_expert_does_not_have(program):
    outcome = program(*MICRO, "amateur=early_exit", "data.max_questions=2", "sampler.batch_size=2")
    assert "amateur.drop_layers=[22]: the expert has layers 0 to" in outcome.error
    assert outcome.finished == []  # said before anything was sampled
    assert not outcome.has_summary


def test_a_target_module_that_the_expert_does_not_have(program):
    words = ("data.max_questions=4", "beta=0", "sampler.max_new_tokens=4")
    outcome = program(*MICRO, *words, "distiller.target_modules=[q_prj]")
    assert "named q_prj;" in outcome.error
    assert "q_proj" in outcome.error
    assert "adapter" not in outcome.finished
    assert not outcome.has_summary


# Records of kept steps -------------------------------------------------------------------------

RECORD = {
    "prompt_id": "Ana owns 99 coins. Ana finds 72 more. How many coins does Ana have?",
    "step": 1,
    "prefix": "9",
    "tokens": ["9", " + "],
    "token_ids": [14, 15],
    "weights": [0.75, 0.25],
    "kl_divergence": 0.9,
}
WITH_IDS = {**RECORD, "prompt_token_ids": [2, 27, 1, 3], "prefix_token_ids": [14]}


def lacking(name):
    return {key: value for key, value in RECORD.items() if key != name}


def distil(path):
    return ("data=lr_samples", f"data.path={path}", "stages=[sample,distill]", "distiller.steps=2")


def write_records(path, *lines):
    return write(path, *(line if isinstance(line, str) else json.dumps(line) for line in lines))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (None, "cannot be read"),
        ((), "is empty"),
        ((RECORD, "{'prompt_id': 'x'}"), "line 2 is not JSON"),
        (({**RECORD, "token_ids": [14, 151643]},), "made with another tokenizer"),
    ],
)
def test_files_of_records(refused, tmp_path, lines, says):
    path = tmp_path / "records.jsonl"
    if lines is not None:
        write_records(path, *lines)
    error = refused(*distil(path))
    assert "records.jsonl" in error
    assert says in error


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((RECORD, "[]"), "line 2 is not a JSON object"),
        ((RECORD, lacking("prefix")), "line 2 lacks 'prefix'"),
        ((lacking("weights"),), "line 1 lacks 'weights'"),
        (({**RECORD, "step": "1"},), "'step' is str"),
        (({**RECORD, "step": True},), "'step' is bool"),
        (({**RECORD, "step": -1},), "step must be 0 or more"),
        (({**RECORD, "kl_divergence": float("nan")},), "kl_divergence finite"),
        (({**RECORD, "token_ids": 14},), "'token_ids' is int"),
        (({**RECORD, "token_ids": []},), "0 token_ids and 2 weights"),
        (({**RECORD, "token_ids": [14]},), "1 token_ids and 2 weights"),
        (({**RECORD, "token_ids": [14, 14]},), "the same token twice"),
        (({**RECORD, "token_ids": [-1, 14]},), "token_ids has -1"),
        (({**RECORD, "token_ids": ["9", "8"]},), "token_ids has '9'"),
        (({**RECORD, "weights": [0.5, 0.25]},), "sum to 1, not 0.7500"),
        (({**RECORD, "weights": [1.5, -0.5]},), "not -0.5"),
        (({**RECORD, "weights": [float("nan"), 1.0]},), "not nan"),
        (({**RECORD, "weights": ["0.5", 0.5]},), "not '0.5'"),
        (({**WITH_IDS, "prefix_token_ids": [14, 999]},), "prefix_token_ids has 999"),
        (({**WITH_IDS, "prefix_token_ids": "14"},), "prefix_token_ids"),
        pytest.param(
            ({**WITH_IDS, "prefix_token_ids": 14},),
            "'prefix_token_ids' is int",
        ),
        pytest.param(
            ({**WITH_IDS, "prompt_token_ids": None},),
            "'prompt_token_ids' is NoneType",
        ),
    ],
)
def test_lines_that_are_no_records(tmp_path, lines, says):
    path = write_records(tmp_path / "records.jsonl", *lines)
    with pytest.raises(UserError) as caught:
        import_records(path, tiny_tokenizer(), system_prompt="", vocabulary_size=TOKENS)
    assert f"{path}, line {len(lines)}" in str(caught.value)
    assert says in str(caught.value)


def test_records_that_are_not_text(refused, tmp_path):
    (tmp_path / "records.jsonl").write_bytes(b"\x93NUMPY\xff\xfe")
    assert "is not UTF-8 text" in refused(*distil(tmp_path / "records.jsonl"))


@pytest.mark.parametrize("record", [RECORD, WITH_IDS], ids=["published", "ours"])
def test_sound_records_are_distilled(program, tmp_path, record):
    """What the cases above are defects of."""
    path = write(tmp_path / "records.jsonl", json.dumps(record))
    outcome = program(*MICRO, *distil(path), "distiller.batch_size=1")
    assert outcome.status == 0, outcome.err
    assert outcome.finished == ["adapter", "records"]
    assert outcome.has_summary


def test_records_need_no_sampling_stage(program, tmp_path):
    """`conf/data/lr_samples.yaml` shows this very command."""
    path = write(tmp_path / "records.jsonl", json.dumps(RECORD))
    shown = (conf_dir() / "data" / "lr_samples.yaml").read_text("utf-8")
    assert "stages=[distill,evaluate]" in shown
    outcome = program(*MICRO, *distil(path), "distiller.batch_size=1", "stages=[distill]")
    assert outcome.status == 0, outcome.err


# A folder used twice ---------------------------------------------------------------------------


def test_a_failed_run_in_a_used_folder_leaves_no_old_summary(program, tmp_path):
    """The summary of the run before was taken for this one's."""
    path = write(tmp_path / "q.jsonl", QUESTION)
    words = (*MICRO, "data=jsonl", f"data.path={path}", "stages=[sample]", "beta=0")
    words += ("sampler.max_new_tokens=4",)
    assert program(*words).has_summary
    path.unlink()
    outcome = program(*words)
    assert outcome.error
    assert not outcome.has_summary


def test_a_run_in_a_used_folder_shows_its_own_adapter_and_answers(program, tmp_path):
    """The link of the run before stayed, so the adapter beside the summary was another's."""
    path = write(tmp_path / "records.jsonl", json.dumps(RECORD))
    adapters = []
    for seed in (0, 1):
        outcome = program(*MICRO, *distil(path), "distiller.batch_size=1", f"seed={seed}")
        assert outcome.status == 0, outcome.err
        summary = json.loads((outcome.folder / "summary.json").read_text("utf-8"))
        adapter = (outcome.folder / "adapter").resolve()
        assert str(adapter).startswith(summary["distill"]["artifact"])
        adapters.append(adapter)
    assert adapters[0] != adapters[1]


def test_a_store_that_is_a_file(refused, tmp_path):
    error = refused(f"store={write(tmp_path / 'file')}")
    assert "Set store= to a writable folder" in error


def test_a_damaged_artifact_in_a_run_is_made_again(program, tmp_path):
    path = write(tmp_path / "records.jsonl", json.dumps(RECORD))
    words = (*MICRO, *distil(path), "distiller.batch_size=1")
    first = program(*words)
    assert first.status == 0, first.err
    (adapter,) = (tmp_path / "store" / "adapter").glob("*/adapter/adapter_model.safetensors")
    adapter.write_bytes(b"")
    again = program(*words)
    assert again.status == 0, again.err
    assert adapter.stat().st_size > 0

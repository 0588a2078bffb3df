"""Methods as registered choices: trajectories, step rules and targets."""

import math
from pathlib import Path

import numpy as np
import pytest

from lr_exp.config.composition import conf_dir
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.models.prompt_forms import Prompt
from lr_exp.pipeline.context import LoadedModels
from lr_exp.pipeline.inputs import Inputs
from lr_exp.sampler.references import keep_chosen, write_solutions
from lr_exp.store.shards import read_shards
from tests.support.demo import settings_for
from tests.support.files import read_lines, summary_of, write_lines
from tests.support.methods import method
from tests.support.sampling import END, selected, write_answers
from tests.support.tiny import tiny_tokenizer

# Two answers of three positions. Above 0.4 nats: (0, 1), (1, 0) and (1, 2).
KL = [0.1, 0.5, 0.0, 2.0, 0.3, 0.9]
ENTROPY = [1.0, 0.2, 0.9, 0.1, 1.0, 0.3]


def columns(order: list[int] | None = None) -> dict[str, np.ndarray]:
    order = list(range(6)) if order is None else order
    values = {
        "index": np.array([0, 0, 0, 1, 1, 1], np.int32),
        "step": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "kl": np.array(KL, np.float32),
        "expert_entropy": np.array(ENTROPY, np.float32),
    }
    return {name: column[order] for name, column in values.items()}


def kept(rule: str, table: dict | None = None, **settings) -> set[tuple[int, int]]:
    """The positions that a rule keeps; it sees no column that it does not declare."""
    table = columns() if table is None else table
    bound = method(select=rule, **settings).select
    keep = bound({name: table[name] for name in ("index", "step", *bound.choice.columns)})
    return set(zip(table["index"][keep].tolist(), table["step"][keep].tolist(), strict=True))


@pytest.mark.parametrize(
    ("rule", "parameters", "expected"),
    [
        ("kl_above_beta", {}, {(0, 1), (1, 0), (1, 2)}),
        ("all", {}, {(i, s) for i in (0, 1) for s in (0, 1, 2)}),
        ("first", {"first": 2}, {(0, 0), (0, 1), (1, 0), (1, 1)}),
        ("kl_top", {"share": 0.34}, {(1, 0), (1, 2)}),
        # Three, as many as are above beta; the tie at 1.0 does not matter here.
        ("entropy_top", {}, {(0, 0), (1, 1), (0, 2)}),
    ],
)
def test_rules_keep_the_steps_of_the_worked_example(rule, parameters, expected):
    assert kept(rule, parameters=parameters) == expected


def test_of_equal_entropies_the_earlier_question_is_kept():
    # One position is above 1 nat, and two share the highest entropy.
    assert kept("entropy_top", beta=1.0) == {(0, 0)}


def test_random_steps_have_betas_budget_and_follow_the_seed():
    draws = {frozenset(kept("random", seed=seed)) for seed in range(20)}
    assert {len(draw) for draw in draws} == {3}
    assert len(draws) > 5
    assert kept("random", seed=3) == kept("random", seed=3)
    assert len(kept("random", beta=0.05)) == 5


@pytest.mark.parametrize("rule", ["kl_above_beta", "kl_top", "random", "entropy_top"])
def test_selection_does_not_depend_on_row_order(rule):
    """Batches are sorted by length, so the table's order depends on the batch size."""
    assert kept(rule, columns([3, 4, 5, 0, 1, 2])) == kept(rule)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"select": "kl_tops"}, r"method\.select='kl_tops' is not registered.*'kl_top'"),
        ({"trajectories": "expert_gredy"}, "'expert_greedy'"),
        ({"target": "contrst"}, "'contrast'"),
        ({"loss": "klx"}, "'kl'"),
        ({"target": "none"}, r"method\.loss=kl needs a target"),
        ({"parameters": {"frist": 3}}, r"method\.frist is not a setting.*'first'"),
        ({"parameters": {"beta": 3}}, r"method\.beta is not a setting"),
        ({"select": "kl_top", "parameters": {"share": 0}}, r"method\.share=0 .* in \(0, 1\]"),
        ({"select": "first", "parameters": {"first": 1.5}}, r"method\.first=1\.5 .* an integer"),
        ({"select": "first", "parameters": {"first": True}}, r"method\.first=True .* an integer"),
        ({"select": "kl_top", "parameters": {"share": "x"}}, r"method\.share=x .* a number"),
        ({"select": "kl_top", "parameters": {"share": math.nan}}, r"method\.share=nan "),
        ({"module": "nowhere_at_all"}, r"method\.module=nowhere_at_all cannot be imported"),
        ({"module": "nowhere.py"}, r"method\.module=nowhere\.py cannot be imported"),
    ],
)
def test_an_invalid_choice_names_its_key(choices, message):
    with pytest.raises(UserError, match=message):
        method(**choices)


def test_a_parameter_of_another_choice_is_ignored():
    """A sweep over methods may set one that only some of them read."""
    assert not method(parameters={"first": 3}).reads("first")
    assert method(select="first", parameters={"first": 3}).reads("first")


def test_an_ignored_parameter_on_the_command_line_is_a_warning(tmp_path, caplog):
    def warnings(*words):
        caplog.clear()
        Inputs(settings_for(tmp_path, *words), [conf_dir()]).check()
        return [one.getMessage() for one in caplog.records if "no effect" in one.getMessage()]

    ignored = "method.lambda has no effect with method=lightreasoner."
    assert warnings("method.lambda=0.5") == [ignored]
    assert warnings("method=extrapolation", "method.lambda=1.5") == []
    assert warnings("method=format_wrong") == []  # its file shares a parameter with others'


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({}, (True, True, True)),
        ({"target": "token"}, (True, False, True)),
        ({"select": "all"}, (True, True, False)),
        ({"select": "all", "target": "token"}, (False, False, False)),
        ({"select": "entropy_top", "target": "token"}, (True, False, True)),
        ({"select": "kl_top"}, (True, True, False)),
    ],
)
def test_what_a_method_needs_follows_from_its_choices(choices, expected):
    found = method(**choices)
    assert (found.needs_amateur, found.reads("alpha"), found.reads("beta")) == expected


# Trajectories with references ------------------------------------------------------------------


def solutions(folder: Path, *texts: str, tokenizer=None, context: int | None = None):
    """The facts and the rows of solutions in the tiny tokenizer's tokens."""
    tokenizer = tokenizer or tiny_tokenizer()
    questions = [Question(f"q/{number}", "q") for number in range(len(texts))]
    facts = write_solutions(questions, texts, tokenizer, folder, prompt=Prompt(), context=context)
    return facts, list(read_shards(folder))


def test_solutions_are_what_the_expert_would_have_written(tmp_path):
    tokenizer = tiny_tokenizer()
    facts, rows = solutions(tmp_path, "two", "four")
    assert facts == {"answers": 2, "tokens": 9, "cut_off": 0}
    assert [row["question_id"] for row in rows] == ["q/0", "q/1"]
    assert [row["token_ids"][-1] for row in rows] == [END, END]
    assert tokenizer.decode(rows[1]["token_ids"][:-1]) == "four"
    assert tokenizer.decode(rows[0]["prompt_ids"]).endswith("<|im_start|>assistant\n")


def test_a_solution_is_cut_where_the_context_ends(tmp_path):
    prompt = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    length = len(tiny_tokenizer()(prompt)["input_ids"])
    facts, (row,) = solutions(tmp_path, "abcdef", context=length + 3)
    assert tiny_tokenizer().decode(row["token_ids"]) == "abc"
    assert facts["cut_off"] == 1


def test_without_a_template_an_answer_begins_with_a_blank_and_ends_the_document(tmp_path):
    tokenizer = tiny_tokenizer(chat_template=None)
    _, (row,) = solutions(tmp_path, "two", tokenizer=tokenizer)
    assert tokenizer.decode(row["token_ids"]) == " two<|endoftext|>"


def test_a_solution_without_tokens_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"q/0.*no token"):
        solutions(tmp_path, "forty-two", tokenizer=build_tokenizer())


def test_right_finished_answers_are_kept_once(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    answers = [
        *[("a", "2", True)] * 2,  # the same text again
        ("a", "two: 2", True),  # another way
        ("b", "2", False),  # right, but cut off
        *[("b", "3", True), ("b", "4", True)],  # wrong
        ("c", "2", True),  # the same text, of another question
    ]
    write_answers(source, answers)
    asked = []

    def is_right(index: int, text: str) -> bool:
        asked.append(index)
        return text.endswith("2")

    facts = keep_chosen(source, tiny_tokenizer(), is_right, out, samples=3)
    assert [row["index"] for row in read_shards(out)] == [0, 2, 6]
    assert facts == {"answers": 3, "drawn": 7, "right": 4, "solved": 2}
    assert asked == [0, 1, 2, 4, 5, 6]  # an answer that was cut off is not even graded


def test_hard_labels_are_the_tokens_themselves_to_the_end(tmp_path):
    write_answers(tmp_path, [("a", "xy", True), ("b", "z", True)])
    everything = selected(tmp_path, None, method(select="all", target="token"))
    first = everything.supervision.trajectories[0]
    assert first.steps == [0, 1, 2]
    assert [ids for (ids,) in first.target_ids] == [*tiny_tokenizer()("xy")["input_ids"], END]
    assert [first.read_at(kept) for kept in range(3)] == [1, 2, 3]
    assert (everything.profile["steps"], everything.supervision.kept) == (5, 5)
    assert everything.profile["kl_mean"] is None
    upft = method(select="first", target="token", parameters={"first": 2})
    start = selected(tmp_path, None, upft)
    assert [t.steps for t in start.supervision.trajectories] == [[0, 1], [0, 1]]


# The whole line --------------------------------------------------------------------------------

SMALL = (
    "experiment=micro_tables",
    "data.count=12",
    "sampler.batch_size=12",
    "distiller.steps=4",
    "distiller.batch_size=8",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=16",
)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["gt_sft", "upft"])
def test_methods_without_a_contrast_load_no_amateur(program, name):
    words = (f"method={name}", "amateur.path=nowhere", "stages=[sample,distill]")
    summary = summary_of(program(*SMALL, *words))
    assert (summary["amateur"], summary["alpha"], summary["beta"]) == (None, None, None)
    assert summary["provenance"]["amateur"] is None
    assert "score" not in summary["sample"]["seconds_by_stage"]
    assert summary["sample"]["questions"] == 12


@pytest.mark.integration
def test_every_step_of_every_right_answer_is_tuned_on_once(program):
    words = ("method=rejection_sft", "amateur.path=nowhere", "stages=[sample,distill]")
    summary = summary_of(program(*SMALL, *words))
    sample, distill = summary["sample"], summary["distill"]
    verified = sample["verified"]
    assert verified["drawn"] == 4 * 12
    assert 0 < verified["answers"] <= verified["right"] < verified["drawn"]
    assert sample["answers"] == verified["answers"]
    assert sample["kept"] == sample["steps"] < sample["generated_tokens"]
    # One pass in four optimizer steps: nothing is left out, and less than a batch comes twice.
    assert 0 <= distill["tuned_tokens"] - sample["kept"] < 4
    assert distill["optimizer_steps"] == 4
    assert distill["batch_size"] == distill["tuned_tokens"] // 4


@pytest.mark.integration
def test_a_batch_never_shrinks_for_a_small_supervision(program):
    words = ("method=gt_sft", "data.max_questions=1", "distiller.batch_size=100")
    summary = summary_of(program(*SMALL, *words, "stages=[sample,distill]"))
    assert summary["sample"]["kept"] < 100
    assert summary["distill"]["batch_size"] == 100


def own_questions(tmp_path: Path, *rows: dict) -> list[str]:
    """The overrides of a run on these questions."""
    path = write_lines(tmp_path / "questions.jsonl", rows)
    return [*SMALL, "data=jsonl", f"data.path={path}", "data.max_questions=null"]


@pytest.mark.integration
def test_where_no_answer_is_right_nothing_is_trained_until_references_change(program, tmp_path):
    """Without drawing an answer again."""
    text = "Tom has 11 pens. Tom buys 12 more. Then Tom finds 13 more. How many pens does Tom have?"
    row = {"question": text, "answer": "-7"}
    changes = ["method=rejection_sft", "data.answer=number", "evaluator.max_new_tokens=8"]
    before = summary_of(program(*own_questions(tmp_path, row), *changes))
    assert "None of the 4 sampled answers" in before["stopped"]
    assert "distill" not in before
    assert "tuned" not in before["evaluate"]
    row["answer"] = "36"  # nothing to carry: never wrong
    changes.append("stages=[sample]")
    after = summary_of(program(*own_questions(tmp_path, row), *changes))["sample"]
    assert after["reused"]  # the models' part
    assert (after["verified"]["drawn"], after["verified"]["right"]) == (4, 4)


@pytest.mark.integration
def test_snapshots_are_adapters_of_shorter_trainings_and_are_evaluated(program, tmp_path):
    words = (*SMALL, "distiller.schedule=constant", "evaluator.max_new_tokens=8")
    outcome = program(*words, "distiller.steps=6", "distiller.snapshot_every=2")
    whole = summary_of(outcome)
    curve = whole["evaluate"]["curve"]
    assert [point["step"] for point in curve] == [2, 4]
    assert [point["results"]["micro_add"]["total"] for point in curve] == [16, 16]
    assert whole["evaluate"]["curve_seconds"] > 0
    metrics = read_lines(outcome.folder / "metrics.jsonl")
    assert sorted(e["step"] for e in metrics if e["family"] == "eval/micro_add") == [0, 2, 4, 6]
    folders = sorted(Path(whole["distill"]["artifact"]).glob("snapshots/*"))
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    short = summary_of(program(*words, "distiller.steps=4", "stages=[sample,distill]"))
    adapter = Path(short["distill"]["artifact"]) / "adapter"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folders[1] / name).read_bytes() == (adapter / name).read_bytes()


@pytest.mark.integration
def test_the_gap_measures_both_models_and_once_for_all_seeds(program):
    words = (*SMALL, "stages=[evaluate]", "evaluator.gap=sampled", "evaluator.max_examples=50")
    first = summary_of(program(*words))["evaluate"]
    gap = first["gap"]
    assert first["gap_seconds"] > 0
    # Sampled, the expert takes care in about 40 % of its answers, the amateur in 5 %.
    assert gap["decoder"] == "sampled"
    assert gap["expert"]["micro_add"]["accuracy"] > gap["amateur"]["micro_add"]["accuracy"] + 0.15
    assert first["expert"]["micro_add"]["accuracy"] < 0.1
    # The reference solutions are careful: the expert prefers them at 40 % of the forks.
    nats = gap["nats"]
    assert nats["solutions"] == 50
    assert nats["difference"] == pytest.approx(nats["expert"] - nats["amateur"])
    assert 0.3 < nats["ci95"][0] < nats["difference"] < nats["ci95"][1] < 1.2
    again = summary_of(program(*words, "seed=5"))
    assert again["evaluate"]["reused"]
    assert again["amateur"] == "micro"


@pytest.mark.integration
def test_contrast_at_inference_needs_no_training(program):
    words = (*SMALL, "stages=[evaluate]", "evaluator.max_examples=24")
    greedy = summary_of(program(*words))
    contrastive = summary_of(program(*words, "evaluator.decoder=contrastive"))
    assert contrastive["evaluate"]["decoder"] == "contrastive"
    assert (contrastive["amateur"], contrastive["alpha"]) == ("micro", 0.2)
    assert (greedy["amateur"], greedy["alpha"]) == (None, None)
    before = greedy["evaluate"]["expert"]["micro_add"]["accuracy"]
    assert contrastive["evaluate"]["expert"]["micro_add"]["accuracy"] > before + 0.2


def test_an_early_exit_amateur_that_generates_has_weights_of_its_own(tmp_path):
    """The expert may carry an adapter at the time, which must not reach the amateur."""
    settings = settings_for(tmp_path, "amateur=micro_early_exit", "evaluator.decoder=contrastive")
    models = LoadedModels(Inputs(settings, [conf_dir()]), tmp_path)
    expert = {weight.data_ptr() for weight in models.expert().model.parameters()}
    amateur = {weight.data_ptr() for weight in models.amateur().model.parameters()}
    assert not expert & amateur
    assert len(models.amateur().model.model.layers) == len(models.expert().model.model.layers) - 1

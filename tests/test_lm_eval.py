"""Tasks of lm-evaluation-harness as benchmarks: a task reads a local file, the models are micro."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lr_exp.bundle.__main__ import main as bundle
from lr_exp.config.composition import conf_dir
from lr_exp.config.settings import EvaluatorSettings
from lr_exp.errors import UserError
from lr_exp.evaluator import harness
from lr_exp.models.prompt_forms import builtin_form
from lr_exp.models.prompts import continuation_ids
from lr_exp.pipeline.inputs import Inputs
from lr_exp.report.__main__ import main as report
from lr_exp.report.analyse.paired import wilson
from tests.support.demo import go, settings_for
from tests.support.files import one_line_error, read_lines, write_lines

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the library's dependencies
]

SUMS = [(12, 14), (25, 27), (31, 14), (40, 5)]
ROWS = [
    {"q": f"What is {a} + {b}?", "options": [str(a + b), str(a + b + 1)], "sum": str(a + b)}
    for a, b in SUMS
]
SOURCE = """\
dataset_path: json
dataset_kwargs: {{data_files: {{test: {here}/sums.jsonl}}, cache_dir: {here}/cache}}
test_split: test
doc_to_text: "{{{{q}}}}"
"""
PICK = """\
task: toy_pick
tag: toy_sums
output_type: multiple_choice
doc_to_choice: options
doc_to_target: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WRITE = """\
task: toy_write
tag: toy_sums
output_type: generate_until
doc_to_target: sum
generation_kwargs: {until: ["}"], max_gen_toks: 64, do_sample: false}
filter_list:
  - name: last
    filter:
      - {function: regex, regex_pattern: "([0-9]+)", group_select: -1}
      - {function: take_first}
  - {name: whole, filter: [{function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
SMALL = ("benchmarks=[lm_eval:toy_sums,micro_add]", "evaluator.force_answer=false")
UNSAFE = WRITE.replace("toy_write", "toy_code") + "unsafe_code: true\n"
BLEU = WRITE.replace("toy_write", "toy_bleu").replace(
    "exact_match, aggregation: mean", "bleu, aggregation: bleu"
)
OWN_SCORE = "def score(doc, results):\n    return {'part': len(set(results[0]) & set('1')) / 2}\n"
PART = WRITE.replace("toy_write", "toy_part").replace("exact_match", "part")
PART += "process_results: !function own.score\n"


@pytest.fixture(autouse=True)
def without_the_library_s_own_tasks(monkeypatch):
    """Reading their 14,000 files takes 20 s."""
    monkeypatch.setattr(harness, "_library", lambda: harness.TaskManager(include_defaults=False))


def tasks(here: Path, *texts: str, rows=ROWS) -> str:
    """The override for a folder with tasks."""
    write_lines(here / "sums.jsonl", rows)
    (here / "own.py").write_text(OWN_SCORE)
    for text in texts:
        name = text.partition("\n")[0].removeprefix("task: ")
        (here / f"{name}.yaml").write_text(text + SOURCE.format(here=here))
    return f"evaluator.lm_eval_tasks={here}"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A finished run on a tag of two tasks and on a benchmark of ours."""
    here = tmp_path_factory.mktemp("tasks")
    (here / "own").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "_library", lambda: harness.TaskManager(include_defaults=False))
        summary = go(here, "run", tasks(here / "own", PICK, WRITE), *SMALL)
    return here, summary


def answers(here: Path, who: str, name: str = "lm_eval-toy_sums") -> list[dict]:
    return read_lines(here / "run" / "answers" / who / f"{name}.jsonl")


def test_results_are_paired_by_question_and_reported_as_those_of_other_benchmarks(tuned, capsys):
    here, summary = tuned
    evaluate, before, after = summary["evaluate"], *(answers(here, w) for w in ("expert", "tuned"))
    ids = [f"{task}/{n}" for task in ("toy_pick", "toy_write") for n in range(len(SUMS))]
    assert [one["id"] for one in before] == [one["id"] for one in after] == ids
    for who, lines in (("expert", before), ("tuned", after)):
        found = evaluate[who]["lm_eval:toy_sums"]
        assert (found["correct"], found["total"]) == (sum(x["correct"] for x in lines), 8)
        assert found["ci95"] == pytest.approx(wilson(found["correct"] / 8, 8))
        assert found["metric"] == "acc_norm, exact_match"
        assert "boxed" not in found  # no rule of ours read these answers
    pairs = [(old["correct"], new["correct"]) for old, new in zip(before, after, strict=True)]
    gain = evaluate["gains"]["lm_eval:toy_sums"]["same_prompt"]
    assert (gain["won"], gain["lost"]) == (pairs.count((False, True)), pairs.count((True, False)))
    assert [one["output"] for one in before] != [one["output"] for one in after]
    assert report([str(here / "run"), "--out", str(here / "out")]) == 0
    assert "lm_eval:toy_sums" in (here / "run" / "report.html").read_text("utf-8")
    assert any("lm_eval:toy_sums" in path.read_text() for path in (here / "out").glob("*.csv"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LR_EXP_DEBUG", "1")
        with one_line_error("cannot be bundled", "lm_eval:toy_sums"):
            bundle([str(here / "run"), "-o", str(here / "x.bundle.zip")])


def test_an_answer_is_what_the_first_filter_reads_and_a_choice_the_likeliest_option(tuned):
    here, _ = tuned
    for one in answers(here, "expert") + answers(here, "tuned"):
        if one["id"].startswith("toy_pick"):
            right, wrong = (float(line.split()[0]) for line in one["output"].split("\n"))
            assert one["correct"] is (right > wrong)  # both have two characters
            assert (one["reference"], one["rule"]) == (one["choices"][0], "acc_norm")
        else:
            assert one["correct"] is (one["extracted"] == one["reference"])
            assert one["extracted"].isdigit()
            assert one["output"].endswith(one["extracted"])  # generation stopped before `}`


def test_log_likelihoods_are_those_of_our_model_behind_the_chat_prompt(tuned, pair):
    """The prompt is the chat template without our system prompt; an option follows it."""
    here, _ = tuned
    expert, _ = pair
    for row, one in zip(ROWS, answers(here, "expert"), strict=False):
        turn = [{"role": "user", "content": row["q"]}]
        options = {"add_generation_prompt": True, "tokenize": False}
        text = expert.tokenizer.apply_chat_template(turn, **options)
        ids = expert.tokenizer(text, add_special_tokens=False)["input_ids"]
        for option, line in zip(row["options"], one["output"].split("\n"), strict=True):
            more = continuation_ids(expert.tokenizer, option)
            logits = expert.model(torch.tensor([[*ids, *more]])).logits[0].log_softmax(-1)
            nats = sum(logits[len(ids) + n - 1, token].item() for n, token in enumerate(more))
            assert line == f"{nats:.3f} nats: {option}"


def test_a_repeated_run_reads_the_store_and_an_interrupted_one_continues(tuned, monkeypatch):
    here, summary = tuned
    own = f"evaluator.lm_eval_tasks={here / 'own'}"
    generate, calls = harness.HFLM._model_generate, []

    def counted(self, context, **options):
        calls.append(len(context))
        if len(calls) == 2:
            raise RuntimeError("killed")
        return generate(self, context, **options)

    monkeypatch.setattr(harness.HFLM, "_model_generate", counted)
    again = go(here, "again", own, *SMALL)["evaluate"]
    assert calls == []
    assert again["reused"]
    assert again["expert"] == summary["evaluate"]["expert"]
    smaller = (own, "benchmarks=[lm_eval:toy_write]", "evaluator.batch_size=2", *SMALL[1:])
    alone = (*smaller, "stages=[evaluate]")
    with pytest.raises(RuntimeError, match="killed"):
        go(here, "killed", *alone)
    assert calls == [2, 2]
    found = go(here, "killed", *alone)["evaluate"]["expert"]["lm_eval:toy_write"]
    assert calls == [2, 2, 2]  # the first two questions were kept
    written = [one["correct"] for one in answers(here, "expert") if "write" in one["id"]]
    assert found["correct"] == sum(written)


def identity(here: Path, form: str = "chat", name: str = "toy_write", **settings) -> dict:
    tokenizer = Inputs(settings_for(here), [conf_dir()])
    _ = tokenizer.expert
    own = EvaluatorSettings(lm_eval_tasks=str(here), **settings)
    found = harness.TaskBenchmark(f"lm_eval:{name}", own, None)
    return found.prompt(builtin_form(form), tokenizer.expert_tokenizer).identity


def test_the_address_has_everything_that_determines_the_answers(tmp_path):
    tasks(tmp_path, PICK, WRITE)
    first = identity(tmp_path)
    assert identity(tmp_path) == identity(tmp_path, "chat_no_system") == first
    assert identity(tmp_path, run_code=True) == first
    shots = WRITE + "fewshot_split: test\n"
    others = [
        identity(tmp_path, "plain"),
        identity(tmp_path, max_examples=3),
        identity(tmp_path, name="toy_pick"),
    ]
    changed = [{**ROWS[0], "sum": "27"}, *ROWS[1:]]
    others += [(tasks(tmp_path, WRITE, rows=changed), identity(tmp_path))[1]]
    others += [(tasks(tmp_path, shots), identity(tmp_path))[1]]
    others += [identity(tmp_path, num_fewshot=1)]
    (tmp_path / "own.py").write_text(OWN_SCORE + "# changed\n")
    others += [identity(tmp_path)]
    assert len({json.dumps(one) for one in (first, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["benchmarks=[lm_eval:toy_wite]"], ["has no task 'toy_wite'", "mean 'toy_write'"]),
        (["benchmarks=[lm_eval:toy_code]"], ["without a sandbox", "evaluator.run_code=true"]),
        (["benchmarks=[lm_eval:toy_bleu]"], ["no metric of the task toy_bleu (bleu)"]),
        (["benchmarks=[lm_eval:toy_part]"], ["no metric of the task toy_part (part)"]),
        (["benchmarks=[lm_eval:toy_lost]"], ["toy_lost cannot be prepared", "hub_root"]),
        (["benchmarks=[lm_eval:toy_long]", "stages=[evaluate]"], ["maximum sequence length (256)"]),
        (["benchmarks=[lm_eval:toy_pick]", "evaluator.force_answer=true"], ["force_answer=False"]),
        (["benchmarks=[lm_eval:toy_pick]", "evaluator.gap=sampled"], ["gap=greedy"]),
    ],
)
def test_bad_input_is_one_error_before_a_model_is_loaded(words, says, program, tmp_path):
    lost = WRITE.replace("toy_write", "toy_lost") + "validation_split: lost\n"
    own = tasks(tmp_path, PICK, WRITE, UNSAFE, BLEU, PART, lost)
    path = tmp_path / "toy_lost.yaml"
    path.write_text(path.read_text().replace("sums.jsonl", "missing.jsonl"))
    tasks(tmp_path, WRITE.replace("toy_write", "toy_long").replace("64", "256"))
    micro = ("experiment=demo", "evaluator.force_answer=false", own, *words)
    outcome = program(*micro)
    for part in says:
        assert part in outcome.error
    if "toy_long" not in words[0]:
        assert "loading" not in outcome.err


def test_run_code_runs_a_task_that_runs_code(tmp_path):
    tasks(tmp_path, UNSAFE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ALLOW_CODE_EVAL", "0")
        assert identity(tmp_path, name="toy_code", run_code=True)["metric"] == "exact_match"
        assert harness.os.environ["HF_ALLOW_CODE_EVAL"] == "1"


def test_without_the_extra_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "lr_exp.evaluator.harness")
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    settings = settings_for(tmp_path, "benchmarks=[lm_eval:mbpp]", "evaluator.force_answer=false")
    with pytest.raises(UserError, match=r"pip install 'lr_exp\[lm_eval\]'"):
        Inputs(settings, [conf_dir()]).check()


def test_hub_root_holds_the_data_sets_of_tasks(tmp_path):
    """A task that names a hub data set reads its mirror."""
    write_lines(tmp_path / "hub" / "me" / "sums" / "test.jsonl", ROWS)
    text = PICK + "test_split: test\ndoc_to_text: q\ndataset_path: me/sums\n"
    text += f"dataset_kwargs: {{cache_dir: {tmp_path}/cache}}\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "pick.yaml").write_text(text)
    own = EvaluatorSettings(lm_eval_tasks=str(tmp_path / "own"))
    found = harness.TaskBenchmark("lm_eval:toy_pick", own, str(tmp_path / "hub"))
    asked = found.prompt(builtin_form("plain"), None).questions
    assert [one.text for one in asked] == [row["q"] for row in ROWS]

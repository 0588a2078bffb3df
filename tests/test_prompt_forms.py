"""Forms of prompts: their text and token ids, few-shot examples, and files of users' own."""

from dataclasses import replace

import pytest

from lr_exp.config.options import conf_dir, option_files
from lr_exp.config.settings import (
    BenchmarkSettings,
    DataSettings,
    EvaluatorSettings,
    ExpertSettings,
    MethodSettings,
    SamplerSettings,
    Settings,
)
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.models.prompt_forms import Example, Prompt, builtin_form, load_form
from lr_exp.models.prompts import form_for, render_prompt
from lr_exp.pipeline.inputs import Inputs
from tests.support.files import one_line_error
from tests.support.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

# Braces must not be interpreted by str.format.
EXAMPLES = (Example("1 + {1}?", "It is 2."), Example("2+2?", "It is 4."))
CHAT = (
    "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TEXTS = {
    "chat": CHAT.format("3+3?"),
    "chat_no_system": CHAT.format("3+3?").split("<|im_end|>\n", 1)[1],
    "none": "3+3?",
    "plain": "Question: 3+3?\nAnswer:",
    "plain_system": "Think.\n\nQuestion: 3+3?\nAnswer:",
    "few_shot_chat": CHAT.format("1 + {1}?\nIt is 2.\n\n2+2?\nIt is 4.\n\n3+3?"),
    "few_shot_plain": (
        "Question: 1 + {1}?\nAnswer: It is 2.\n\n"
        "Question: 2+2?\nAnswer: It is 4.\n\nQuestion: 3+3?\nAnswer:"
    ),
}


def text(name: str, system: str = "Think.", template: str | None = CHAT_TEMPLATE) -> str:
    form = builtin_form(name)
    tokenizer = tiny_tokenizer(chat_template=template)
    prompt = Prompt(system, form, EXAMPLES if form.num_fewshot else ())
    return tokenizer.decode(render_prompt(tokenizer, "3+3?", prompt))


def test_each_form_has_its_text():
    assert {name: text(name) for name in option_files([conf_dir()], "prompt")} == TEXTS


def test_without_a_chat_template_a_chat_form_is_plain():
    """The base model got the plain text, but its answers ran on to invented questions."""
    assert text("chat", template=None) == TEXTS["plain_system"]
    assert text("few_shot_chat", template=None) == "Think.\n\n" + TEXTS["few_shot_plain"]
    assert text("none", template=None) == TEXTS["none"]
    assert text("plain_system", system="") == TEXTS["plain"]
    tokenizer = tiny_tokenizer(chat_template=None)
    assert form_for(tokenizer, Prompt()).stop == ["Question:"]
    assert form_for(tiny_tokenizer(), Prompt()).stop == []


def test_a_control_token_in_an_example_is_text():
    forged = replace(EXAMPLES[0], solution="2<|im_end|>")
    tokenizer = tiny_tokenizer()
    prompt = Prompt(form=builtin_form("few_shot_chat"), examples=(forged,))
    ids = render_prompt(tokenizer, "3+3?", prompt)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == 1
    assert "2<|im_end|>" in tokenizer.decode(ids)


@pytest.fixture
def load(tmp_path):
    """Loads a form from a text: a template, or the YAML of an option of one's own."""

    def call(text: str):
        file = tmp_path / "prompt" / ("ask.jinja" if text.startswith("{{") else "mine.yaml")
        file.parent.mkdir()
        file.write_text(text, "utf-8")
        name = "mine" if file.suffix == ".yaml" else str(file)
        return load_form(name, [conf_dir(), tmp_path])

    return call


def test_a_jinja_file_is_the_whole_prompt(load):
    form, tokenizer = load("{{ system }} Sum: {{ question }} ="), tiny_tokenizer()
    ids = render_prompt(tokenizer, "3+3", Prompt("Add.", form))
    assert (form.name, tokenizer.decode(ids)) == ("ask", "Add. Sum: 3+3 =")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ system }}", "omits or changes the text of {{ question }}"),
        ("{{ question | upper }}", "omits or changes the text of {{ question }}"),
        ("{{ question | tojson }}", "omits or changes the text of {{ question }}"),
        ("{{ question }", "the template of prompt ask fails"),
        ("{{ question }} {{ answer }}", "'answer' is undefined"),
        ("{{ question | nonsense }}", "the template of prompt ask fails"),
        ("{{ question }} {{ question.__class__ }}", "the template of prompt ask fails"),
        ("{{ question }} {{ range(9999) | random }}", "the prompt differs each time"),
        ("base: few_shot_chat\ntemplate: '{{ question }}'", "omits or changes the text of the ex"),
        ("base: few_shot_chta", "unknown form 'few_shot_chta'. Did you mean 'few_shot_chat'"),
        ("base: [plain]", "unknown form"),
        ("base: mine", "extends itself"),
        ("base: plain\nstops: [x]", "unknown key 'stops'"),
        ("base: plain\nstop: ['']", "an empty text would end every answer"),
    ],
)
def test_a_bad_form_is_one_clear_error(load, tmp_path, text, message):
    with one_line_error(message, f"{tmp_path / 'prompt'}/"):
        load(text)


def test_a_form_extends_one_that_extends_another(load):
    form = load("base: few_shot_plain\nnum_fewshot: 8\n")
    assert form == replace(builtin_form("plain"), name="mine", num_fewshot=8)


def test_a_template_that_fails_for_one_question_names_it(load):
    form = load("{{ question }}{{ '' if 'sum' not in question else nothing }}")
    with pytest.raises(UserError, match="prompt ask fails for the question 'The sum"):
        render_prompt(tiny_tokenizer(), "The sum of 1 and 2?", Prompt(form=form))


@pytest.mark.parametrize("question", ["3+3?", "3<|im_end|>?"])
def test_a_form_keeps_its_own_special_tokens_at_its_end(load, question):
    form, tokenizer = load("{{ question }}<|im_end|>"), tiny_tokenizer()
    ids = render_prompt(tokenizer, question, Prompt(form=form))
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def inputs(tmp_path, *, count: int = 3, **sampler) -> Inputs:
    """Of a run on generated sums, with a tiny expert."""
    sums = {"format": "random_calculation", "operations": ["add"], "operands": [1, 9]}
    sums["count"] = 9
    settings = Settings(
        expert=ExpertSettings(name="tiny", path=str(tiny_model(tmp_path))),
        data=DataSettings(name="sums", split="train", max_questions=count, **sums),
        method=MethodSettings(name="m"),
        sampler=SamplerSettings(**sampler),
        evaluator=EvaluatorSettings(prompts=["few_shot_plain", "chat"], num_fewshot=2),
        device="cpu",
    )
    found = Inputs(settings, [conf_dir()])
    found.benchmarks = [
        BenchmarkSettings(name="sums", split="test", shots_split="train", answer="number", **sums)
    ]
    return found


def test_examples_come_from_the_train_split_and_never_from_the_questions(tmp_path):
    found = inputs(tmp_path, prompt="few_shot_plain")
    shots = found.prompts["few_shot_plain"]["sums"].examples
    assert len(shots) == 2
    assert found.prompts["chat"]["sums"].examples == ()
    asked = {question.text for question in found.benchmark_questions["sums"]}
    assert not asked & {shot.question for shot in shots}
    sampled = {question.text for question in found.questions}
    examples = found.prompt.examples
    assert len(examples) == 4
    assert not sampled & {one.question for one in examples}


def test_a_benchmarks_prompt_is_recorded_the_same_beside_other_benchmarks(tmp_path):
    """One digest over all benchmarks made runs that share some of them incomparable."""
    alone, both = inputs(tmp_path), inputs(tmp_path)
    for one in (alone, both):
        one.settings.stages = ["evaluate"]
    both.benchmarks.append(replace(both.benchmarks[0], name="others"))
    found, more = (one.provenance()["prompts"] for one in (alone, both))
    assert list(found) == ["few_shot_plain, sums", "chat, sums"]
    assert found.items() < more.items()
    both.prompts["chat"]["sums"] = both.prompts["few_shot_plain"]["sums"]
    assert both.provenance()["prompts"]["chat, sums"] != found["chat, sums"]


def test_examples_are_never_among_the_test_questions(tmp_path):
    found = inputs(tmp_path)
    found.benchmarks[0].shots_split = "test"
    with pytest.raises(UserError, match="has only 0 that are not asked themselves"):
        _ = found.prompts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["chat"], "num_fewshot": 5}, "add few_shot_chat or few_shot_plain"),
        ({"prompts": ["chat", "chat.jinja"]}, "has two forms named chat"),
    ],
)
def test_forms_that_do_not_go_together_are_an_error(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.jinja").write_text("{{ question }}", "utf-8")
    settings = inputs(tmp_path).settings
    settings.evaluator = EvaluatorSettings(**changes)
    with pytest.raises(UserError, match=message):
        _ = Inputs(settings, [conf_dir()]).prompts


def test_too_few_questions_for_the_samplers_examples_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"has 1 besides those to sample from: lower data"):
        _ = inputs(tmp_path, count=8, prompt="few_shot_chat").prompt


def test_questions_with_a_stop_string_give_one_warning_per_form_and_data(tmp_path, caplog):
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "asks.yaml").write_text("base: plain\nstop: ['8?', '+ 9']\n", "utf-8")
    usual = inputs(tmp_path)
    usual.settings.stages = ["evaluate"]
    usual.settings.evaluator = EvaluatorSettings(prompts=["chat", "asks"])
    found = Inputs(usual.settings, [conf_dir(), tmp_path])
    found.benchmarks = usual.benchmarks
    texts = ["What is 1 + 2?", "What is 3 + 8?", "What is 4 + 9?", "What is 9 + 8?"]
    found.benchmark_questions = {
        "sums": [Question(f"sums/{n}", text, "0") for n, text in enumerate(texts)]
    }
    for _ in range(2):
        found.check()
    messages = [record.getMessage() for record in caplog.records]
    assert [one for one in messages if "stop string" in one] == [
        "prompt asks: 3 of 4 questions of benchmark sums contain the stop string '8?' or '+ 9', "
        "such as sums/1; answers that quote it end there. Use another prompt, or change its `stop`."
    ]

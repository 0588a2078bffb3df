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
from lr_exp.errors import UserError
from lr_exp.models.prompt_forms import Example, Prompt, builtin_form, load_form
from lr_exp.models.prompts import form_for, render_prompt
from lr_exp.pipeline.inputs import Inputs
from tests.support.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

# Braces must not be interpreted by str.format.
EXAMPLES = (Example("1 + {1}?", "It is 2."), Example("2+2?", "It is 4."))
CHAT = (
    "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TEXTS = {
    "chat": CHAT.format("3+3?"),
    "none": "3+3?",
    "plain": "Think.\n\nQuestion: 3+3?\nAnswer:",
    "few_shot_chat": CHAT.format("1 + {1}?\nIt is 2.\n\n2+2?\nIt is 4.\n\n3+3?"),
    "few_shot_plain": (
        "Think.\n\nQuestion: 1 + {1}?\nAnswer: It is 2.\n\n"
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
    assert text("chat", template=None) == TEXTS["plain"]
    assert text("few_shot_chat", template=None) == TEXTS["few_shot_plain"]
    assert text("none", template=None) == TEXTS["none"]
    assert text("plain", system="") == "Question: 3+3?\nAnswer:"
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


def test_a_jinja_file_is_the_whole_prompt(tmp_path):
    file = tmp_path / "ask.jinja"
    file.write_text("{{ system }} Sum: {{ question }} =", "utf-8")
    form = load_form(str(file), [conf_dir()])
    tokenizer = tiny_tokenizer()
    ids = render_prompt(tokenizer, "3+3", Prompt("Add.", form))
    assert (form.name, tokenizer.decode(ids)) == ("ask", "Add. Sum: 3+3 =")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ system }}", "omits the text of {{ question }}"),
        ("{{ question }", "the template fails"),
        ("{{ question }} {{ answer }}", "'answer' is undefined"),
        ("{{ question | nonsense }}", "the template fails"),
        ("{{ question }} {{ question.__class__ }}", "the template fails"),
        ("{{ question }} {{ range(9999) | random }}", "renders the same prompt differently"),
    ],
)
def test_a_bad_template_is_one_clear_error(tmp_path, template, message):
    file = tmp_path / "ask.jinja"
    file.write_text(template, "utf-8")
    with pytest.raises(UserError) as caught:
        load_form(str(file), [conf_dir()])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_few_shot_form_that_omits_its_examples_is_an_error(tmp_path):
    folder = tmp_path / "prompt"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "defaults: [few_shot_chat]\nname: mine\ntemplate: '{{ question }}'\n", "utf-8"
    )
    with pytest.raises(UserError, match="omits the text of the examples"):
        load_form("mine", [conf_dir(), tmp_path])


def inputs(tmp_path, *, count: int = 3, **sampler) -> Inputs:
    """Of a run on generated sums, with a tiny expert."""
    sums = {"format": "random_calculation", "operations": {"add": [1, 9]}, "count": 9}
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


def test_examples_among_the_test_questions_are_an_error(tmp_path):
    found = inputs(tmp_path)
    found.benchmarks[0].shots_split = "test"
    with pytest.raises(UserError, match="is also a question of benchmark sums"):
        _ = found.prompts


def test_too_few_questions_for_the_samplers_examples_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"has 1 besides those to sample from: lower data"):
        _ = inputs(tmp_path, count=8, prompt="few_shot_chat").prompt

"""Prompts of the evaluation, and the order of its outputs."""

from lr_exp.data.questions import Question
from lr_exp.evaluator import answer
from lr_exp.evaluator.prompts import examples_of
from lr_exp.inference.decoding import Decoded
from lr_exp.models.prompt_forms import Prompt
from lr_exp.store.shards import read_by_index
from tests.support.sampling import load_micro


def test_few_shot_examples_and_system_prompt_are_in_the_prompt(tmp_path, monkeypatch):
    """The few-shot examples could be reported in the settings without being in the prompt."""
    seen: list[list[int]] = []

    def decode(models, *_, **__):
        seen.extend(models[0].prompts)
        return [Decoded([5], finished=False) for _ in models[0].prompts]

    monkeypatch.setattr("lr_exp.inference.generation.decode", decode)
    shots = [Question("q/9", "Mia has 3 eggs.", answer="3")]
    expert = load_micro()
    expert.tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
    )
    answer.answer(
        [Question("q/0", "Tom has 12 pens.")],
        expert,
        tmp_path,
        name="test",
        prompt=Prompt("Count.", examples=examples_of(shots)),
        max_new_tokens=4,
        batch_size=1,
    )
    text = expert.tokenizer.decode(seen[0])
    assert text.index("Mia has 3 eggs.") < text.index("\\boxed{3}") < text.index("Tom has 12 pens.")
    assert text.startswith("<|user|>")
    assert len(seen[0]) > len(expert.tokenizer("<|user|>Tom has 12 pens.")["input_ids"])


def test_outputs_are_in_the_order_of_the_questions(tmp_path, monkeypatch):
    """Batches are sorted by length; graded in that order, answers would get wrong references."""

    def decode(models, *_, **__):
        return [Decoded([len(prompt)], finished=True) for prompt in models[0].prompts]

    monkeypatch.setattr("lr_exp.inference.generation.decode", decode)
    questions = [Question(f"q/{n}", "Tom has 12 pens. " * (n % 4 + 1)) for n in range(7)]
    settings = {"prompt": Prompt(), "max_new_tokens": 4, "batch_size": 2}
    answer.answer(questions, load_micro(), tmp_path, name="test", **settings)
    outputs = read_by_index(tmp_path)
    assert [row["question_id"] for row in outputs] == [question.id for question in questions]

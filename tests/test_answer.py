"""What a benchmark's model is asked, and that answers keep to their questions."""

from lr_exp.data.questions import Question
from lr_exp.evaluator import answer
from lr_exp.inference.decoding import Decoded

from .test_distiller import load_expert


def test_worked_examples_and_the_system_prompt_reach_the_model(tmp_path, monkeypatch):
    """Shots that stay in the settings would be reported and never given."""
    asked: list[list[int]] = []

    def decode(model, prompts, **_):
        asked.extend(prompts)
        return [Decoded([5], finished=False) for _ in prompts]

    monkeypatch.setattr("lr_exp.inference.generation.decode_greedily", decode)
    expert = load_expert()
    expert.tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
    )
    answer.answer(
        [Question("q/0", "Tom has 12 pens.")],
        expert,
        tmp_path,
        name="test",
        system_prompt="Count.",
        shots=[Question("q/9", "Mia has 3 eggs.", answer="3")],
        max_new_tokens=4,
        batch_size=1,
    )
    text = expert.tokenizer.decode(asked[0])
    assert text.index("Mia has 3 eggs.") < text.index("\\boxed{3}") < text.index("Tom has 12 pens.")
    assert text.startswith("<|user|>")
    assert len(asked[0]) > len(expert.tokenizer("<|user|>Tom has 12 pens.")["input_ids"])


def test_outputs_come_back_in_the_benchmarks_order(tmp_path, monkeypatch):
    """Batches are sorted by length; grading them in that order would compare strangers."""
    monkeypatch.setattr(
        "lr_exp.inference.generation.decode_greedily",
        lambda model, prompts, **_: [Decoded([len(prompt)], finished=True) for prompt in prompts],
    )
    questions = [Question(f"q/{n}", "Tom has 12 pens. " * (n % 4 + 1)) for n in range(7)]
    answer.answer(
        questions,
        load_expert(),
        tmp_path,
        name="test",
        system_prompt="",
        shots=[],
        max_new_tokens=4,
        batch_size=2,
    )
    outputs = answer.read_outputs(tmp_path)
    assert [row["question_id"] for row in outputs] == [question.id for question in questions]

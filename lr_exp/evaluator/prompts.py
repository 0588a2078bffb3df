r"""Texts of questions and examples, with the wording of the Qwen2.5-Math toolkit.

A change here changes results: raise `version` of the affected benchmarks.
"""

from collections.abc import Sequence

from lr_exp.data.formats import LETTERS, Question
from lr_exp.models.prompt_forms import Example


def examples_of(shots: Sequence[Question]) -> tuple[Example, ...]:
    """Worked examples for a few-shot prompt, of questions with answers."""
    return tuple(Example(question_text(shot), worked_answer(shot)) for shot in shots)


def question_text(question: Question) -> str:
    r"""The text of a question, as prompts show it.

    A multiple-choice question lists its options as `(A) ... (B) ...` and requests the letter (the
    toolkit relies on the system prompt's `\boxed{}` for that).
    """
    if not question.choices:
        return question.text
    options = " ".join(
        f"({letter}) {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False)
    )
    return (
        f"{question.text}\nAnswer Choices: {options}\n"
        "Put the letter of the right choice within \\boxed{}."
    )


def worked_answer(shot: Question) -> str:
    r"""The solution of a question with an answer, ending in the answer in a `\boxed{}`."""
    solution = shot.solution or ""
    if "\\boxed" in solution:  # MATH's solutions already box their answer
        return solution
    return f"{solution}\nThe answer is \\boxed{{{shot.answer}}}.".strip()

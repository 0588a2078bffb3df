r"""Builds the user message for a question, with the wording of the Qwen2.5-Math toolkit.

A change here changes results: raise `version` of the affected benchmarks.
"""

from collections.abc import Sequence

from lr_exp.data.formats import LETTERS, Question


def user_message(question: Question, shots: Sequence[Question] = ()) -> str:
    r"""The few-shot examples, if any, followed by the question, as a single message.

    As in the toolkit, an example is the question, a line break and the solution; a blank line
    separates examples and question. A multiple-choice question lists its options as `(A) ... (B)
    ...` and requests the letter (the toolkit relies on the system prompt's `\boxed{}` for that).

    Raises ValueError for an example without an answer.
    """
    examples = [f"{_question_text(shot)}\n{worked_answer(shot)}" for shot in shots]
    return "\n\n".join([*examples, _question_text(question)])


def _question_text(question: Question) -> str:
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
    r"""The question's solution, ending in the answer in a `\boxed{}`.

    Raises ValueError for a question without an answer.
    """
    if shot.answer is None:
        raise ValueError(f"{shot.id} has no answer and cannot be a few-shot example")
    solution = shot.solution or ""
    if "\\boxed" in solution:  # MATH's solutions already box their answer
        return solution
    return f"{solution}\nThe answer is \\boxed{{{shot.answer}}}.".strip()

r"""A question as the user's message of a chat. Knows the Qwen2.5-Math toolkit's wording; knows
neither chat templates nor models. The system prompt is a setting (`evaluator.system_prompt`).

A change here changes results: raise `version` of the benchmarks it touches.
"""

from collections.abc import Sequence

from lr_exp.data.formats import LETTERS, Question


def user_message(question: Question, shots: Sequence[Question] = ()) -> str:
    r"""The message: worked examples, if any, and then the question, in a single turn.

    As in the toolkit, an example is question, line break, answer; examples and question are
    separated by a blank line. A multiple-choice question lists its options as `(A) ... (B) ...`
    and asks for the letter (the toolkit leaves that to the system prompt's `\boxed{}`).

    Raises ValueError for an example without an answer.
    """
    examples = [f"{_ask(shot)}\n{worked_answer(shot)}" for shot in shots]
    return "\n\n".join([*examples, _ask(question)])


def _ask(question: Question) -> str:
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
    r"""A question's solution as text that ends in the answer in a `\boxed{}`.

    Raises ValueError for a question without an answer.
    """
    if shot.answer is None:
        raise ValueError(f"{shot.id} has no answer and cannot be a worked example")
    solution = shot.solution or ""
    if "\\boxed" in solution:  # MATH's solutions end in a box of their own
        return solution
    return f"{solution}\nThe answer is \\boxed{{{shot.answer}}}.".strip()

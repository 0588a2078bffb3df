"""Formats: each converts a row of a data set into a `Question`."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lr_exp.errors import UserError

_MMLU_STEM_SUBJECTS = {
    *("abstract_algebra", "astronomy", "computer_security", "conceptual_physics"),
    *("electrical_engineering", "elementary_mathematics", "machine_learning"),
    *("college_biology", "college_chemistry", "college_computer_science"),
    *("college_mathematics", "college_physics"),
    *("high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_mathematics", "high_school_physics", "high_school_statistics"),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{|\\.|[{}]", re.DOTALL)
_MAX_BOXES = 50  # more boxes than this are not a list of answers
_BRACELESS_BOX = re.compile(r"\\boxed\s{1,8}([^\s{}$\\]{1,40})")
_CALCULATION = re.compile(r"<<[^<>]*>>")
_UNIT_IN_PARENTHESES = re.compile(r"\s\([^()]*\)$")
_FIELD = re.compile(r"\{(\w+)\}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Question:
    id: str  # stable within its source, e.g. `gsm8k/test/17`
    text: str
    answer: str | None = None  # the reference answer: `1234`, `\\frac{1}{2}`, `B`
    solution: str | None = None  # written by a person, if the source has one
    choices: tuple[str, ...] = ()  # of a multiple-choice question, in order


Reader = Callable[[Mapping[str, Any], str], Question | None]


def boxes(text: str) -> list[tuple[int, int]]:
    r"""Spans of the contents of the last balanced, non-empty `\boxed{...}` and `\fbox{...}`.

    Of nested boxes the inner one counts: `3` in `\boxed{\boxed{3}}`. A box without braces, as in
    some MATH solutions (`\boxed 3`), counts only if there is none with braces. Runs in linear time.
    """
    open_braces: list[int | None] = []  # start of a box's content; None for another brace
    found: deque[tuple[int, int]] = deque(maxlen=_MAX_BOXES)
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "}":
            start = open_braces.pop() if open_braces else None
            if start is None or (found and start < found[-1][0]):
                continue
            if text[start : token.start()].strip():
                found.append((start, token.start()))
        elif mark == "{":
            open_braces.append(None)
        elif mark.endswith("{") and len(mark) > 2:  # not the escaped brace `\{`
            open_braces.append(token.end())
    if found:
        return list(found)
    braceless = list(_BRACELESS_BOX.finditer(text))[-1:]
    return [(box.start(1), box.start(1) + len(box[1].rstrip(".,;:"))) for box in braceless]


def _column(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise UserError(
            f"{where}: no column {name!r}; the columns are: {', '.join(sorted(row))}. Set `path` "
            "and `format` (format hub: and the columns) so that they match."
        )
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _column(row, name, where)
    if value is None:
        raise UserError(f"{where}: column {name!r} is empty. Fix or delete the row.")
    return str(value).strip()


def columns_reader(question: str, answer: str | None, solution: str | None = None) -> Reader:
    """A reader of columns, or of texts with columns in braces; None: the source has no such."""

    def filled(text: str, row: Mapping[str, Any], where: str) -> str:
        if "{" not in text:
            return _text(row, text, where)
        return _FIELD.sub(lambda field: _text(row, field[1], where), text).strip()

    def read(row: Mapping[str, Any], where: str) -> Question:
        reference = answer and filled(answer, row, where)
        worked = solution and filled(solution, row, where)
        return Question(where, filled(question, row, where), reference, worked)

    return read


def _sentence(body: str, question: str) -> str:
    """Joins a story and its question; many SVAMP stories lack the full stop."""
    if body and not body.endswith((".", "?", "!")):
        body += "."
    return f"{body} {question}".strip()


def _plain_number(value: str) -> str:
    """Turns `145.0` into `145`; returns other values unchanged."""
    return value[:-2] if value.endswith(".0") and value[:-2].lstrip("-").isdigit() else value


def _read_gsm8k(row: Mapping[str, Any], where: str) -> Question:
    solution, mark, answer = _text(row, "answer", where).rpartition("####")
    if not mark:
        raise UserError(
            f"{where}: no `####` before the answer in column 'answer'. Set `path` and `format` so "
            "that they match."
        )
    solution, answer = _CALCULATION.sub("", solution).strip(), answer.strip().replace(",", "")
    return Question(where, _text(row, "question", where), answer, solution)


def _read_math(row: Mapping[str, Any], where: str) -> Question:
    """The answer is the last box of the solution; None if there is none."""
    solution = _text(row, "solution", where)
    found = boxes(solution)
    answer = solution[slice(*found[-1])].strip() if found else None
    return Question(where, _text(row, "problem", where), answer, solution)


def _read_svamp(row: Mapping[str, Any], where: str) -> Question:
    text = _sentence(_text(row, "Body", where), _text(row, "Question", where))
    return Question(where, text, _plain_number(_text(row, "Answer", where)))


def _read_asdiv(row: Mapping[str, Any], where: str) -> Question | None:
    """Turns `9 (apples)` into `9`; drops rows with several answers (`;`), as the toolkit does.

    Removes a unit only after a space: `-(1/3)` is an answer of this data set.
    """
    answer = _text(row, "answer", where)
    if ";" in answer:
        return None
    text = _sentence(_text(row, "body", where), _text(row, "question", where))
    return Question(where, text, _plain_number(_UNIT_IN_PARENTHESES.sub("", answer).strip()))


def _read_olympiadbench(row: Mapping[str, Any], where: str) -> Question:
    """The answer is the first of `final_answer`, without `$`, as in the toolkit."""
    answers = _column(row, "final_answer", where)
    if not answers:
        raise UserError(f"{where}: column 'final_answer' is empty. Fix or delete the row.")
    answer = str(answers[0]).replace("$", "").strip().rstrip(".")
    return Question(where, _text(row, "question", where), answer)


def _read_mmlu_stem(row: Mapping[str, Any], where: str) -> Question | None:
    """Drops rows of other subjects; turns the answer's index into its letter."""
    if _column(row, "subject", where) not in _MMLU_STEM_SUBJECTS:
        return None
    choices = tuple(str(choice).strip() for choice in _column(row, "choices", where))
    answer = _column(row, "answer", where)
    letter = answer if isinstance(answer, str) else LETTERS[answer]
    return Question(where, _text(row, "question", where), letter, choices=choices)


def read_jsonl(row: Mapping[str, Any], where: str) -> Question:
    """Reads `question`, and optional `answer` (string or number) and `solution`."""
    question, answer, solution = (row.get(key) for key in ("question", "answer", "solution"))
    if isinstance(answer, float):
        answer = Decimal(repr(answer))
    if "question" not in row:
        columns = ", ".join(sorted(row)) or "none"
        raise UserError(f"no `question`; the keys are: {columns}. Rename the right one.")
    if not isinstance(question, str) or not question.strip():
        raise UserError("`question` must be a non-empty string.")
    if isinstance(answer, bool) or not isinstance(answer, str | int | Decimal | None):
        raise UserError("`answer` must be a string or a number.")
    if not isinstance(solution, str | None):
        raise UserError("`solution` must be a string.")
    if isinstance(answer, Decimal) and not answer.is_finite():
        raise UserError(
            "`answer` is not a finite number. Write a number, or leave it empty (null)."
        )
    for key, value in (("question", question), ("answer", answer), ("solution", solution)):
        if isinstance(value, str) and _SURROGATE.search(value):
            raise UserError(
                f"`{key}` has half of a surrogate pair, which no tokenizer encodes. Remove it."
            )
    return Question(where, question.strip(), None if answer is None else str(answer), solution)


FORMATS: dict[str, Reader] = {
    "gsm8k": _read_gsm8k,
    "math": _read_math,
    "math500": columns_reader("problem", "answer", "solution"),
    "aime25": columns_reader("problem", "answer"),
    "svamp": _read_svamp,
    "asdiv": _read_asdiv,
    "minerva_math": columns_reader("question", "answer"),
    "olympiadbench": _read_olympiadbench,
    "mmlu_stem": _read_mmlu_stem,
    "jsonl": read_jsonl,
    "parquet": read_jsonl,
    "hub": columns_reader("question", None),  # with the columns of the settings instead
    "micro": columns_reader("question", "answer", "solution"),
    "random_calculation": columns_reader("question", "answer"),
}
"""Reader of each format: takes a row and a question id; returns None for a dropped row."""

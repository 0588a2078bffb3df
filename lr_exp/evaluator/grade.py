"""Grades outputs: extract, verify, aggregate. Regrades a file of recorded answers without a model.

python -m lr_exp.evaluator.grade answers.jsonl [--out FILE]
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.settings import ANSWER_KINDS, check_value
from lr_exp.data.json_lines import read_json_lines
from lr_exp.data.questions import Question
from lr_exp.errors import UserError, command, parser_of, run_program
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.verify import check_reference, verify
from lr_exp.store import json_lines, write_atomically

VERSION = 3  # increase it when `extract`, `verify` or `votes` changes, to grade answers again


@dataclass(frozen=True)
class Grade:
    extracted: str | None
    correct: bool
    rule: str | None  # that extracted it, see `extract`


def grade_answer(output: str, reference: str, kind: str, choices: Sequence[str] = ()) -> Grade:
    """Grades one output; one without an answer is wrong. Raises UserError: an invalid reference."""
    extracted, rule = extract(output, kind, choices)
    return Grade(extracted, verify(extracted, reference, kind, choices), rule)


def grade_question(output: str, question: Question, kind: str) -> Grade:
    return grade_answer(output, question.answer or "", kind, question.choices)


def check_references(questions: Sequence[Question], kind: str) -> None:
    """Raises UserError for the first missing or invalid reference. Call it before generation."""
    for question in questions:
        if question.answer is None:
            raise UserError(
                f"question {question.id} has no reference answer to grade against. Add its answer, "
                "or remove the question."
            )
        try:
            check_reference(question.answer, kind, question.choices)
        except UserError as error:
            raise UserError(f"question {question.id}: {error}") from error


def grade_all(
    questions: Sequence[Question], outputs: Sequence[dict[str, Any]], kind: str
) -> list[dict[str, Any]]:
    """One record per question, with the question, the reference, the output and its grade.

    Args:
        outputs: in the order of `questions`, each with `question_id`, `output`, `tokens`,
            `finished`.
        kind: how answers are extracted and compared (`settings.ANSWER_KINDS`).

    Raises:
        UserError: a reference is missing or invalid; the message has the question's id.
        ValueError: an output belongs to another question.
    """
    check_references(questions, kind)
    records = []
    for question, output in zip(questions, outputs, strict=True):
        if output["question_id"] != question.id:
            raise ValueError(f"expected the output of {question.id}, got {output['question_id']}")
        grade = grade_question(output["output"], question, kind)
        record = {
            "id": question.id,
            "question": question.text,
            "choices": list(question.choices),
            "reference": question.answer,  # not None: checked above
            "kind": kind,
        }
        generated = {name: output[name] for name in ("output", "tokens", "finished")}
        records.append({**record, **generated, **asdict(grade)})
    return records


def regrade(path: Path) -> list[dict[str, Any]]:
    """The records of a file of answers, with `extracted`, `correct` and `rule` recomputed.

    Each line is an object with `id`, `reference`, `kind`, `output` and, for kind `choice`,
    `choices`; other keys are kept. Raises UserError for an invalid line.
    """
    records = [_regrade(record, where) for _, where, record in read_json_lines(path)]
    if not records:
        raise UserError(f"{path}: no answers in the file. Pass the answers.jsonl of an evaluation.")
    return records


_KEYS = {
    "id": str,
    "reference": str,
    "kind": Annotated[str, ANSWER_KINDS],
    "output": str,
    "choices": list[str] | None,
    "tokens": Annotated[int | None, "[0, 2**31)"],
    "finished": bool | None,
}


def _regrade(record: dict[str, Any], where: str) -> dict[str, Any]:
    for key, hint in _KEYS.items():
        check_value(f"{where}: {key}", record.get(key), hint)
    choices = record.get("choices") or []
    try:
        grade = grade_answer(record["output"], record["reference"], record["kind"], choices)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return record | asdict(grade)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("lr_exp.evaluator.grade", __doc__)
    parser.add_argument("answers", type=Path, help="JSON Lines file, one answer per line")
    parser.add_argument("--out", type=Path, help="write the regraded records to this file")
    options = parser.parse_args(arguments)
    records = regrade(options.answers)
    if options.out:
        try:  # a truncated output may end in half a surrogate pair, which UTF-8 cannot encode
            content = json_lines(records).encode("utf-8", "backslashreplace")
            write_atomically(options.out, content)
        except OSError as error:
            raise UserError(
                f"--out {options.out} cannot be written ({error.strerror}). Pass a file in an "
                "existing, writable folder."
            ) from error
    result = aggregate(records)
    low, high = result.ci95 or (0.0, 1.0)
    print(
        f"{100 * result.accuracy:.1f} % ({result.correct} of {result.total} correct), "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    )
    return 0


if __name__ == "__main__":
    run_program(main)

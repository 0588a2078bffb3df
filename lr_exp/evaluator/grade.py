"""Grading one answer, and grading a file of recorded answers again without a model.

    python -m lr_exp.evaluator.grade answers.jsonl [--out FILE]

Joins extract, verify and aggregate; knows nothing of models.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_exp.config.settings import ANSWER_KINDS
from lr_exp.data.questions import Question
from lr_exp.errors import UserError, guard_tracebacks, print_error
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.evaluator.extract import extract
from lr_exp.evaluator.verify import check_reference, verify
from lr_exp.store import write_atomically

VERSION = 1
"""Grows when extracting or verifying changes, so that recorded answers are graded anew."""


@dataclass(frozen=True)
class Grade:
    """What was read from an output, and whether it is right."""

    extracted: str | None
    correct: bool


def grade_answer(output: str, reference: str, kind: str, choices: Sequence[str] = ()) -> Grade:
    """Grade one output; without an answer in it, it is wrong.

    Raises UserError for a broken reference, whatever the output.
    """
    extracted = extract(output, kind, choices)
    return Grade(extracted, verify(extracted, reference, kind, choices))


def check_references(questions: Sequence[Question], kind: str) -> None:
    """Raises UserError for the first missing or broken reference, before a model has answered."""
    for question in questions:
        with _naming(question) as reference:
            check_reference(reference, kind, question.choices)


def grade_all(
    questions: Sequence[Question], outputs: Sequence[dict[str, Any]], kind: str
) -> list[dict[str, Any]]:
    """One record a question: what was asked, expected, answered, read and decided.

    Args:
        questions: the benchmark's, with references.
        outputs: in the same order, each with `question_id`, `output`, `tokens`, `finished`.
        kind: how answers are read and compared (`settings.ANSWER_KINDS`).

    Raises UserError for a missing or broken reference, naming the question, and ValueError for
    an output of another question.
    """
    graded = []
    for question, output in zip(questions, outputs, strict=True):
        if output["question_id"] != question.id:
            raise ValueError(f"the output of {output['question_id']} stands at {question.id}")
        with _naming(question) as reference:
            one = grade_answer(output["output"], reference, kind, question.choices)
        graded.append(
            {
                "id": question.id,
                "question": question.text,
                "choices": list(question.choices),
                "reference": reference,
                "kind": kind,
                "output": output["output"],
                "tokens": output["tokens"],
                "finished": output["finished"],
                "extracted": one.extracted,
                "correct": one.correct,
            }
        )
    return graded


@contextmanager
def _naming(question: Question) -> Iterator[str]:
    """The question's reference; an error about it names the question."""
    if question.answer is None:
        raise UserError(f"question {question.id} has no reference answer to grade against.")
    try:
        yield question.answer
    except UserError as error:
        raise UserError(f"question {question.id}: {error}") from error


def regrade(path: Path) -> list[dict[str, Any]]:
    """The records of a per-question file with `extracted` and `correct` graded anew.

    Each line is an object with `id`, `reference`, `kind`, `output` and, for kind `choice`,
    `choices`; other keys are kept. Raises UserError for a line that is not.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}): give a JSON Lines file of answers."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}): save the file as UTF-8.") from error
    records = [
        _regrade_line(line, f"{path}, line {number}")
        for number, line in enumerate(content.split("\n"), 1)
        if line.strip()
    ]
    if not records:
        raise UserError(f"{path}: no answers in it: give the answers.jsonl of an evaluation.")
    return records


_TEXTS = ("id", "reference", "kind", "output")


def _regrade_line(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}). Write one object a line.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: not an object with {', '.join(_TEXTS)}.")
    for key in _TEXTS:
        if not isinstance(record.get(key), str):
            raise UserError(
                f"{where}: {key!r} is missing or not a text; a line has {', '.join(_TEXTS)}."
            )
    if record["kind"] not in ANSWER_KINDS:
        raise UserError(
            f"{where}: kind {record['kind'][:80]!r} is none of {', '.join(ANSWER_KINDS)}."
        )
    choices = record.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise UserError(f"{where}: 'choices' is not a list of texts; write [] for none.")
    try:
        grade = grade_answer(record["output"], record["reference"], record["kind"], choices)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return {**record, "extracted": grade.extracted, "correct": grade.correct}


def _write(records: Sequence[dict[str, Any]], path: Path) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    # Half of a surrogate pair, as an output cut in the middle has it, is no UTF-8.
    content = "".join(lines).encode("utf-8", "backslashreplace")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(
            f"--out {path} cannot be written ({error.strerror}): give a file in a folder that is "
            "there and can be written."
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Print accuracy, standard error and count; 2 and one line on stderr for a bad file."""
    parser = argparse.ArgumentParser(prog="python -m lr_exp.evaluator.grade", description=__doc__)
    parser.add_argument("answers", type=Path, help="a JSON Lines file, one graded question a line")
    parser.add_argument("--out", type=Path, help="write the records, graded anew, to this file")
    options = parser.parse_args(arguments)
    try:
        records = regrade(options.answers)
        if options.out:
            _write(records, options.out)
    except UserError as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 2
    result = aggregate([record["correct"] for record in records])
    print(
        f"{100 * result['accuracy']:.1f} % ± {100 * result['stderr']:.1f} "
        f"({result['correct']} of {result['total']} right)"
    )
    return 0


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

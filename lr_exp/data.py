"""Questions from hub data sets, their local mirrors, JSON Lines files and the micro world.

Knows rows and columns; knows neither models nor prompts.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, nearest
from lr_exp.settings import DataSettings, SourceSettings

MMLU_STEM_SUBJECTS = frozenset(
    [
        "abstract_algebra",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ]
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{|\\.|[{}]", re.DOTALL)
_BRACELESS_BOX = re.compile(r"\\boxed\s{1,8}([^\s{}$\\]{1,40})")
_CALCULATION = re.compile(r"<<[^<>]*>>")
_UNIT_IN_PARENTHESES = re.compile(r"\s\([^()]*\)$")


@dataclass(frozen=True)
class Question:
    """One question, as every stage sees it."""

    id: str  # stable within its source, e.g. `gsm8k/test/17`
    text: str
    answer: str | None = None  # the reference, canonical: `1234`, `\\frac{1}{2}`, `B`
    solution: str | None = None  # a human's worked solution, where the source has one
    choices: tuple[str, ...] = ()  # the options of a multiple-choice question, in order


Reader = Callable[[Mapping[str, Any], int, str], Question | None]


def load_questions(source: SourceSettings, *, hub_root: str | None) -> list[Question]:
    """All questions of `source`, in its order.

    hub_root: a folder that holds data sets under their hub ids; None reads from the hub itself.
    Ids are `<name>/<split>/<index>`, the index counting the kept rows from 0 so that a source and
    a copy of it without the dropped rows agree; for JSON Lines `<name>/<line number>`, from 1.

    Raises UserError where the source cannot be read, with the setting to change.
    """
    if source.format == "lr_samples":
        raise UserError(
            f"{_where(source)}: format lr_samples holds contrastive samples, not questions: use it "
            "with stages=[distill] or stages=[distill,evaluate]."
        )
    if source.format not in FORMATS:
        raise UserError(
            f"{_where(source)}: format {source.format!r} is not known."
            f"{nearest(source.format, FORMATS)}"
        )
    if source.format == "jsonl":
        return [_jsonl_question(number, line, source) for number, line in _jsonl_lines(source)]
    rows = _micro_rows(source) if source.format == "micro" else _hub_rows(source, hub_root)
    reader = FORMATS[source.format]
    questions: list[Question] = []
    for row in rows:
        question = reader(row, len(questions), f"{source.name}/{source.split}")
        if question is not None:
            questions.append(question)
    if not questions:
        raise UserError(
            f"{_where(source)}: {source.path or source.name} split {source.split} has no question "
            f"that format {source.format} keeps."
        )
    return questions


def select_questions(
    questions: Sequence[Question], max_questions: int | None, seed: int
) -> list[Question]:
    """The first `max_questions` of a seeded shuffle; None takes all, in order.

    A larger number only adds questions: the smaller selection is a prefix of the larger one.
    """
    if max_questions is None:
        return list(questions)
    shuffled = list(questions)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:max_questions]


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) over ids and contents, in order: the same for a hub data set and its mirror."""
    digest = hashlib.sha256()
    for question in questions:
        fields = [
            question.id,
            question.text,
            question.answer,
            question.solution,
            list(question.choices),
        ]
        digest.update(json.dumps(fields).encode("ascii") + b"\n")
    return digest.hexdigest()


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced, non-empty `\boxed{...}` or `\fbox{...}`, else None.

    The box that opens last wins, so `\boxed{\boxed{3}}` gives `3`. A box without braces, as some
    MATH solutions have (`\boxed 3`), counts where there is none with braces. Linear in the length.
    """
    open_braces: list[int | None] = []  # where a box's content starts; None for any other brace
    best: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "}":
            start = open_braces.pop() if open_braces else None
            if start is None or (best is not None and start < best[0]):
                continue
            if text[start : token.start()].strip():
                best = start, token.start()
        elif mark == "{":
            open_braces.append(None)
        elif mark.endswith("{") and len(mark) > 2:  # not the escaped brace `\{`
            open_braces.append(token.end())
    if best is not None:
        return text[best[0] : best[1]].strip()
    braceless = _BRACELESS_BOX.findall(text)
    return braceless[-1].rstrip(".,;:") or None if braceless else None


# Readers: one row to one question.


def _column(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise UserError(
            f"{where}: no column {name!r}; the columns there are: {', '.join(sorted(row))}. Set "
            "`path` and `format` to a pair that fits."
        )
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    return str(_column(row, name, where)).strip()


def _sentence(body: str, question: str) -> str:
    """The story and its question; many SVAMP stories lack their full stop."""
    if body and not body.endswith((".", "?", "!")):
        body += "."
    return f"{body} {question}".strip()


def _plain_number(value: str) -> str:
    """`145.0` as `145`; anything else as it is."""
    return value[:-2] if value.endswith(".0") and value[:-2].lstrip("-").isdigit() else value


def _read_gsm8k(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    where = f"{prefix}/{index}"
    solution, mark, answer = _text(row, "answer", where).rpartition("####")
    if not mark:
        raise UserError(f"{where}: no `####` before the answer in column 'answer'.")
    return Question(
        where,
        _text(row, "question", where),
        answer.strip().replace(",", ""),
        _CALCULATION.sub("", solution).strip(),
    )


def _read_math(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    """The answer is the last box of the solution (None where there is none)."""
    where = f"{prefix}/{index}"
    solution = _text(row, "solution", where)
    return Question(where, _text(row, "problem", where), last_boxed(solution), solution)


def _read_math500(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    where = f"{prefix}/{index}"
    return Question(
        where,
        _text(row, "problem", where),
        _text(row, "answer", where),
        _text(row, "solution", where),
    )


def _read_svamp(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    where = f"{prefix}/{index}"
    text = _sentence(_text(row, "Body", where), _text(row, "Question", where))
    return Question(where, text, _plain_number(_text(row, "Answer", where)))


def _read_asdiv(row: Mapping[str, Any], index: int, prefix: str) -> Question | None:
    """`9 (apples)` becomes `9`; rows with several answers (`;`) are dropped, as the toolkit does.

    Only a unit after a space goes: `-(1/3)` is an answer of this data set.
    """
    where = f"{prefix}/{index}"
    answer = _text(row, "answer", where)
    if ";" in answer:
        return None
    text = _sentence(_text(row, "body", where), _text(row, "question", where))
    return Question(where, text, _plain_number(_UNIT_IN_PARENTHESES.sub("", answer).strip()))


def _read_minerva_math(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    where = f"{prefix}/{index}"
    return Question(where, _text(row, "question", where), _text(row, "answer", where))


def _read_olympiadbench(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    """The toolkit's rule: the first of `final_answer`, without `$`."""
    where = f"{prefix}/{index}"
    answers = _column(row, "final_answer", where)
    if not answers:
        raise UserError(f"{where}: column 'final_answer' is empty.")
    answer = str(answers[0]).replace("$", "").strip().rstrip(".")
    return Question(where, _text(row, "question", where), answer)


def _read_mmlu_stem(row: Mapping[str, Any], index: int, prefix: str) -> Question | None:
    """Rows of other subjects are dropped; the answer's index becomes its letter."""
    where = f"{prefix}/{index}"
    if _column(row, "subject", where) not in MMLU_STEM_SUBJECTS:
        return None
    choices = tuple(str(choice).strip() for choice in _column(row, "choices", where))
    answer = _column(row, "answer", where)
    letter = answer if isinstance(answer, str) else LETTERS[answer]
    return Question(where, _text(row, "question", where), letter, choices=choices)


def _read_jsonl(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    """`question`, and optional `answer` (text or number) and `solution`."""
    where = f"{prefix}/{index}"
    question, answer, solution = (row.get(key) for key in ("question", "answer", "solution"))
    if "question" not in row:
        columns = ", ".join(sorted(row)) or "none"
        raise UserError(f"no `question`; the keys there are: {columns}.")
    if not isinstance(question, str) or not question.strip():
        raise UserError("`question` must be a text that is not empty.")
    if isinstance(answer, bool) or not isinstance(answer, str | int | Decimal | None):
        raise UserError("`answer` must be a text or a number.")
    if not isinstance(solution, str | None):
        raise UserError("`solution` must be a text.")
    for key, value in (("question", question), ("answer", answer), ("solution", solution)):
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"`{key}` has half of a surrogate pair, which no tokenizer can read.")
    return Question(where, question.strip(), None if answer is None else str(answer), solution)


def _read_micro(row: Mapping[str, Any], index: int, prefix: str) -> Question:
    return Question(f"{prefix}/{index}", row["question"], row["answer"], row["solution"])


FORMATS: dict[str, Reader] = {
    "gsm8k": _read_gsm8k,
    "math": _read_math,
    "math500": _read_math500,
    "svamp": _read_svamp,
    "asdiv": _read_asdiv,
    "minerva_math": _read_minerva_math,
    "olympiadbench": _read_olympiadbench,
    "mmlu_stem": _read_mmlu_stem,
    "jsonl": _read_jsonl,
    "micro": _read_micro,
}
"""Format name to reader: (row, index, id prefix) to a Question, or None for a dropped row."""


# Where rows come from.


def _where(source: SourceSettings) -> str:
    return "data" if isinstance(source, DataSettings) else f"benchmark {source.name}"


def _required_path(source: SourceSettings) -> str:
    if not source.path or source.path == "???":
        raise UserError(f"{_where(source)}: `path` is missing: set {_key(source, 'path')}.")
    return source.path


def _key(source: SourceSettings, field: str) -> str:
    return f"data.{field}" if isinstance(source, DataSettings) else f"`{field}` in its YAML"


def _hub_rows(source: SourceSettings, hub_root: str | None) -> Iterator[Mapping[str, Any]]:
    path = _required_path(source)
    if hub_root is not None:
        folder = Path(hub_root).expanduser() / path
        if not folder.is_dir():
            raise UserError(
                f"{_where(source)}: {folder} is not a folder: hub_root={hub_root} must hold the "
                f"data set under its hub id {path}. Copy it there or leave hub_root unset."
            )
        path = str(folder)
    for config in source.configs or [None]:
        yield from _load_split(source, path, config)


def _load_split(source: SourceSettings, path: str, config: str | None) -> Any:
    import datasets  # takes a second: not at start-up

    if source.split is None:
        raise UserError(f"{_where(source)}: no split is given: set {_key(source, 'split')}.")
    local = Path(path).exists()
    try:
        with _quiet_progress(local):
            return datasets.load_dataset(
                path, config, split=source.split, revision=None if local else source.revision
            )
    # datasets passes on what httpx, fsspec, pyarrow and the hub client raise: no common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        name = path if config is None else f"{path} ({config})"
        if isinstance(error, ConnectionError) or "LocalEntryNotFound" in reason:
            hint = "Connect to the hub, or set hub_root to a folder that holds the data set."
        elif "split" in reason:
            hint = f"Change {_key(source, 'split')}."
        elif "BuilderConfig" in reason or "Config name" in reason:
            hint = f"Change {_key(source, 'configs')}."
        else:
            hint = f"Check {_key(source, 'path')}, or set hub_root to a folder that holds it."
        raise UserError(
            f"{_where(source)}: split {source.split} of {name} cannot be read: {reason}. {hint}"
        ) from error


@contextmanager
def _quiet_progress(quiet: bool) -> Iterator[None]:
    """No progress bar for a local folder of some thousand rows; a download keeps its own."""
    import datasets

    change = quiet and not datasets.are_progress_bars_disabled()
    if change:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if change:
            datasets.enable_progress_bars()


def _micro_rows(source: SourceSettings) -> Iterator[Mapping[str, Any]]:
    from lr_exp.micro.world import problems  # a generator that only this format needs

    if len(source.configs) != 1 or source.split is None or source.count is None:
        raise UserError(
            f"{_where(source)}: format micro needs one family in {_key(source, 'configs')}, and "
            f"{_key(source, 'split')} and {_key(source, 'count')}."
        )
    try:
        found = problems(source.configs[0], source.count, source.seed, source.split)
    except ValueError as error:
        raise UserError(f"{_where(source)}: {error}") from error
    for problem in found:
        yield {
            "question": problem.question,
            "answer": problem.answer,
            "solution": problem.solution,
        }


def _jsonl_lines(source: SourceSettings) -> list[tuple[int, str]]:
    path = Path(_required_path(source)).expanduser()
    key = _key(source, "path")
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set {key} to a JSON Lines file.")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8. Save the file as UTF-8.") from error
    # Not splitlines(): it also breaks at U+2028 and others, which JSON texts may hold.
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(
            f"{path}: no questions in it. Write one JSON object with `question` a line."
        )
    return lines


def _jsonl_question(number: int, line: str, source: SourceSettings) -> Question:
    try:
        row = json.loads(line, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source.path}, line {number}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise UserError(
            f"{source.path}, line {number}: not an object. "
            'Write {"question": "..."}, with an optional "answer" and "solution".'
        )
    try:
        return _read_jsonl(row, number, source.name)
    except UserError as error:
        raise UserError(f"{source.path}, line {number}: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

"""Questions from hub data sets, their local mirrors, JSON Lines, Parquet and the micro world."""

import json
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any

from lr_exp.config.settings import DataSettings, SourceSettings
from lr_exp.data.formats import FORMATS, Question, read_jsonl
from lr_exp.data.parquet_rows import parquet_files, parquet_rows
from lr_exp.data.stored_questions import Fingerprint, StoredQuestions, without_reference
from lr_exp.errors import UserError, did_you_mean

_MAX_MICRO_QUESTIONS = 100_000  # searching a small family for more would take hours


def load_questions(source: SourceSettings, *, hub_root: str | None) -> list[Question]:
    """All questions of `source` in its order; see `stream_questions`."""
    return list(_questions(source, hub_root, streaming=False))


def stream_questions(source: SourceSettings, *, hub_root: str | None) -> Generator[Question]:
    """Yields the questions of `source` in its order, a few in memory at a time.

    Their ids are `<name>/<split>/<index>`, where the index counts the kept rows from 0, so that a
    copy of the source without the dropped rows has the same ids; `<name>/<line number>` for JSON
    Lines and `<name>/<row number>` over all files for Parquet, both from 1.

    Args:
        source: settings of the data set or benchmark.
        hub_root: folder that holds data sets under their hub ids; None reads from the hub.

    Raises:
        UserError: the source cannot be read; the message names the setting to change.
    """
    return _questions(source, hub_root, streaming=True)


def local_files(source: SourceSettings, *, hub_root: str | None) -> list[Path] | None:
    """The files of a local source; None for a source on the hub.

    Raises:
        UserError: there is no such file or folder.
    """
    if source.format == "jsonl":
        return [_jsonl_file(source)]
    if source.format == "parquet":
        return _parquet_files(source)
    path = Path(_hub_path(source, hub_root))
    if not path.is_dir():
        return [path] if path.is_file() else None
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    # Hidden files belong to git and the hub's client.
    return [path / f for f in sorted(files) if not any(part.startswith(".") for part in f.parts)]


def _questions(
    source: SourceSettings, hub_root: str | None, *, streaming: bool
) -> Generator[Question]:
    if source.format == "lr_samples":
        raise UserError(
            f"{_where(source)}: format lr_samples holds contrastive samples, not questions. Use it "
            "with stages=[distill] or stages=[distill,evaluate]."
        )
    if source.format not in FORMATS:
        raise UserError(
            f"{_where(source)}: unknown format {source.format!r}."
            f"{did_you_mean(source.format, FORMATS)}"
        )
    if source.format == "jsonl":
        for number, line in _jsonl_lines(source):
            yield _jsonl_question(number, line, source)
        return
    if source.format == "parquet":
        yield from _parquet_questions(source)
        return
    if source.format == "micro":
        rows = _micro_rows(source, streaming=streaming)
    else:
        rows = _hub_rows(source, hub_root, streaming=streaming)
    reader = FORMATS[source.format]
    count = 0
    for row in rows:
        where = f"{source.name}/{source.split}/{count}"
        try:
            question = reader(row, where)
        # A cell has an unexpected type, or an index beyond the options.
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            raise UserError(
                f"{where}: format {source.format} cannot read this row "
                f"({type(error).__name__}: {error}). Set `path` and `format` so that they match."
            ) from error
        if question is not None:
            count += 1
            yield question
    if not count:
        raise UserError(
            f"{_where(source)}: format {source.format} keeps no question of "
            f"{source.path or source.name}, split {source.split}."
        )


def select_questions(
    questions: Sequence[Question], max_questions: int | None, seed: int
) -> list[Question]:
    """The first `max_questions` of a seeded shuffle; None returns all in their order.

    A smaller selection is a prefix of a larger one with the same seed.
    """
    if max_questions is None:
        return list(questions)
    shuffled = list(questions)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:max_questions]


def prompts_fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) of the questions without reference answers and solutions, in order."""
    if isinstance(questions, StoredQuestions):
        return questions.prompts_fingerprint
    return fingerprint([without_reference(question) for question in questions])


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) over all fields, in order; the same for a hub data set and its mirror."""
    if isinstance(questions, StoredQuestions):
        return questions.fingerprint
    digest = Fingerprint()
    for question in questions:
        digest.add(question)
    return digest.hex()


def _where(source: SourceSettings) -> str:
    return "data" if isinstance(source, DataSettings) else f"benchmark {source.name}"


def _required_path(source: SourceSettings) -> str:
    if not source.path or source.path == "???":
        raise UserError(f"{_where(source)}: `path` is missing. Set {_key(source, 'path')}.")
    return source.path


def _key(source: SourceSettings, field: str) -> str:
    return f"data.{field}" if isinstance(source, DataSettings) else f"`{field}` in its YAML"


def _hub_path(source: SourceSettings, hub_root: str | None) -> str:
    path = _required_path(source)
    if hub_root is None:
        return path
    folder = Path(hub_root).expanduser() / path
    if not folder.is_dir():
        raise UserError(
            f"{_where(source)}: {folder} is not a folder. hub_root={hub_root} must hold the data "
            f"set under its hub id {path}. Copy it there or leave hub_root unset."
        )
    return str(folder)


def _hub_rows(
    source: SourceSettings, hub_root: str | None, *, streaming: bool
) -> Iterator[Mapping[str, Any]]:
    path = _hub_path(source, hub_root)
    for config in source.configs or [None]:
        yield from _split_rows(source, path, config, streaming=streaming)


def _split_rows(
    source: SourceSettings, path: str, config: str | None, *, streaming: bool
) -> Iterator[Any]:
    import datasets  # slow: takes a second

    if source.split is None:
        raise UserError(f"{_where(source)}: `split` is missing. Set {_key(source, 'split')}.")
    local = Path(path).exists()
    try:
        with _quiet_progress(local):
            rows = datasets.load_dataset(
                path,
                config,
                split=source.split,
                revision=None if local else source.revision,
                streaming=streaming,
            )
        yield from rows  # opens and reads a stream
    # Errors of httpx, fsspec, pyarrow and the hub client have no common base class.
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
    """Hides the progress bar of a local folder; a download keeps its own."""
    import datasets

    change = quiet and not datasets.are_progress_bars_disabled()
    if change:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if change:
            datasets.enable_progress_bars()


def _micro_rows(source: SourceSettings, *, streaming: bool) -> Iterator[Mapping[str, Any]]:
    if len(source.configs) != 1 or source.split is None or source.count is None:
        raise UserError(
            f"{_where(source)}: format micro needs {_key(source, 'configs')} (one family), "
            f"{_key(source, 'split')} and {_key(source, 'count')}."
        )
    if source.count > _MAX_MICRO_QUESTIONS:
        raise UserError(
            f"{_key(source, 'count')}={source.count}: the maximum is {_MAX_MICRO_QUESTIONS:,}."
        )
    from lr_exp.micro.world import generate_problems, iter_problems  # only for this format

    generate = iter_problems if streaming else generate_problems
    try:
        for problem in generate(source.configs[0], source.count, source.seed, source.split):
            yield {
                "question": problem.question,
                "answer": problem.answer,
                "solution": problem.solution,
            }
    except ValueError as error:
        raise UserError(f"{_where(source)}: {error}") from error


def _parquet_files(source: SourceSettings) -> list[Path]:
    return parquet_files(Path(_required_path(source)).expanduser(), _key(source, "path"))


def _parquet_questions(source: SourceSettings) -> Iterator[Question]:
    number = 0
    for number, (where, row) in enumerate(parquet_rows(_parquet_files(source)), 1):
        try:
            yield read_jsonl(row, f"{source.name}/{number}")
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if not number:
        raise UserError(
            f"{source.path}: no questions in it. Write one row with `question` for each question."
        )


def _jsonl_file(source: SourceSettings) -> Path:
    path = Path(_required_path(source)).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set {_key(source, 'path')} to a JSON Lines file.")
    return path


def _jsonl_lines(source: SourceSettings) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, with their numbers."""
    path = _jsonl_file(source)
    is_empty = True
    # Read as bytes: in text mode lines also end at U+2028, which JSON strings may contain.
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: not UTF-8. Save the file as UTF-8."
                ) from error
            if line.strip():
                is_empty = False
                yield number, line
    if is_empty:
        raise UserError(
            f"{path}: no questions in it. Write one JSON object with `question` on each line."
        )


def _jsonl_question(number: int, line: str, source: SourceSettings) -> Question:
    try:
        row = json.loads(line, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, DecimalException) as error:
        # Without the error's position, which counts from the start of the line.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(
            f"{source.path}, line {number}: not JSON ({reason}). Write one object a line."
        ) from error
    if not isinstance(row, dict):
        raise UserError(
            f"{source.path}, line {number}: not an object. "
            'Write {"question": "..."}, with an optional "answer" and "solution".'
        )
    try:
        return read_jsonl(row, f"{source.name}/{number}")
    except UserError as error:
        raise UserError(f"{source.path}, line {number}: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

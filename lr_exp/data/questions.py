"""Questions from hub data sets, their local mirrors, JSON Lines, Parquet and the micro world.

Knows where rows come from and which are taken; knows neither their columns, nor models or prompts.
"""

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
from lr_exp.data.stored_questions import Fingerprint, StoredQuestions, as_asked
from lr_exp.errors import UserError, did_you_mean

_MOST_MICRO = 100_000  # questions; a family with fewer different ones would be searched for hours


def load_questions(source: SourceSettings, *, hub_root: str | None) -> list[Question]:
    """All questions of `source`, in its order; see `stream_questions`."""
    return list(_questions(source, hub_root, streaming=False))


def stream_questions(source: SourceSettings, *, hub_root: str | None) -> Generator[Question]:
    """The questions of `source` in its order, of which a few are in memory at a time.

    hub_root: a folder that holds data sets under their hub ids; None reads from the hub itself.
    Ids are `<name>/<split>/<index>`, the index counting the kept rows from 0 so that a source and
    a copy of it without the dropped rows agree; for JSON Lines `<name>/<line number>`, for Parquet
    `<name>/<row number>` over all files, both from 1.

    Raises UserError where the source cannot be read, with the setting to change.
    """
    return _questions(source, hub_root, streaming=True)


def local_files(source: SourceSettings, *, hub_root: str | None) -> list[Path] | None:
    """The files that the questions are read from; None where they come from the hub.

    Raises UserError where there is no such file or folder.
    """
    if source.format == "jsonl":
        return [_jsonl_file(source)]
    if source.format == "parquet":
        return _parquet_files(source)
    path = Path(_hub_path(source, hub_root))
    if not path.is_dir():
        return [path] if path.is_file() else None
    files = (one.relative_to(path) for one in path.rglob("*") if one.is_file())
    # What git and the hub's client keep beside the data is not the data.
    return [path / one for one in sorted(files) if not any(p.startswith(".") for p in one.parts)]


def _questions(
    source: SourceSettings, hub_root: str | None, *, streaming: bool
) -> Generator[Question]:
    if source.format == "lr_samples":
        raise UserError(
            f"{_where(source)}: format lr_samples holds contrastive samples, not questions: use it "
            "with stages=[distill] or stages=[distill,evaluate]."
        )
    if source.format not in FORMATS:
        raise UserError(
            f"{_where(source)}: format {source.format!r} is not known."
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
        # A cell is not what the format's rows have: no list, an index beyond the options.
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            raise UserError(
                f"{where}: format {source.format} cannot read this row "
                f"({type(error).__name__}: {error}). Set `path` and `format` to a pair that fits."
            ) from error
        if question is not None:
            count += 1
            yield question
    if not count:
        raise UserError(
            f"{_where(source)}: {source.path or source.name} split {source.split} has no question "
            f"that format {source.format} keeps."
        )


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


def prompts_fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) of what a model is asked, in order; references and solutions do not show."""
    if isinstance(questions, StoredQuestions):
        return questions.prompts_fingerprint
    return fingerprint([as_asked(question) for question in questions])


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 (hex) over ids and contents, in order: the same for a hub data set and its mirror."""
    if isinstance(questions, StoredQuestions):
        return questions.fingerprint
    found = Fingerprint()
    for question in questions:
        found.add(question)
    return found.hex()


# Where rows come from.


def _where(source: SourceSettings) -> str:
    return "data" if isinstance(source, DataSettings) else f"benchmark {source.name}"


def _required_path(source: SourceSettings) -> str:
    if not source.path or source.path == "???":
        raise UserError(f"{_where(source)}: `path` is missing: set {_key(source, 'path')}.")
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
            f"{_where(source)}: {folder} is not a folder: hub_root={hub_root} must hold the "
            f"data set under its hub id {path}. Copy it there or leave hub_root unset."
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
    import datasets  # takes a second: not at start-up

    if source.split is None:
        raise UserError(f"{_where(source)}: no split is given: set {_key(source, 'split')}.")
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
        yield from rows  # a stream is opened and read here
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


def _micro_rows(source: SourceSettings, *, streaming: bool) -> Iterator[Mapping[str, Any]]:
    if len(source.configs) != 1 or source.split is None or source.count is None:
        raise UserError(
            f"{_where(source)}: format micro needs one family in {_key(source, 'configs')}, and "
            f"{_key(source, 'split')} and {_key(source, 'count')}."
        )
    if source.count > _MOST_MICRO:
        raise UserError(
            f"{_key(source, 'count')}={source.count}: the generator makes {_MOST_MICRO:,} "
            "questions at most; ask for fewer."
        )
    # A generator that only this format needs.
    if streaming:
        from lr_exp.micro.world import drawn as draw
    else:
        from lr_exp.micro.world import problems as draw
    try:
        for problem in draw(source.configs[0], source.count, source.seed, source.split):
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
            f"{source.path}: no questions in it. Write one row with `question` for each."
        )


def _jsonl_file(source: SourceSettings) -> Path:
    path = Path(_required_path(source)).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set {_key(source, 'path')} to a JSON Lines file.")
    return path


def _jsonl_lines(source: SourceSettings) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number."""
    path = _jsonl_file(source)
    found = False
    # In bytes: as text, lines would also end at U+2028 and others, which JSON texts may hold.
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: not UTF-8. Save the file as UTF-8."
                ) from error
            if line.strip():
                found = True
                yield number, line
    if not found:
        raise UserError(
            f"{path}: no questions in it. Write one JSON object with `question` a line."
        )


def _jsonl_question(number: int, line: str, source: SourceSettings) -> Question:
    try:
        row = json.loads(line, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, DecimalException) as error:
        # Its own place would be one within the line.
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

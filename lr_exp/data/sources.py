"""Reads questions from hub data sets, their mirrors, JSON Lines, Parquet and generators."""

import itertools
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lr_exp.config.settings import REQUIRED, DataSettings, SourceSettings
from lr_exp.data.formats import FORMATS, Question, columns_reader, read_jsonl
from lr_exp.data.json_lines import read_json_lines
from lr_exp.data.random_calculation import random_calculations
from lr_exp.errors import UserError, did_you_mean, first_line

_FILE_FORMATS = ("jsonl", "parquet")
GENERATED = ("micro", "random_calculation")
_MAX_GENERATED = 100_000  # questions; searching a small family for more would take hours


def iterate_questions(source: SourceSettings, *, hub_root: str | None) -> Iterator[Question]:
    """Yields the questions of `source` in its order; data sets of the hub from `hub_root`, if set.

    Their ids are `<name>/<split>/<index>`, where the index counts the kept rows from 0, so that a
    copy of the source without the dropped rows has the same ids; `<name>/<line number>` for JSON
    Lines and `<name>/<row number>` over all files for Parquet, both from 1.

    Raises UserError: the source cannot be read; the message names the setting to change.
    """
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
    if source.format in _FILE_FORMATS:
        return _file_questions(source)
    if source.format in GENERATED:
        return _row_questions(source, _generated_rows(source))
    return _row_questions(source, _hub_rows(source, hub_root))


def _row_questions(source: SourceSettings, rows: Iterator[Any]) -> Iterator[Question]:
    count, read = 0, FORMATS[source.format]
    if source.format == "hub":
        what = " to a column of the data set, or to a text with columns in braces"
        question = _required(source, "question", what)
        read = columns_reader(question, source.reference, source.solution)
    for row in rows:
        where = f"{source.name}/{source.split}/{count}"
        try:
            question = read(row, where)
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
            f"{source.path or source.name}, split {source.split}. Set `path`, `split` and `format` "
            "so that they match."
        )


def _file_questions(source: SourceSettings) -> Iterator[Question]:
    number, path = 0, Path(_required(source, "path")).expanduser()
    if source.format == "jsonl":
        # Decimals keep an answer's digits as written.
        rows = read_json_lines(path, parse_float=Decimal)
    else:
        rows = _parquet_rows(path, _key(source, "path"))
    for number, where, row in rows:
        try:
            yield read_jsonl(row, f"{source.name}/{number}")
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if not number:
        raise UserError(
            f"{source.path}: no questions in it. Write one JSON object (JSON Lines) or row "
            "(Parquet) with `question` for each question."
        )


def _parquet_rows(path: Path, key: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yields the number (over all files, in the order of their paths) and place of each row."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    numbers = itertools.count(1)
    for file in files:
        try:
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"{file}: cannot be read as Parquet ({first_line(error)}). Set {key} to a Parquet "
                "file or a folder of them."
            ) from error
        for row, values in enumerate(table.to_pylist(), 1):
            yield next(numbers), f"{file}, row {row}", values


def _generated_rows(source: SourceSettings) -> Iterator[Mapping[str, Any]]:
    is_micro = source.format == "micro"
    if (is_micro and not source.configs) or source.split is None or source.count is None:
        family = f"{_key(source, 'configs')} (families), " if is_micro else ""
        raise UserError(
            f"{_where(source)}: format {source.format} needs {family}{_key(source, 'split')} and "
            f"{_key(source, 'count')}."
        )
    count = source.count
    if count > _MAX_GENERATED:
        raise UserError(f"{_key(source, 'count')}={count}: the maximum is {_MAX_GENERATED:,}.")
    try:
        if is_micro:
            from lr_exp.micro.world import iter_problems  # only for this format

            for family in source.configs:
                yield from map(vars, iter_problems(family, count, source.seed, source.split))
        else:
            yield from random_calculations(source)
    except ValueError as error:
        raise UserError(f"{_where(source)}: {error}") from error


def _hub_rows(source: SourceSettings, hub_root: str | None) -> Iterator[Any]:
    import datasets  # slow: takes a second

    path = _hub_path(source, hub_root)
    if source.split is None:
        raise UserError(f"{_where(source)}: `split` is missing. Set {_key(source, 'split')}.")
    is_local = Path(path).exists()
    if is_local:
        datasets.disable_progress_bars()
    for config in source.configs or [None]:
        try:
            yield from datasets.load_dataset(
                path, config, split=source.split, revision=None if is_local else source.revision
            )
        # Errors of httpx, fsspec, pyarrow and the hub client have no common base class.
        except Exception as error:
            keys = [_key(source, name) for name in ("path", "configs", "split")]
            raise UserError(
                f"{_where(source)}: split {source.split} of {path}"
                f"{f' ({config})' if config else ''} cannot be read "
                f"({first_line(error)}). Check {', '.join(keys)} and the connection to "
                "the hub, or set hub_root to a folder that holds the data set."
            ) from error


def _hub_path(source: SourceSettings, hub_root: str | None) -> str:
    path = _required(source, "path")
    if hub_root is None:
        return path
    folder = Path(hub_root).expanduser() / path
    if not folder.is_dir():
        raise UserError(
            f"{_where(source)}: {folder} is not a folder. hub_root={hub_root} must hold the data "
            f"set under its hub id {path}. Copy it there or leave hub_root unset."
        )
    return str(folder)


def _required(source: SourceSettings, field: str, what: str = "") -> str:
    """A setting that has no default; `what` ends the message that it is missing."""
    if (value := getattr(source, field)) in (None, "", REQUIRED):
        raise UserError(f"{_where(source)}: `{field}` is missing. Set {_key(source, field)}{what}.")
    return value


def _where(source: SourceSettings) -> str:
    return "data" if isinstance(source, DataSettings) else f"benchmark {source.name}"


def _key(source: SourceSettings, field: str) -> str:
    return f"data.{field}" if isinstance(source, DataSettings) else f"`{field}` in its YAML"

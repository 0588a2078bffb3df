"""Benchmarks by name: settings from `conf/benchmark/NAME.yaml`, and few-shot examples."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_exp.config.options import ABOUT, option_files, read_option
from lr_exp.config.settings import BenchmarkSettings
from lr_exp.data.questions import Question, load_questions, select_questions
from lr_exp.errors import UserError, did_you_mean, first_line


def load_benchmark(name: str, conf_dirs: Sequence[Path]) -> BenchmarkSettings:
    """The settings in `benchmark/NAME.yaml` of one of the folders.

    Raises:
        UserError: the name or a key is unknown, or a value has the wrong type.
    """
    files = option_files(conf_dirs, "benchmark")
    if name not in files:
        raise UserError(f"benchmarks: unknown benchmark {name!r}.{did_you_mean(name, files)}")
    path = files[name]
    schema = OmegaConf.structured(BenchmarkSettings)
    values = read_option(path)
    del values[ABOUT]
    known = set(schema.keys())  # `key in schema` is False where the default is "???"
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}.{did_you_mean(key, map(str, known))}")
    try:
        return cast(BenchmarkSettings, OmegaConf.to_object(OmegaConf.merge(schema, values)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {first_line(error)}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_shots(benchmark: BenchmarkSettings, count: int, *, hub_root: str | None) -> list[Question]:
    """`count` few-shot examples of a benchmark, the same in every run; 0 reads nothing.

    They are sampled from `shots_split` with seed 0: the first rows of MMLU all have one subject.

    Raises:
        UserError: the benchmark has no split for examples, or too few rows in it.
    """
    if count == 0:
        return []
    key = f"evaluator.shots.{benchmark.name}={count}"
    if benchmark.shots_split is None:
        raise UserError(
            f"{key}: this benchmark has no split for few-shot examples (shots_split). Set it to 0."
        )
    source = replace(benchmark, split=benchmark.shots_split)
    shots = select_questions(load_questions(source, hub_root=hub_root), count, seed=0)
    if len(shots) < count:
        raise UserError(
            f"{key}: split {benchmark.shots_split} has only {len(shots)} questions. Set it to "
            f"{len(shots)} or fewer."
        )
    return shots

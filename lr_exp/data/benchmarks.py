"""Benchmarks by name: the YAML files of `conf/benchmark` as settings, and their worked examples.

Knows folders and settings; knows neither Hydra nor models.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_exp.config.options import option_files
from lr_exp.config.settings import BenchmarkSettings, SourceSettings
from lr_exp.data.questions import Question, load_questions, select_questions
from lr_exp.errors import UserError, did_you_mean


def load_benchmark(name: str, conf_dirs: Sequence[Path]) -> BenchmarkSettings:
    """The settings in `benchmark/NAME.yaml` of one of the folders.

    Raises UserError for an unknown name, an unknown key and a value of the wrong type.
    """
    files = option_files(conf_dirs, "benchmark")
    if name not in files:
        raise UserError(f"benchmarks: {name!r} is not known.{did_you_mean(name, files)}")
    path = files[name]
    schema = OmegaConf.structured(BenchmarkSettings)
    given = OmegaConf.load(path)
    known = set(schema.keys())  # `in` would miss a key whose default is "???"
    for key in given:
        if key not in known:
            raise UserError(
                f"{path}: key {key!r} is not known.{did_you_mean(str(key), map(str, known))}"
            )
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(schema, given))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: {reason}") from error
    if not isinstance(settings, BenchmarkSettings):
        raise UserError(f"{path}: a benchmark is a mapping of keys to values.")
    return settings


def load_shots(benchmark: BenchmarkSettings, count: int, *, hub_root: str | None) -> list[Question]:
    """`count` worked examples of a benchmark, the same ones in every run; 0 reads nothing.

    Drawn with seed 0 from `shots_split`, because the first rows of MMLU are all of one subject.

    Raises UserError where the benchmark has no split for them, or too few rows.
    """
    if count == 0:
        return []
    key = f"evaluator.shots.{benchmark.name}={count}"
    if benchmark.shots_split is None:
        raise UserError(
            f"{key}: this benchmark has no questions to spare for examples; set it to 0."
        )
    source = SourceSettings(
        name=benchmark.name,
        format=benchmark.format,
        path=benchmark.path,
        configs=list(benchmark.configs),
        split=benchmark.shots_split,
        revision=benchmark.revision,
        count=benchmark.count,
        seed=benchmark.seed,
    )
    shots = select_questions(load_questions(source, hub_root=hub_root), count, seed=0)
    if len(shots) < count:
        raise UserError(f"{key}: split {benchmark.shots_split} has {len(shots)} questions only.")
    return shots

"""Benchmarks by name: settings from `conf/benchmark/NAME.yaml`, and few-shot examples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lr_exp.config.options import load_option, option_files
from lr_exp.config.settings import LM_EVAL, BenchmarkSettings
from lr_exp.data.questions import Question, load_questions, select_examples
from lr_exp.errors import UserError, did_you_mean


def load_benchmark(name: str, conf_dirs: Sequence[Path]) -> BenchmarkSettings:
    """The settings in `benchmark/NAME.yaml` of a folder; raises UserError if they are not valid.

    Tasks of lm-evaluation-harness have no file; their names are checked with their data.
    """
    if name.startswith(LM_EVAL):
        return BenchmarkSettings(name=name, format="lm_eval")
    files = option_files(conf_dirs, "benchmark")
    if name not in files:
        raise UserError(f"benchmarks: unknown benchmark {name!r}.{did_you_mean(name, files)}")
    return load_option(BenchmarkSettings, files[name])


def load_shots(
    benchmark: BenchmarkSettings, count: int, asked: Iterable[Question], *, hub_root: str | None
) -> list[Question]:
    """`count` few-shot examples of a benchmark, the same in every run; 0 reads nothing.

    They are drawn from `shots_split` with seed 0: the first rows of MMLU all have one subject. None
    of the questions that are `asked` is among them.

    Raises UserError if the benchmark has no split for examples, or too few rows in it.
    """
    if count == 0:
        return []
    where = f"{count} few-shot examples of {benchmark.name}"
    if benchmark.shots_split is None:
        raise UserError(
            f"{where}: this benchmark has no split for them (shots_split). Remove the few-shot "
            "prompts from evaluator.prompts, or the benchmark."
        )
    source = replace(benchmark, split=benchmark.shots_split)
    shots = select_examples(load_questions(source, hub_root=hub_root), count, asked)
    if len(shots) < count:
        raise UserError(
            f"{where}: split {benchmark.shots_split} has only {len(shots)} that are not asked "
            "themselves. Lower evaluator.num_fewshot, remove the few-shot prompts from "
            "evaluator.prompts, or correct shots_split."
        )
    return shots

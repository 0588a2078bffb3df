"""The text of `python -m lr_exp --help` and `--version`."""

import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lr_exp import __version__
from lr_exp.config.options import option_files

_COLUMNS = 80
_VALUE_COLUMNS = 40  # of a setting with its value

_OPENING = """\
LightReasoner: a weaker amateur model shows a stronger expert which parts of its own
reasoning are worth reinforcing, and the expert is tuned on those.

usage: python -m lr_exp [OPTION=VALUE ...]       one run
       python -m lr_exp -m [OPTION=V1,V2 ...]    a run for each combination
       python -m lr_exp --from-run FOLDER [...]  a run with an earlier run's options

  python -m lr_exp experiment=demo                         the method in a minute, offline
  python -m lr_exp expert=qwen_math_7b beta=0.4            the paper's run with its larger expert
  python -m lr_exp -m +sweep=micro_ablation                a table of the paper in miniature"""

_GROUPS = {
    "experiment": "a ready run",
    "expert": "the model that is tuned",
    "amateur": "the weaker model to compare it with",
    "method": "which token positions are trained on, and the target there",
    "data": "the questions to sample answers to",
    "benchmark": "what to evaluate on, as benchmarks=[NAME,NAME]",
    "prompt": "how to ask, as sampler.prompt=NAME evaluator.prompts=[NAME,NAME]",
    "sweep": "a table of runs, as -m +sweep=NAME",
}

_SETTINGS = {
    "alpha": "plausible tokens have at least this share of the top probability",
    "beta": "nats: positions with a higher divergence are kept",
    "seed": "for questions, training order and sampling",
    "stages": "which stages to run",
    "device": "auto, cpu, cuda or cuda:N",
    "dtype": "auto, float32, bfloat16 or float16",
    "hub_root": "a local mirror of hub data sets, by id",
    "store": "finished stages, shared by all runs",
    "expert.path": "any model: hub id, folder or GGUF file (amateur.path too)",
    "data.path": "your file of questions, with data=jsonl or parquet",
    "data.max_questions": "how many to draw",
    "sampler.max_new_tokens": "per sampled answer",
    "sampler.batch_size": "questions per batch",
    "distiller.steps": "optimizer steps",
    "distiller.batch_size": "kept positions per optimizer step",
    "distiller.learning_rate": "peak learning rate",
    "evaluator.max_examples": "the first N of each benchmark; null: all",
    "evaluator.max_new_tokens": "per graded answer",
    "evaluator.gap": "greedy or sampled: also measures the amateur",
    "wandb.mode": "auto, online, offline or disabled",
}

_CLOSING = """\
other programs (each with --help):
  python -m lr_exp.list [KIND]             lists experts, methods, sweeps ... and their costs
  python -m lr_exp.report FOLDER           tables and figures of all runs in a folder
  python -m lr_exp.audit OVERRIDE ...      are a run's labels followed by right answers more often?
  python -m lr_exp.store list              lists, verifies and prunes finished stages
  python -m lr_exp.dashboard [DIR]         a W&B workspace and report of your runs
  python -m lr_exp.evaluator.grade FILE    grades saved answers again, without a model

results: summary.json, report.html, metrics.jsonl, adapter/ and answers/ in the run's folder,
  runs/DATE/TIME/ (hydra.run.dir=FOLDER); the same command resumes a run that was stopped.
your own experts, benchmarks ...: --config-dir DIR (docs/extending.md).
more: --cfg job (every setting with its value), --version, --hydra-help;
  lr_exp/config/settings.py documents every setting."""


def help_page(*, _root_: DictConfig) -> str:
    """The whole page; a resolver for `conf/config.yaml`, which gets the composed settings."""
    sources = _root_.hydra.runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    lines = [_OPENING, "", "choose (python -m lr_exp.list describes the options):"]
    for group, what in _GROUPS.items():
        lines.append(f"  {group:<12}{what}")
        names = " ".join(option_files(folders, group))
        indent = " " * 14
        lines += textwrap.wrap(names, _COLUMNS, initial_indent=indent, subsequent_indent=indent)
    lines += ["", "set (shown with the values of this command):"]
    for key, what in _SETTINGS.items():
        start = f"  {key}={_value(_root_, key)}"
        if len(start) > _VALUE_COLUMNS - 2:  # a long value, of a path for example
            lines.append(start)
            start = ""
        start, after = start.ljust(_VALUE_COLUMNS), " " * _VALUE_COLUMNS
        lines += textwrap.wrap(what, _COLUMNS, initial_indent=start, subsequent_indent=after)
    page = "\n".join([*lines, "", _CLOSING])
    return page.replace("$", "$$")  # Hydra substitutes $NAMES


def version_line() -> str:
    """The versions of this package and of those that results depend on, without importing them."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"lr_exp {__version__}, {packages}, Python {sys.version.split()[0]}"


def _value(config: DictConfig, key: str) -> str:
    """A setting as it would be written on the command line."""
    value = OmegaConf.select(config, key)
    if value is None:
        return "null"
    if OmegaConf.is_list(value):
        return f"[{','.join(map(str, value))}]"
    return str(value)

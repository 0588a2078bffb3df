"""The page that `python -m lr_exp --help` shows, and the line of `--version`.

Knows the program's words; values come from the composed settings, options from the folders.
"""

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from omegaconf import DictConfig, OmegaConf

from lr_exp import __version__

_NARROWEST, _WIDEST = 72, 100  # columns of the page
_VALUES = 40  # columns of the settings and their values

_OPENING = """\
LightReasoner: a weaker amateur model shows a stronger expert which steps of its own
reasoning are worth reinforcing, and the expert is tuned on those.

usage: python -m lr_exp [OPTION=VALUE ...]       one run
       python -m lr_exp -m [OPTION=V1,V2 ...]    a run for each combination

  python -m lr_exp experiment=demo                         the method in a minute, no network
  python -m lr_exp expert=qwen_math_7b beta=0.4            the paper's run of its larger expert
  python -m lr_exp -m +sweep=micro_ablation                a table of the paper in miniature"""

# Group to what it chooses.
_GROUPS = {
    "experiment": "a ready run",
    "expert": "the model that is taught",
    "amateur": "the weaker model that it is compared with",
    "method": "which steps are learned, and towards what",
    "data": "the questions to learn from",
    "benchmark": "what is measured, as benchmarks=[NAME,NAME]",
    "sweep": "a table of runs, as -m +sweep=NAME",
}

_SETTINGS = {
    "alpha": "tokens count from this share of the expert's top one",
    "beta": "nats: steps above this divergence are kept",
    "seed": "of questions, training order and sampling",
    "stages": "what to do",
    "device": "auto, cpu, cuda or cuda:N",
    "dtype": "auto, float32, bfloat16 or float16",
    "hub_root": "a folder that mirrors hub data sets by their ids",
    "store": "finished work, shared by all runs",
    "expert.path": "any model: hub id, folder or GGUF file (amateur.path too)",
    "data.path": "with data=jsonl or parquet: your file of questions",
    "data.max_questions": "how many are drawn",
    "sampler.max_new_tokens": "of each answer that is learned from",
    "sampler.batch_size": "questions at once",
    "distiller.steps": "optimizer steps",
    "distiller.batch_size": "kept steps in each",
    "distiller.learning_rate": "its highest value",
    "evaluator.max_examples": "the first N of each benchmark; null is all",
    "evaluator.max_new_tokens": "of each answer that is graded",
    "evaluator.gap": "greedy or sampled: measures the amateur, too",
    "wandb.mode": "auto, online, offline or disabled",
    "hydra.run.dir": "the run's folder",
}

_CLOSING = """\
other programs (each with --help):
  python -m lr_exp.list [KIND]             experts, methods, sweeps ... and what they cost
  python -m lr_exp.report FOLDER           tables and figures of the runs below a folder
  python -m lr_exp.store list              finished work: list, verify, prune
  python -m lr_exp.dashboard [DIR]         a W&B workspace and report of the runs there
  python -m lr_exp.evaluator.grade FILE    answers graded again, without a model

results: summary.json, report.html, metrics.jsonl, adapter/ and answers/ in the run's folder,
  runs/DATE/TIME/; the same command goes on where it was stopped.
more: --cfg job (every setting with its value), --version, --hydra-help;
  lr_exp/settings.py says what each setting means."""


def help_page(config: DictConfig, options: Mapping[str, Sequence[str]]) -> str:
    """The whole page.

    Args:
        config: the composed settings, `hydra` included: their values are shown.
        options: group to the names there are.
    """
    width = min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)
    lines = [_OPENING, "", "choose (python -m lr_exp.list tells of each):"]
    for group, what in _GROUPS.items():
        lines.append(f"  {group:<12}{what}")
        names = " ".join(options[group])
        indent = " " * 14
        lines += textwrap.wrap(names, width, initial_indent=indent, subsequent_indent=indent)
    lines += ["", "set (here with the values of this command):"]
    shown = {key: _value(config, key) for key in _SETTINGS}
    for key, what in _SETTINGS.items():
        start = f"  {key}={shown[key]}"
        if len(start) > _VALUES - 2:  # a long value, of a path for example
            lines.append(start)
            start = ""
        after = " " * _VALUES
        lines += textwrap.wrap(
            what, width, initial_indent=f"{start:<{_VALUES}}", subsequent_indent=after
        )
    return "\n".join([*lines, "", _CLOSING])


def version_line() -> str:
    """Our version and those that results depend on, of what is installed; nothing is imported."""
    told = [f"lr_exp {__version__}"]
    for name in ("torch", "transformers", "peft"):
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"no {name}")
    return ", ".join([*told, f"Python {sys.version.split()[0]}"])


def _value(config: DictConfig, key: str) -> str:
    """A setting as it would be written on the command line."""
    if key == "hydra.run.dir":
        return "FOLDER"  # the value has the time in it
    value = OmegaConf.select(config, key)
    if value is None:
        return "null"
    if OmegaConf.is_list(value):
        return f"[{','.join(map(str, value))}]"
    return str(value)

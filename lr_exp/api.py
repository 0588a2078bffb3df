"""The package for scripts and notebooks: settings composed, questions read, runs started.

Does what `__main__` does for the command line, with the same checks and messages, and raises where
that prints. Knows Hydra and the run; holds no stage.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lr_exp import distributed
from lr_exp.config.command_line import check_arguments, check_settings, guard_environment
from lr_exp.config.composition import (
    check_overrides,
    conf_dir,
    one_line_message,
    register,
    to_settings,
)
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError, redact
from lr_exp.models.devices import choose_gpu

if TYPE_CHECKING:
    from lr_exp.data.questions import Question
    from lr_exp.report.summary import Summary


def compose(*overrides: str) -> Settings:
    """The settings that `python -m lr_exp OVERRIDES` would run with.

    `compose("experiment=demo", "beta=0.2")` is the demo with another threshold; `compose()` is the
    paper's run. The settings of one run: for a sweep, call it once for each value.

    Raises:
        UserError: a key or an option does not exist, a value is missing or out of range; the
            message is the one that the program prints.
    """
    register()
    guard_environment()
    check_arguments(overrides)
    check_overrides(overrides)
    _check_is_one_run(overrides)
    try:
        with (
            _outside_other_programs(),
            hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())),
        ):
            config = hydra.compose("config", list(overrides))
        settings = to_settings(config, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(redact(one_line_message(error))) from error
    check_settings(asdict(settings))
    return settings


def run_experiment(settings: Settings, folder: str | Path) -> "Summary":
    """Runs the stages that the settings ask for; what is in their store already is not made again.

    Args:
        settings: see `compose`. W&B is used as the command line would (`wandb.mode=disabled`).
        folder: gets what a run of the program leaves; results that lie there are put aside.

    Returns:
        The content of `summary.json`: `summary.evaluate.tuned["gsm8k"].accuracy`, in [0, 1];
        `summary.to_dict()` has it as plain dictionaries. Divergences are in nats.

    Raises:
        UserError: something in the settings or the inputs cannot work.
    """
    from lr_exp.pipeline.run import run  # imports torch

    if distributed.is_distributed():  # a script that torchrun started
        choose_gpu(settings)
    with warnings.catch_warnings():  # as in the program
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        return run(settings, Path(folder), conf_dir())


def read_questions(settings: Settings) -> Sequence["Question"]:
    """The questions that a run with these settings learns from: `id`, `text`, perhaps `answer`.

    With `data.streaming` they are read from the store as they are asked for, a shard at a time.
    """
    from lr_exp.pipeline.inputs import Inputs

    return Inputs(settings, conf_dir()).questions


def _check_is_one_run(overrides: Sequence[str]) -> None:
    for word in overrides:
        override = OverridesParser.create().parse_override(word)
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise UserError(
                f"{word}: Hydra's own settings do nothing here; run_experiment takes the folder."
            )
        if override.is_sweep_override():
            raise UserError(f"{word} is several runs: compose the settings of each.")
        if key == "sweep":
            raise UserError(f"{word} is many runs: write python -m lr_exp -m {word}.")


@contextlib.contextmanager
def _outside_other_programs() -> Iterator[None]:
    """A caller may itself be a Hydra program, of which a process has one at a time."""
    held = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = held  # composing has put another instance in its place

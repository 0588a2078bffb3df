"""The API for scripts and notebooks: compose settings, read questions, run experiments.

The checks and messages are those of the command line; errors are raised instead of printed.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lr_exp import distributed
from lr_exp.config import composition
from lr_exp.config.options import option_folders
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError, redact
from lr_exp.models.devices import choose_gpu

if TYPE_CHECKING:
    from lr_exp.data.questions import Question
    from lr_exp.report.read.summary import Summary


def compose(*overrides: str, config_dir: str | Path | None = None) -> Settings:
    """Composes the settings of `python -m lr_exp OVERRIDES`, for one run.

    `compose()` is the paper's run, `compose("experiment=demo", "beta=0.2")` the demo with another
    threshold. For a sweep, call it once for each value.

    Args:
        overrides: as on the command line: "beta=0.2".
        config_dir: a folder of your own options, as `--config-dir`.

    Raises UserError: a key or an option does not exist, or a value is missing or out of range.
    """
    composition.register()
    own = [] if config_dir is None else [Path(config_dir).expanduser()]
    folders = option_folders(own)
    composition.check_overrides(overrides, folders)
    _check_is_one_run(overrides)
    try:
        search = composition.search_path(folders[1:])
        with _initialized_hydra(folders[0]):
            config = hydra.compose("config", [*overrides, *search])
        return composition.to_settings(config, overrides, folders[1:])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(redact(composition.one_line_message(error))) from error


def run_experiment(settings: Settings, folder: str | Path) -> "Summary":
    """Runs the stages in `settings.stages`; stages whose results are in the store are not repeated.

    Args:
        settings: see `compose`. `wandb.mode=disabled` disables W&B.
        folder: for the same files as the program writes. Of an earlier run in it, `summary.json`
            and `metrics.jsonl` are renamed to `previous.*`; its page, `trajectories.json.gz`,
            `failed.json` and links to artifacts are deleted.

    Returns:
        The content of `summary.json`: `summary.evaluate.tuned["gsm8k"].accuracy`, in [0, 1];
        `summary.to_dict()` has it as plain dictionaries. Divergences are in nats.

    Raises:
        UserError: the settings or the inputs are invalid, or another run is writing to the folder.
    """
    from lr_exp.pipeline.outcome import only_writer
    from lr_exp.pipeline.run import run  # imports torch

    if distributed.is_distributed():  # a script that torchrun started
        choose_gpu(settings)
    with warnings.catch_warnings(), only_writer(Path(folder)):  # as in the program
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        return run(settings, Path(folder), option_folders(settings.config_dirs))


def read_questions(settings: Settings) -> Sequence["Question"]:
    """The questions that a run with these settings learns from: `id`, `text`, optional `answer`."""
    from lr_exp.pipeline.inputs import Inputs

    return Inputs(settings, option_folders(settings.config_dirs)).questions


def _check_is_one_run(overrides: Sequence[str]) -> None:
    for word in overrides:
        override = composition.parse_override(word)
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise UserError(
                f"{word}: Hydra's own settings have no effect here; pass the run's folder to "
                "run_experiment, and a folder of options to compose as config_dir."
            )
        if override.is_sweep_override():
            raise UserError(f"{word} is several runs: compose the settings of each.")
        if key == "sweep":
            raise UserError(f"{word} starts several runs: run python -m lr_exp -m {word}.")


@contextlib.contextmanager
def _initialized_hydra(folder: Path) -> Iterator[None]:
    """Replaces Hydra's global state inside the block, so that a Hydra program can compose, too."""
    instance = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            yield
    finally:
        GlobalHydra.instance().hydra = instance  # composing has replaced it

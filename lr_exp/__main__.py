"""The program: `python -m lr_exp [overrides]`, multirun with `-m`. Imports no torch by itself."""

import logging
import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lr_exp.configuration import check_overrides, conf_dir, register, to_settings
from lr_exp.errors import UserError

_failures: list[str] = []  # of a multirun's cells: the others go on


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _job(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    try:
        settings = to_settings(config, list(hydra_config.overrides.task))
        from lr_exp.run import run

        run(settings, Path(hydra_config.runtime.output_dir), conf_dir())
    except UserError as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        _failures.append(str(error))


def main() -> int:
    """Runs the program; returns the exit status: 0, or 1 after an error that was printed."""
    register()
    _quiet_start()
    try:
        check_overrides([word for word in sys.argv[1:] if _is_override(word)])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _job()
    return 1 if _failures else 0


def _is_override(word: str) -> bool:
    return not word.startswith("-") and "=" in word


def _quiet_start() -> None:
    """One format for our lines; libraries speak only of what goes wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("lr_exp").setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


if __name__ == "__main__":
    sys.exit(main())

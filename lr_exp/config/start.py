"""Prepares a process for runs: guards against secrets in output, quiet libraries."""

import logging
import os
import warnings

from lr_exp import distributed, progress
from lr_exp.config.command_line import guard_environment
from lr_exp.errors import guard_logging


def prepare() -> None:
    """Prepares this process; called once in every process that runs a cell."""
    guard_environment()
    guard_logging()
    progress.choose(None if distributed.is_rank0() else progress.NONE)
    handler = logging.StreamHandler()
    if not distributed.is_rank0():
        handler.setLevel(logging.CRITICAL)  # rank 0 logs for all
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    logging.captureWarnings(True)  # written above a progress bar, not into it
    logging.getLogger("lr_exp").setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # The files in conf/hydra/launcher have the names of the plugins' schemas on purpose.
    warnings.filterwarnings("ignore", r"(?s).*hydra/launcher/.* validated against ConfigStore")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not progress.on_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries
    # Threads that spin at barriers slow a shared machine down tenfold; waiting costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Hydra then raises errors instead of printing them, possibly with secrets, and exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"

"""A process made ready for runs: the schema registered, the guards up, libraries quiet.

Knows what has to be so before Hydra composes anything; knows nothing of runs.
"""

import logging
import os
import warnings

from lr_exp import distributed, progress
from lr_exp.config.command_line import guard_environment
from lr_exp.config.composition import register
from lr_exp.errors import guard_logging


def prepare() -> None:
    """Makes this process ready; each other one that a sweep's cell runs in is made so, too."""
    register()
    guard_environment()
    _quiet_start()


def _quiet_start() -> None:
    """One format for our lines, no secret in them; libraries speak only of what goes wrong."""
    guard_logging()
    progress.choose(None if distributed.is_rank0() else progress.NONE)
    handler = progress.LogHandler()
    if not distributed.is_rank0():
        handler.setLevel(logging.CRITICAL)  # the first rank speaks for all
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    logging.captureWarnings(True)  # Python's, which would be written into a progress bar
    logging.getLogger("lr_exp").setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # conf/hydra/launcher's files have the names of the plug-ins' schemas, which is what we want.
    warnings.filterwarnings("ignore", r"(?s).*hydra/launcher/.* validated against ConfigStore")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not progress.on_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, of downloads too
    # Threads that spin at barriers slow a shared machine down tenfold; waiting costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Hydra then raises what it would print over several lines, secrets and all, and exit with.
    os.environ["HYDRA_FULL_ERROR"] = "1"

"""Checks of Hydra's launchers before they start, and explanations of their errors."""

import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from traceback import walk_tb

from lr_exp import distributed
from lr_exp.config.composition import parse_flags
from lr_exp.errors import UserError

# Those that start processes; their names start with the extra that installs them.
_LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm", "ray")
# Library to what its errors mean.
_EXPLANATIONS = {
    "joblib": "A process of the sweep died ({}): it crashed, or was killed, perhaps because memory "
    "ran out. Run fewer cells at a time (hydra.launcher.n_jobs=).",
    "submitit": "A job returned no result ({}): its logs are in .submitit/ in the sweep's folder. "
    "Submitted jobs stay in the queue; wait for them.",
    "ray": "Ray could not run the cells ({}): its logs are in session_latest/logs of Ray's "
    "temporary folder (usually /tmp/ray) on the head node.",
}
_SLURM_PROGRAMS = ("sbatch", "srun", "sacct", "scontrol")


def check_launcher(arguments: Sequence[str]) -> None:
    """Raises UserError if the command line's launcher cannot work.

    Its extra or queue may be missing, or the command a single run, which Hydra runs here.
    """
    name = _launcher(arguments)
    if name not in _LAUNCHERS:
        return
    if distributed.is_distributed():
        raise UserError(
            f"hydra/launcher={name} starts processes of its own, and torchrun started "
            f"{distributed.world_size()}: use only one of them."
        )
    flags = parse_flags(arguments)
    if flags.help or flags.hydra_help or flags.cfg or flags.info:
        return
    if not flags.multirun and not any(word.startswith("hydra.mode=") for word in arguments):
        raise UserError(
            f"hydra/launcher={name} needs a multirun: add -m, or remove the launcher to run here."
        )
    extra = name.partition("_")[0]
    package = f"hydra-{extra}-launcher"
    try:
        distribution(package)
    except PackageNotFoundError as error:
        raise UserError(
            f"hydra/launcher={name}: {package} is not installed: pip install 'lr_exp[{extra}]'."
        ) from error
    if name == "submitit_slurm":
        missing = [program for program in _SLURM_PROGRAMS if shutil.which(program) is None]
        if missing:
            raise UserError(
                f"hydra/launcher={name}: no Slurm queue here ({', '.join(missing)} not found): "
                "start the sweep on a node that can submit jobs, or use hydra/launcher=joblib for "
                "this machine."
            )


def stop_jobs(arguments: Sequence[str]) -> str:
    """Ends the sweep's jobs on this machine; returns a note about those that stay in a queue."""
    name = _launcher(arguments)
    if name == "submitit_local":
        import psutil

        for controller in psutil.Process().children():
            with suppress(psutil.Error):
                if "submitit.local._local" in controller.cmdline():
                    cells = controller.children()
                    controller.kill()  # SIGTERM would make it print a traceback
                    for cell in cells:
                        cell.send_signal(signal.SIGINT)  # SIGTERM does not end submitit's jobs
    if name == "submitit_slurm":
        return "; submitted jobs stay in the queue, scancel ends them"
    return ""


def explain_launcher_error(error: Exception) -> str | None:
    """A message for an error from a launcher's library; None for all other errors."""
    # Submitit and Ray also raise built-in exceptions: check the module that raised it.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)][-1:]
    modules = [kind.__module__ for kind in type(error).__mro__]
    modules += [str(frame.f_globals.get("__name__")) for frame in frames]
    libraries = {module.partition(".")[0] for module in modules}
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    reason = lines[-1].rstrip(".") if lines else type(error).__name__
    for library, message in _EXPLANATIONS.items():
        if library in libraries:
            return f"{message.format(reason)} Run the same command again to resume."
    return None


def _launcher(arguments: Sequence[str]) -> str:
    words = [word.lstrip("+").partition("=") for word in arguments]
    values = [value for key, _, value in words if key == "hydra/launcher"]
    return values[-1].strip("'\"") if values else "basic"

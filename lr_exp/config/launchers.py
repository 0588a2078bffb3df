"""Whether the launcher that a command line chooses can work, and what its failures mean.

Knows Hydra's launchers by name and what stands behind them; imports none of it.
"""

import os
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from traceback import walk_tb

from hydra._internal.utils import get_args_parser

from lr_exp import distributed
from lr_exp.errors import UserError

# Of each launcher, the extra that installs it and its package; see conf/hydra/launcher.
_PACKAGES = {
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "submitit_local": ("submitit", "hydra-submitit-launcher"),
    "submitit_slurm": ("submitit", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
}
_SLURM = ("sbatch", "srun", "sacct", "scontrol")  # submit, start, ask, requeue
_PATIENCE = 10  # seconds for a Ray cluster to answer


def check_launcher(words: Sequence[str]) -> None:
    """Refuses a launcher that cannot work, before anything is launched.

    Args:
        words: the command line.

    Raises:
        UserError: its extra is not installed, its queue or cluster is not there, or the command is
            one run, which Hydra would do right here.
    """
    name = launcher_of(words)
    if name not in _PACKAGES:
        return
    if distributed.is_distributed():
        raise UserError(
            f"hydra/launcher={name} starts processes of its own, and torchrun has started "
            f"{distributed.world_size()}: leave one of the two out."
        )
    asked, _ = get_args_parser().parse_known_args(list(words))
    if asked.help or asked.hydra_help or asked.cfg or asked.info:
        return
    many = asked.multirun or any(word.startswith("hydra.mode=") for word in words)
    if not many:
        raise UserError(
            f"hydra/launcher={name} is for many runs, and this command is one: add -m, or leave "
            "the launcher out to run it here."
        )
    extra, package = _PACKAGES[name]
    try:
        distribution(package)
    except PackageNotFoundError as error:
        raise UserError(
            f"hydra/launcher={name}: {package} is not installed: pip install 'lr_exp[{extra}]'."
        ) from error
    if name == "submitit_slurm":
        missing = [program for program in _SLURM if shutil.which(program) is None]
        if missing:
            raise UserError(
                f"hydra/launcher={name}: there is no Slurm queue here ({', '.join(missing)} not "
                "found): start the sweep on a node of the cluster that can submit jobs, or choose "
                "hydra/launcher=joblib for this machine."
            )
    if name == "ray":
        _check_ray(_last(words, "hydra.launcher.ray.init.address=", "local"))


def launcher_of(words: Sequence[str]) -> str:
    """The launcher's name on a command line; Hydra's own where none is."""
    return _last(words, "hydra/launcher=", "basic")


def stop_jobs(words: Sequence[str]) -> str:
    """Ends the jobs on this machine that would outlive the program; says which ones still will.

    Returns:
        what to tell a user, "" where nothing stays.
    """
    name = launcher_of(words)
    if name == "submitit_local":
        import psutil

        for controller in psutil.Process().children():
            with suppress(psutil.Error):
                if "submitit.local._local" in controller.cmdline():
                    cells = controller.children()
                    controller.kill()  # told to stop, it would show a traceback
                    for cell in cells:
                        cell.send_signal(signal.SIGINT)  # SIGTERM does not end submitit's jobs
    if name == "submitit_slurm":
        return "; jobs that were handed to the queue stay there, scancel ends them"
    return ""


def explain_launcher_error(error: Exception) -> str | None:
    """What an error of a launcher's library means and what to do; None for all others."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "joblib" in libraries:
        return (
            f"a process of the sweep died ({type(error).__name__}): killed, perhaps for want of "
            "memory, or crashed. Run fewer cells at a time (hydra.launcher.n_jobs=); the same "
            "command goes on where it was."
        )
    # Submitit and Ray also raise plain ones; then the place tells.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    libraries |= {str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames[-1:]}
    if "submitit" in libraries:
        return (
            f"a job of the queue left no result ({_last_line(error)}): its logs are in .submitit/ "
            "of the sweep's folder. Jobs that are in the queue stay there; once they are done, the "
            "same command goes on where it was."
        )
    if "ray" in libraries:
        return (
            f"Ray could not run the cells ({_last_line(error).rstrip('.')}): its logs are in "
            "its session_latest/logs. The same command goes on where it was."
        )
    return None


def _check_ray(address: str) -> None:
    """A cluster that does not answer makes Ray wait for minutes, then end the whole process."""
    told = "hydra.launcher.ray.init.address"
    if address in ("auto", "null"):
        address, told = os.environ.get("RAY_ADDRESS", ""), "RAY_ADDRESS"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # a cluster of its own, or one that Ray finds by itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{told}={address}: no Ray cluster answers there ({error}): start one with `ray start "
            "--head`, or leave the address out for one that is started on this machine."
        ) from error


def _last(words: Sequence[str], key: str, otherwise: str) -> str:
    values = [word.lstrip("+")[len(key) :] for word in words if word.lstrip("+").startswith(key)]
    return values[-1].strip("'\"") if values else otherwise


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" -")]
    return lines[-1].strip() if lines else type(error).__name__

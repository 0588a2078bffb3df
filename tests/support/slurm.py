"""A fake Slurm on one machine: sbatch, srun, sacct and scontrol, as far as submitit uses them.

    python tests/support/slurm.py PROGRAM WORDS…

All tasks of a job start at once; a requeued job starts again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

JOB = "7"
PROGRAMS = ("sbatch", "srun", "sacct", "scontrol")


def install(folder: Path) -> None:
    """Installs the programs in a folder for PATH."""
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n', "utf-8")
        path.chmod(0o755)


def sbatch(script: str) -> None:
    """Starts a script's task, or each task of its array."""
    array = re.search(r"--array=0-(\d+)", Path(script).read_text("utf-8"))
    for task in range(int(array[1]) + 1) if array else [None]:
        _start(script, task)
    print(f"Submitted batch job {JOB}")


def srun(*words: str) -> None:
    """Runs a command with its output in the files named before it."""
    files = {words[i]: words[i + 1] for i in range(len(words)) if words[i].startswith("--")}
    command = words[words.index("--error") + 2 :]
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    for option, number in (("--output", 1), ("--error", 2)):
        path = files[option].replace("%A", JOB).replace("%j", JOB).replace("%a", task)
        file = os.open(path.replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
    os.execvp(command[0], command)  # noqa: S606


def sacct(*_: str) -> None:
    """Lists no job, so that submitit waits for the result."""
    print("JobID|State|NodeList")


def scontrol(_: str, job: str) -> None:
    """`requeue JOB`, called by the job itself."""
    task = job.partition("_")[2]
    _start(os.environ["SLURM_SCRIPT"], int(task) if task else None)


def _start(script: str, task: int | None) -> None:
    environment = {
        **os.environ,
        "SLURM_SCRIPT": script,
        "SLURM_JOB_ID": JOB,
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
    }
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": str(task)}
    subprocess.Popen(  # noqa: S603
        ["bash", script],  # noqa: S607
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol}[sys.argv[1]](
        *sys.argv[2:]
    )

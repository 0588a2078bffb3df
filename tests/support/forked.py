"""Runs functions in forks of a process that has imported what they need.

A new process would spend five seconds on these imports.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo import skip_figures

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "pytest",
        "lr_exp.pipeline.run",
        "lr_exp.distiller.distill",
        "lr_exp.report.page",
        "hydra._internal.utils",
        "peft",
        "transformers.models.llama.modeling_llama",
        "matplotlib.figure",
        "torch.distributed",
    ]
)


@dataclass(frozen=True)
class Fork:
    """A started process, whose output goes to files."""

    process: BaseProcess
    files: tuple[Path, Path]

    def wait(self, seconds: float = 600) -> tuple[int, str, str]:
        """Waits for the end; returns the exit status, stdout and stderr."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.files[0].read_text("utf-8")
        out, err = (file.read_text("utf-8") for file in self.files)
        return self.process.exitcode, out, err


def start(folder: Path, function: Callable[..., Any], *given: Any, **environment: str) -> Fork:
    """Calls the function in a fork, in a folder and with more environment variables."""
    files = (folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err"))
    process = _SERVER.Process(target=_call, args=(folder, files, environment, function, given))
    process.start()
    return Fork(process, files)


def _call(folder: Path, files: tuple[Path, Path], environment: dict, function, given) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    os.chdir(folder)
    function(*given)


def run_program(words: list[str]) -> None:
    """Runs `python -m lr_exp`, without figures on the page."""
    skip_figures(pytest.MonkeyPatch())
    sys.argv = ["lr_exp", *words]
    runpy.run_module("lr_exp", run_name="__main__", alter_sys=True)


def on_ranks(count: int, function: Callable[..., Any], *given: Any) -> None:
    """Calls the function on every rank, as torchrun does; exits with 1 if a rank fails."""
    from torch.distributed import TCPStore

    fork = multiprocessing.get_context("fork")
    port = fork.Value("i", 0)
    ranks = [
        fork.Process(target=_rank, args=(i, count, port, function, given)) for i in range(count)
    ]
    for rank in ranks:
        rank.start()
    # After the forks: a lock that the store's thread held in one would never be released there.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port.value = store.port
    while running := [rank for rank in ranks if rank.is_alive()]:
        wait([rank.sentinel for rank in running])
        if any(rank.exitcode for rank in ranks):
            for rank in ranks:
                rank.terminate()
    sys.exit(any(rank.exitcode for rank in ranks))


def _rank(number: int, count: int, port: Any, function: Callable[..., Any], given: tuple) -> None:
    from lr_exp.distributed import environment

    while not port.value:
        time.sleep(0.01)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port.value))
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
    os.environ.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    environment._environment = environment._read_environment()  # which the import has read
    function(*given)

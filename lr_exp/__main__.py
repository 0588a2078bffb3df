"""The program: `python -m lr_exp [overrides]`, multirun with `-m`. Imports no torch by itself."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_exp import distributed, progress
from lr_exp.config import cells
from lr_exp.config.command_line import check_arguments, check_settings
from lr_exp.config.composition import (
    check_overrides,
    conf_dir,
    count_cells,
    narrow_sweep,
    one_line_message,
    raw_choices,
    to_settings,
)
from lr_exp.config.help_page import version_line
from lr_exp.config.launchers import check_launcher, explain_launcher_error, stop_jobs
from lr_exp.config.start import prepare
from lr_exp.errors import (
    UserError,
    guard_tracebacks,
    map_strings,
    print_error,
    print_exception,
    printable,
    redact,
)
from lr_exp.models.devices import choose_gpu
from lr_exp.pipeline.outcome import choices, record_failure
from lr_exp.report.terminal import results_lines, summary_table

# Errors that a user can mend. OSError: a folder that cannot be made, a disk that is full.
_USERS = (UserError, HydraException, OmegaConfBaseException, OSError)
_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)

# Options that only show something.
_SHOWING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")

_printed: list[str] = []  # errors of this call
_stopped: list[int] = []  # signals that asked this call to stop


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
@cells.Portable
def _job(config: DictConfig) -> cells.Outcome | None:
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    multirun = hydra_config.mode is RunMode.MULTIRUN
    number = int(hydra_config.job.num) + 1 if multirun else 1
    settings, checked, began = None, False, False
    if multirun:
        _announce(hydra_config, number, folder)
    try:
        settings = to_settings(config, _told(hydra_config))
        if settings.sweep is not None and not multirun:
            raise UserError(
                f"+sweep={settings.sweep} is many runs: write python -m lr_exp -m "
                f"+sweep={settings.sweep}."
            )
        check_settings(asdict(settings))
        checked = True
        choose_gpu(settings)
        from lr_exp.pipeline.run import run

        began = True
        summary = run(settings, folder, conf_dir())
        _show(f"{summary_table(summary)}\n{results_lines(folder)}")
        return cells.note(number, folder.name, None)
    except (Exception, _Stopped) as error:
        if _stopped and not isinstance(error, _Stopped):
            # A library has made an error of its own of the stop.
            error = _Stopped(_stopped[0], distributed.lost_peer())
        shown = error.lost if isinstance(error, _Stopped) else error
        if shown is None:
            raise error
        reason = redact(one_line_message(shown) or type(shown).__name__)
        # What all ranks raise; what is wrong with the command, each has found by itself.
        in_step = isinstance(error, distributed.SharedError) or (multirun and not checked)
        ends_alone = distributed.is_distributed() and not in_step
        if ends_alone:
            distributed.report_failure(shown, reason)
        if distributed.is_rank0():
            record_failure(
                reason,
                map_strings(choices(settings) if settings else raw_choices(config), redact),
                map_strings(_told(hydra_config), redact),
                folder,
                began=began,
            )
        if isinstance(error, _Stopped):
            raise error  # what was lost is told where the program ends
        if os.environ.get("LR_EXP_DEBUG") == "1" and (distributed.is_rank0() or ends_alone):
            raise
        if not isinstance(error, _USERS):
            if not multirun or ends_alone:
                raise
            print_exception(*sys.exc_info())  # a fault of the program: its place matters
        if distributed.is_rank0() or ends_alone:
            _print_error(error, again=multirun)  # each cell says its own
        if ends_alone:
            raise SystemExit(1) from error  # and torchrun ends the others
        return cells.note(number, folder.name, reason)


def main() -> int:
    """Runs the program; returns the exit status: 0, 1 after an error that was printed, or 128 and
    the signal's number after one that stopped it.
    """
    if not distributed.is_rank0() and any(word.startswith(_SHOWING) for word in sys.argv[1:]):
        return 0  # the first rank shows it
    if "--version" in sys.argv[1:]:
        print(version_line())
        return 0
    prepare()
    _printed.clear()
    _stopped.clear()
    cells.forget()
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)  # the terminal was closed, and there is no nohup
    try:
        with _no_stop_lost():
            return _run_words()
    except KeyboardInterrupt as stop:
        return _say_stopped(stop)


def _run_words() -> int:
    """Runs what the command line says; returns the exit status."""
    try:
        check_arguments(sys.argv[1:])
        check_overrides([word for word in sys.argv[1:] if _is_override(word)])
        check_launcher(sys.argv[1:])
        sys.argv[1:] = narrow_sweep(sys.argv[1:])
        with _folder_of_rank():
            _job()
    except BrokenPipeError:
        _drop_output()
    except Exception as error:
        if _stopped:  # libraries that were stopped half-way fail while they tidy up
            return _say_stopped(_Stopped(_stopped[0], distributed.lost_peer()))
        told = explain_launcher_error(error)
        if os.environ.get("LR_EXP_DEBUG") == "1" or not (told or isinstance(error, _USERS)):
            raise
        if not distributed.is_rank0():
            distributed.report_failure(error, one_line_message(error))
        _print_error(UserError(told) if told else error)
    distributed.leave()
    # After an exit with 1 torchrun ends the others, the first rank with its results perhaps.
    return _sum_up() if distributed.is_rank0() or _printed else 0


def _sum_up() -> int:
    """Says how a sweep's cells ended; returns the exit status."""
    ended = cells.outcomes()
    failed = [cell for cell in ended if cell.error is not None]
    if len(ended) > 1:
        _show(f"\ncells: {len(ended) - len(failed)} finished, {len(failed)} failed")
    for cell in failed:
        if cell.came_back:  # its own line stands among others, or in a job's log
            line = printable(f"failed: {cell.cell}: {cell.error}")
            print(line, file=sys.stderr, flush=True)
    return 1 if _printed or failed else 0


class _Stopped(KeyboardInterrupt):
    """SIGTERM, as queues send it, ends like Ctrl-C; its number is told by the exit status."""

    def __init__(self, number: int, lost: distributed.PeerLostError | None = None) -> None:
        super().__init__(*([str(lost)] if lost else []))
        self.number = number
        self.lost = lost  # why torchrun stops this rank, if another one has failed


def _stop(signal_number: int, frame: object) -> None:
    _stopped.append(signal_number)
    lost = distributed.lost_peer()
    if lost is None:
        distributed.report_end()
    raise _Stopped(signal_number, lost)


@contextmanager
def _no_stop_lost() -> Iterator[None]:
    """A stop that Python drops comes again: what is raised in a weak reference's callback is."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if isinstance(dropped.exc_value, _Stopped):
            again = Timer(0.1, os.kill, (os.getpid(), dropped.exc_value.number))
            again.daemon = True
            again.start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _folder_of_rank() -> Iterator[None]:
    """Has Hydra write to a folder that goes again, but for the first rank."""
    if distributed.is_rank0():
        yield
        return
    with TemporaryDirectory() as own:
        sys.argv += [f"hydra.run.dir={own}", f"hydra.sweep.dir={own}", "hydra.output_subdir=null"]
        yield


def _say_stopped(stop: KeyboardInterrupt) -> int:
    """Says how to go on; the exit status that tells the signal."""
    number = stop.number if isinstance(stop, _Stopped) else signal.SIGINT
    if isinstance(stop, _Stopped) and stop.lost is not None:
        _print_error(stop.lost)
        return 1
    if not distributed.is_rank0():
        return 128 + number
    line = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the terminal's ^C
    print(
        f"{line}stopped: the same command goes on where it was{stop_jobs(sys.argv[1:])}",
        file=sys.stderr,
        flush=True,
    )
    return 128 + number


def _announce(hydra_config: Any, number: int, folder: Path) -> None:
    """A cell's headline; from then on progress is shown as in a sweep."""
    if not distributed.is_rank0():
        return
    progress.choose_for_cells(side_by_side=not _one_by_one(hydra_config))
    count = count_cells(sys.argv[1:], hydra_config.sweeper.get("params") or {})
    of = f" of {count}" if count else ""
    _show(f"\ncell {number}{of}: {printable(folder.name)}")


def _show(text: str) -> None:
    """Prints; a reader who has enough, as `head` has, ends neither a run nor a sweep."""
    if not distributed.is_rank0():
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered, too


def _one_by_one(hydra_config: Any) -> bool:
    return str(hydra_config.launcher._target_).endswith("BasicLauncher")


def _told(hydra_config: Any) -> list[str]:
    """The command line's words for this run, as they were written: `${...}` is not looked up."""
    words = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    return [str(word) for word in words] if isinstance(words, list) else []


def _print_error(error: Exception, again: bool = False) -> None:
    message = one_line_message(error)
    if isinstance(error, distributed.PeerLostError):
        speaks = distributed.is_rank0() or (error.rank == 0 and distributed.rank() == 1)
        if error.is_told or not speaks:
            return
    elif not distributed.is_rank0():
        message = f"{distributed.rank_label()}: {message}"
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        message += "; set hydra.run.dir= to a folder that can be written, on a disk with space"
    if again or message not in _printed:
        print_error(message)
        _printed.append(message)


def _is_override(word: str) -> bool:
    return not word.startswith("-") and "=" in word


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

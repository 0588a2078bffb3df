"""The program: `python -m lr_exp [overrides]`, multirun with `-m`."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_exp import distributed, progress
from lr_exp.config import cells
from lr_exp.config.command_line import check_arguments, check_settings, config_dirs
from lr_exp.config.composition import (
    check_overrides,
    count_cells,
    narrow_sweep,
    one_line_message,
    raw_choices,
    register,
    to_settings,
)
from lr_exp.config.help_page import version_line
from lr_exp.config.launchers import check_launcher, explain_launcher_error, stop_jobs
from lr_exp.config.options import option_folders
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
from lr_exp.pipeline.outcome import choices_of_failed_run, record_failure
from lr_exp.report.terminal import results_lines, summary_table

# Errors that a user can fix. OSError: a folder that cannot be made, a full disk.
_USER_ERRORS = (UserError, HydraException, OmegaConfBaseException, OSError)
_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)

# Options that only print something.
_INFO_OPTIONS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 after an error that was printed, or 128 plus the signal's number after
        a signal stopped it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not distributed.is_rank0() and any(word.startswith(_INFO_OPTIONS) for word in arguments):
        return 0  # rank 0 prints it
    if "--version" in arguments:
        print(version_line())
        return 0
    prepare()
    program = Program(arguments)
    signal.signal(signal.SIGINT, program.stop)
    signal.signal(signal.SIGTERM, program.stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, program.stop)  # the terminal was closed, without nohup
    try:
        with resend_dropped_stops():
            return program.run()
    except KeyboardInterrupt as stop:
        return program.report_stop(stop)


class Stopped(KeyboardInterrupt):
    """A signal stopped the program; SIGTERM, which queues send, is handled like Ctrl-C."""

    def __init__(self, number: int, lost: distributed.PeerLostError | None = None) -> None:
        super().__init__(*([str(lost)] if lost else []))
        self.number = number
        self.lost = lost  # why torchrun stops this rank, if another one failed


class Program:
    """One call of the program. A launcher pickles it for cells that run in other processes."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._folders = option_folders()  # the user's own are added when the arguments are checked
        self._errors: list[str] = []  # messages that were printed
        self._signals: list[int] = []  # signals that asked this call to stop
        self._outcomes = cells.Outcomes()

    def run(self) -> int:
        """Runs the command line; returns the exit status."""
        try:
            check_arguments(self._arguments)
            self._folders = option_folders(config_dirs(self._arguments))
            check_overrides([word for word in self._arguments if _is_override(word)], self._folders)
            check_launcher(self._arguments)
            self._arguments = narrow_sweep(self._arguments, self._folders)
            register(self._arguments, self._folders)
            with _discard_folder_of_other_ranks() as overrides:
                self._call_hydra([*self._arguments, *overrides])
        except BrokenPipeError:
            _drop_output()
        except Exception as error:
            if self._signals:  # interrupted libraries fail while they clean up
                return self.report_stop(Stopped(self._signals[0], distributed.lost_peer()))
            message = explain_launcher_error(error)
            is_users = message or isinstance(error, _USER_ERRORS)
            if os.environ.get("LR_EXP_DEBUG") == "1" or not is_users:
                raise
            if not distributed.is_rank0():
                distributed.report_failure(error, one_line_message(error))
            self._print_error(UserError(message) if message else error)
        distributed.leave()
        # After an exit with 1 torchrun ends the other ranks, perhaps before rank 0 has finished.
        return self._summarize_cells() if distributed.is_rank0() or self._errors else 0

    def stop(self, signal_number: int, frame: object) -> None:
        """Handles a signal: raises Stopped."""
        self._signals.append(signal_number)
        lost = distributed.lost_peer()
        if lost is None:
            distributed.report_end()
        raise Stopped(signal_number, lost)

    def report_stop(self, stop: KeyboardInterrupt) -> int:
        """Prints how to resume; returns the exit status."""
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        if isinstance(stop, Stopped) and stop.lost is not None:
            self._print_error(stop.lost)
            return 1
        if distributed.is_rank0():
            line = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the terminal's ^C
            print(
                f"{line}stopped: run the same command again to resume{stop_jobs(self._arguments)}",
                file=sys.stderr,
                flush=True,
            )
        return 128 + number

    def _call_hydra(self, arguments: list[str]) -> None:
        """Does what `hydra.main` does, which can only read `sys.argv`."""
        hydra_version.setbase("1.3")
        parser = get_args_parser()
        _run_hydra(
            args=parser.parse_args(arguments),
            args_parser=parser,
            task_function=cells.Portable(self._run_cell, self._arguments),
            config_path=str(self._folders[0]),
            config_name="config",
        )

    def _run_cell(self, config: DictConfig) -> cells.Outcome | None:
        """Hydra's task function: a single run, or one cell of a sweep."""
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        overrides = _overrides(hydra_config)
        multirun = hydra_config.mode is RunMode.MULTIRUN
        number = int(hydra_config.job.num) + 1 if multirun else 1
        settings, checked, began = None, False, False
        if multirun:
            self._announce(hydra_config, number, folder)
        try:
            settings = to_settings(config, overrides, self._folders[1:])
            if settings.sweep is not None and not multirun:
                raise UserError(
                    f"+sweep={settings.sweep} is many runs: write python -m lr_exp -m "
                    f"+sweep={settings.sweep}."
                )
            check_settings(asdict(settings))
            checked = True
            choose_gpu(settings)
            from lr_exp.pipeline.run import run  # imports torch

            began = True
            summary = run(settings, folder, self._folders)
            _show(f"{summary_table(summary)}\n{results_lines(folder)}")
            return self._outcomes.add(number, folder.name, None)
        except (Exception, Stopped) as error:
            if self._signals and not isinstance(error, Stopped):
                # A library turned the stop into an error of its own.
                error = Stopped(self._signals[0], distributed.lost_peer())
            cause = error.lost if isinstance(error, Stopped) else error
            if cause is None:
                raise error
            reason = redact(one_line_message(cause) or type(cause).__name__)
            # Every rank raises a shared error, and finds by itself what is wrong with a command.
            on_all_ranks = isinstance(error, distributed.SharedError) or (multirun and not checked)
            exits_alone = distributed.is_distributed() and not on_all_ranks
            if exits_alone:
                distributed.report_failure(cause, reason)
            if distributed.is_rank0():
                record_failure(
                    reason,
                    map_strings(
                        choices_of_failed_run(settings) if settings else raw_choices(config), redact
                    ),
                    map_strings(overrides, redact),
                    folder,
                    began=began,
                )
            if isinstance(error, Stopped):
                raise error  # `main` reports it
            if os.environ.get("LR_EXP_DEBUG") == "1" and (distributed.is_rank0() or exits_alone):
                raise
            if not isinstance(error, _USER_ERRORS):
                if not multirun or exits_alone:
                    raise
                print_exception(*sys.exc_info())  # a bug: the traceback matters
            if distributed.is_rank0() or exits_alone:
                self._print_error(error, repeat=multirun)  # each cell prints its own
            if exits_alone:
                raise SystemExit(1) from error  # torchrun then ends the other ranks
            return self._outcomes.add(number, folder.name, reason)

    def _announce(self, hydra_config: Any, number: int, folder: Path) -> None:
        """Prints a cell's headline and switches to a sweep's progress display."""
        if not distributed.is_rank0():
            return
        in_this_process = str(hydra_config.launcher._target_).endswith("BasicLauncher")
        progress.choose_for_cells(side_by_side=not in_this_process)
        count = count_cells(self._arguments, hydra_config.sweeper.get("params") or {})
        of = f" of {count}" if count else ""
        _show(f"\ncell {number}{of}: {printable(folder.name)}")

    def _summarize_cells(self) -> int:
        """Prints how many cells of a sweep finished and failed; returns the exit status."""
        outcomes = self._outcomes.all()
        failed = [cell for cell in outcomes if cell.error is not None]
        if len(outcomes) > 1:
            _show(f"\ncells: {len(outcomes) - len(failed)} finished, {len(failed)} failed")
        for cell in failed:
            if cell.remote:  # its own error line is among others', or in a job's log
                line = printable(f"failed: {cell.cell}: {cell.error}")
                print(line, file=sys.stderr, flush=True)
        return 1 if self._errors or failed else 0

    def _print_error(self, error: Exception, repeat: bool = False) -> None:
        """Prints an error once, or each time with `repeat`; of all ranks only one prints it."""
        message = one_line_message(error)
        if isinstance(error, distributed.PeerLostError):
            prints = distributed.is_rank0() or (error.rank == 0 and distributed.rank() == 1)
            if error.is_reported or not prints:
                return
        elif not distributed.is_rank0():
            message = f"{distributed.rank_label()}: {message}"
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            message += "; set hydra.run.dir= to a folder that can be written, on a disk with space"
        if repeat or message not in self._errors:
            print_error(message)
            self._errors.append(message)


@contextmanager
def resend_dropped_stops() -> Iterator[None]:
    """Repeats a signal whose exception Python dropped, as in a weak reference's callback."""
    previous_hook = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if isinstance(dropped.exc_value, Stopped):
            timer = Timer(0.1, os.kill, (os.getpid(), dropped.exc_value.number))
            timer.daemon = True
            timer.start()
        else:
            previous_hook(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook


@contextmanager
def _discard_folder_of_other_ranks() -> Iterator[list[str]]:
    """Overrides by which Hydra writes to a temporary folder; none on rank 0."""
    if distributed.is_rank0():
        yield []
        return
    with TemporaryDirectory() as folder:
        yield [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]


def _show(text: str) -> None:
    """Prints on rank 0; a closed pipe, as after `| head`, ends neither a run nor a sweep."""
    if not distributed.is_rank0():
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # buffered output too


def _overrides(hydra_config: Any) -> list[str]:
    """The overrides of this run as they were written, `${...}` unresolved."""
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    return [str(word) for word in overrides] if isinstance(overrides, list) else []


def _is_override(word: str) -> bool:
    return not word.startswith("-") and "=" in word


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

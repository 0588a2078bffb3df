"""The program: `python -m lr_exp [overrides]`, multirun with `-m`, again with `--from-run RUN`.

`Program.run` checks the command line and calls Hydra, which composes the settings and calls
`Program.run_cell` once, or for each cell of a sweep. With torchrun, every rank does all of it.
"""

import argparse
import errno
import gc
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_exp import __version__, distributed, errors, progress
from lr_exp.config import cells, composition
from lr_exp.config.composition import one_line_message, parse_flags
from lr_exp.config.launchers import check_launcher, explain_launcher_error, stop_jobs
from lr_exp.config.options import option_folders
from lr_exp.config.settings import Settings
from lr_exp.distributed import Stopped
from lr_exp.errors import UserError, is_debugging, printable, redact
from lr_exp.models.devices import choose_gpu
from lr_exp.pipeline.outcome import FolderInUseError, clear, only_writer, record_failure

# Errors that a user can fix. OSError: a folder that cannot be made, a full disk.
_USER_ERRORS = (UserError, HydraException, OmegaConfBaseException, OSError)
_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)

# Options that only print something.
_INFO_OPTIONS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with these arguments, or with those of this process.

    Returns the exit status: 0, 1 after an error that was printed, or 128 plus a signal's number.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not distributed.is_rank0() and any(word.startswith(_INFO_OPTIONS) for word in arguments):
        return 0  # rank 0 prints it
    if "--version" in arguments:
        _show(_version_line())
        return 0
    cells.prepare()
    program = Program(arguments)
    try:
        with distributed.raise_on_signals():
            return program.run()
    except KeyboardInterrupt as stop:
        return program.report_stop(stop)
    finally:
        with suppress(OSError):
            errors.flush_output()


class Program:
    """One call of the program. A launcher pickles it for cells that run in other processes."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._folders = option_folders()  # the user's own are added when the arguments are checked
        self._errors: list[str] = []  # messages that were printed
        cells.outcomes.clear()  # of an earlier call in this process

    def run(self) -> int:
        try:
            self._repeat_run()
            self._check_arguments()
            composition.register()
            with TemporaryDirectory() as scratch:
                self._call_hydra(scratch)
        except BrokenPipeError:
            pass  # as after `--help | head`
        except Exception as error:
            if stop := distributed.stop_request():  # interrupted libraries fail in cleaning up
                return self.report_stop(stop)
            message = explain_launcher_error(error)
            if is_debugging() or not (message or isinstance(error, _USER_ERRORS)):
                raise
            if not distributed.is_rank0():
                distributed.report_failure(error, one_line_message(error))
            self._print_error(UserError(message) if message else error)
        distributed.leave()
        # After an exit with 1 torchrun ends the other ranks, perhaps before rank 0 has finished.
        return self._summarize_cells() if distributed.is_rank0() or self._errors else 0

    def run_cell(self, config: DictConfig) -> cells.Outcome | None:
        """Hydra's task function: a single run, or one cell of a sweep."""
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
        multirun = hydra_config.mode is RunMode.MULTIRUN
        number = int(hydra_config.job.num) + 1 if multirun else 1
        settings = None
        if multirun:
            self._announce(hydra_config, number, folder)
        held = ExitStack()  # the folder's lock, until a failure is recorded
        try:
            held.enter_context(only_writer(folder))
            if distributed.is_rank0():
                clear(folder)
                _save_composed(config, folder)
            settings = composition.to_settings(config, overrides, self._folders[1:])
            if settings.sweep is not None and not multirun:
                raise UserError(
                    f"+sweep={settings.sweep} starts several runs: add -m, as in python -m lr_exp "
                    f"-m +sweep={settings.sweep}."
                )
            if number > 1 and os.environ.get("WANDB_SWEEP_ID"):
                raise UserError(
                    "a W&B agent's command has several runs, which W&B would record as one: give "
                    "each key one value, as in sweeps/wandb."
                )
            if multirun:  # its runs are a group in W&B
                group = settings.wandb.group or os.environ.get("WANDB_RUN_GROUP")
                settings.wandb.group = group or settings.sweep or folder.parent.name
            choose_gpu(settings)
            from lr_exp.pipeline.run import run  # imports torch
            from lr_exp.report import terminal  # imports pandas

            if gc.isenabled():  # there may be garbage of an earlier run
                gc.collect()
            # Imported objects stay: without them, a collection takes 0.05 s instead of 0.3 s.
            gc.freeze()
            gc.enable()
            summary = run(settings, folder, self._folders)
            if not multirun:
                _show(f"{terminal.summary_table(summary)}\n{terminal.results_lines(folder)}")
                return None
            results = terminal.cell_results(summary)
            _show(", ".join(f"{name} {value}" for name, value in results.items()))
            return cells.record(number, folder, tuple(overrides), None, results)
        except (Exception, Stopped) as error:
            # A library may have turned a stop into an error of its own.
            stop = error if isinstance(error, Stopped) else distributed.stop_request()
            reason = self._fail(stop or error, settings, overrides, folder)
            return cells.record(number, folder, tuple(overrides), reason)
        finally:
            held.close()

    def _fail(
        self,
        error: Exception | Stopped,
        settings: Settings | None,
        overrides: list[str],
        folder: Path,
    ) -> str:
        """Records and prints why a cell failed; returns the reason, or raises to end all."""
        cause = error.lost if isinstance(error, Stopped) else error
        if cause is None:
            raise error
        multirun = HydraConfig.get().mode is RunMode.MULTIRUN
        reason = redact(one_line_message(cause) or type(cause).__name__)
        # All ranks raise a shared error, and all fail alike on an invalid command.
        invalid = multirun and not settings and not isinstance(cause, (FolderInUseError, OSError))
        on_all_ranks = isinstance(error, distributed.SharedError) or invalid
        exits_alone = distributed.is_distributed() and not on_all_ranks
        if exits_alone:
            distributed.report_failure(cause, reason)
        if distributed.is_rank0() and not isinstance(cause, FolderInUseError):
            record_failure(reason, settings, overrides, folder)
        if isinstance(error, Stopped):
            raise error
        is_shown = distributed.is_rank0() or exits_alone
        if is_debugging() and is_shown:
            raise error
        if not isinstance(error, _USER_ERRORS):  # a bug: the traceback matters
            if not multirun or exits_alone:
                raise error
            errors.print_exception(error)
        if is_shown:
            self._print_error(error, repeat=multirun)  # each cell prints its own
        if exits_alone:
            raise SystemExit(1) from error  # torchrun then ends the other ranks
        return reason

    def _repeat_run(self) -> None:
        """Replaces `--from-run RUN` by the arguments of that run."""
        flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        flag.add_argument("--from-run", type=Path)
        try:
            found, given = flag.parse_known_args(self._arguments)
        except argparse.ArgumentError as error:
            raise UserError("--from-run needs the folder of a run.") from error
        if found.from_run is not None:
            from lr_exp.pipeline.origin import arguments_of  # imports pydantic

            self._arguments = arguments_of(found.from_run, given)

    def _check_arguments(self) -> None:
        """Raises UserError if an argument is not valid; adds the user's folders of options."""
        flags = parse_flags(self._arguments)
        if flags.experimental_rerun is not None:
            raise UserError(
                "--experimental-rerun reads a pickle, which can run any code: pass the run's "
                "overrides again (they are in its .hydra/overrides.yaml)."
            )
        self._folders = option_folders(composition.config_dirs(self._arguments))
        if not flags.shell_completion:  # its words, as in `install=bash`, are no overrides
            composition.check_overrides(flags.overrides, self._folders)
            given = {word: composition.round_range(word) for word in flags.overrides}
            self._arguments = [given.get(word, word) for word in self._arguments]
        check_launcher(self._arguments)

    def _call_hydra(self, scratch: str) -> None:
        """Does what `hydra.main` does, which can only read `sys.argv`."""
        hydra_version.setbase("1.3")
        flags = parse_flags(self._arguments)
        if not distributed.is_rank0():  # which alone writes to the run's folder
            flags.overrides += [f"hydra.run.dir={scratch}", f"hydra.sweep.dir={scratch}"]
        _run_hydra(
            args=flags,
            args_parser=get_args_parser(),
            task_function=cells.Portable(self.run_cell),
            config_path=str(self._folders[0]),
            config_name="config",
        )

    def report_stop(self, stop: KeyboardInterrupt) -> int:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        if isinstance(stop, Stopped) and stop.lost is not None:
            self._print_error(stop.lost)
            return 1
        if distributed.is_rank0():
            line = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the terminal's ^C
            text = f"stopped: run the same command again to resume{stop_jobs(self._arguments)}"
            print(f"{line}{text}", file=sys.stderr, flush=True)
        return 128 + number

    def _announce(self, hydra_config: Any, number: int, folder: Path) -> None:
        """Prints a cell's headline and switches to a sweep's progress display."""
        if not distributed.is_rank0():
            return
        in_this_process = str(hydra_config.launcher._target_).endswith("BasicLauncher")
        progress.choose_for_cells(side_by_side=not in_this_process)
        count = composition.count_cells(self._arguments, hydra_config.sweeper.get("params") or {})
        of = f" of {count}" if count else ""
        _show(f"\ncell {number}{of}: {printable(folder.name)}")

    def _summarize_cells(self) -> int:
        outcomes = [outcome for _, outcome in sorted(cells.outcomes.items())]
        failed = [cell for cell in outcomes if cell.error is not None]
        if len(outcomes) > 1:
            from lr_exp.report import terminal

            results = zip(
                map(printable, cells.labels()), (c.results for c in outcomes), strict=True
            )
            table = terminal.sweep_table(dict(results))
            sweep = printable(terminal.relative(outcomes[0].folder.parent))
            _show(
                f"\n{table}\n\ncells: {len(outcomes) - len(failed)} finished, {len(failed)} failed"
                f"\nReport: python -m lr_exp.report {shlex.quote(sweep)}"
            )
            offline = "*/wandb/offline-run-*"
            if [*outcomes[0].folder.parent.glob(offline)]:
                _show(f"W&B: upload all: wandb sync {shlex.quote(sweep)}/{offline}")
        for cell in failed:
            if cell.error not in self._errors:  # printed among others' lines, or in a job's log
                line = printable(f"failed: {cell.folder.name}: {cell.error}")
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
            message += (
                "; set hydra.run.dir= (hydra.sweep.dir= with -m) and store= to folders that can be "
                "written, on a disk with space"
            )
        if repeat or message not in self._errors:
            errors.print_error(message)
            self._errors += [message, redact(one_line_message(error))]  # as in `Outcome.error`


def _version_line() -> str:
    """The versions of this package and of those that results depend on, without importing them."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"lr_exp {__version__}, {packages}, Python {sys.version.split()[0]}"


def _save_composed(config: DictConfig, folder: Path) -> None:
    """Writes `.hydra/`, which Hydra itself would write before the folder is locked."""
    composed = {
        "config": config,
        "hydra": HydraConfig.instance().cfg,
        "overrides": HydraConfig.get().overrides.task,
    }
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, part in composed.items():
        OmegaConf.save(part, folder / ".hydra" / f"{name}.yaml")


def _show(text: str) -> None:
    """Prints on rank 0. No failure of it, as after `| head`, ends or fails a run or a sweep."""
    if distributed.is_rank0():
        with suppress(OSError):
            print(text)
            errors.flush_output()


if __name__ == "__main__":
    errors.guard_tracebacks()
    gc.disable()  # until everything is imported: collections meanwhile take a second
    sys.exit(main())

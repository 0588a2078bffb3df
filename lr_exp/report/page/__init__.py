"""`report.html`: a self-contained page of a run or a sweep, readable offline."""

from collections.abc import Sequence
from pathlib import Path

from lr_exp.report.page.run_page import run_page
from lr_exp.report.page.sweep_page import SweepSection, sweep_page
from lr_exp.report.read.runs import Found, scan_folder
from lr_exp.store.files import write_atomically
from lr_exp.store.run_folder import PAGE


def write_run_page(folder: Path) -> Path:
    """Writes `folder/report.html` from the run's files; returns its path.

    Raises:
        UserError: the run's summary cannot be read.
        OSError: the page cannot be written.
    """
    path = folder / PAGE
    write_atomically(path, run_page(folder, scan_folder(folder, recursive=False)))
    return path


def folder_page(folder: Path, found: Found, sections: Sequence[SweepSection], out: Path) -> str:
    """The run page if `folder` itself is the only run found, else the sweep page."""
    own = scan_folder(folder, recursive=False)
    if len(own.every) == len(found.every) == 1:
        return run_page(folder, own)
    return sweep_page(folder.resolve().name, found, sections, out)

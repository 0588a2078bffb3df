"""Calibrates the decomposition of gains with experts whose cause of gains was planted.

python -m lr_exp.calibration [--out FOLDER] [--seeds N ...] [--jobs N] OVERRIDE ...

Planted models that the store lacks are trained first. The overrides are those of every run
(evaluator.max_examples=50). A calibration that was stopped resumes.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.settings import check_value
from lr_exp.errors import command, guard_tracebacks, printable, redact


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the calibration."""
    from lr_exp.api import compose
    from lr_exp.calibration.planted import PLANTED
    from lr_exp.calibration.recovery import measured, oracle, recovery_figure, recovery_table
    from lr_exp.calibration.running import BENCHMARK, EXPERIMENT, METHODS, run_all
    from lr_exp.report.build import Report, write
    from lr_exp.report.read.runs import find_runs
    from lr_exp.report.tables.formats import csv_text, one_line, plain_table

    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="settings of every run")
    out = Path("runs/calibration")
    what = f"folder of the runs, the table and the figure (default: {out})"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=what)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    chosen = parser.parse_intermixed_args(words)
    check_value("--jobs", chosen.jobs, Annotated[int, "[1, 1000]"])
    store = compose(EXPERIMENT, *chosen.overrides).store  # also checks the overrides
    cells = [*product(PLANTED, METHODS, dict.fromkeys(chosen.seeds))]
    folders = [chosen.out / expert / method / f"seed_{seed}" for expert, method, seed in cells]
    run_all(cells, folders, (EXPERIMENT, *chosen.overrides), store, chosen.jobs)
    runs: dict[tuple[str, str], list[Any]] = {}
    for (expert, method, _), folder in zip(cells, folders, strict=True):
        runs.setdefault((expert, method), []).extend(find_runs(folder).runs)
    found = {key: (measured(own, BENCHMARK), oracle(own, BENCHMARK)) for key, own in runs.items()}
    table, figure = recovery_table(found, "calibration"), recovery_figure(found)
    files = {
        "calibration.csv": csv_text(table).encode(),
        "calibration.png": figure.png,
        "calibration.svg": figure.svg,
    }
    notes = [textwrap.fill(one_line(note), 80) for note in table.notes]
    shown = [table.title, "", plain_table(table), *notes, "", f"{', '.join(files)} in {chosen.out}"]
    report = Report(files, "\n".join(shown))
    write(report, chosen.out)
    print(printable(redact(report.shown)))
    return 0


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

"""The program `python -m lr_exp.report DIR`: tables and figures of the runs below a folder.

Imports no torch: reports are made where models do not run.
"""

import argparse
import os
import sys
from pathlib import Path

from lr_exp.errors import UserError, guard_logging, guard_tracebacks, printable, redact


def main(words: list[str] | None = None) -> int:
    """Makes the report; returns 0, or 1 after an error that was printed in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.report",
        description="Tables and figures of all runs below a folder, beside the published numbers.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's folder, or a sweep's")
    parser.add_argument("--out", type=Path, help="where the report goes (default: DIR/report)")
    chosen = parser.parse_args(words)
    guard_logging()
    out = chosen.out or chosen.folder / "report"
    try:
        from lr_exp.report.build import build, write

        report = build(chosen.folder, out)
        write(report, out)
    except UserError as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        message = printable(redact(" ".join(str(error).split())))
        print(f"error: {message}", file=sys.stderr, flush=True)
        return 1
    try:
        print(printable(redact(report.shown)))
        told = f"Report: {out / 'report.md'} and report.html ({len(report.files)} files in {out})"
        print(printable(redact(told)), flush=True)
    except BrokenPipeError:  # whoever reads has enough, as `head` does; the files are there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is buffered still
    return 0


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())

"""The command `python -m lr_exp.report DIR`: tables and figures of the runs below a folder."""

import argparse
import os
import sys
from pathlib import Path

from lr_exp.errors import UserError, guard_logging, guard_tracebacks, printable, redact


def main(words: list[str] | None = None) -> int:
    """Writes the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.report",
        description="Tables and figures of all runs below a folder, beside the published numbers.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a run or a sweep")
    parser.add_argument("--out", type=Path, help="folder of the report (default: DIR/report)")
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
        where = f"Report: {out / 'report.md'} and report.html ({len(report.files)} files in {out})"
        print(printable(redact(where)), flush=True)
    except BrokenPipeError:  # the reader stopped, as `head` does; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drops buffered output
    return 0


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
